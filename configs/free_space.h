/* The watermark of free space (hob.yaml's free_space): below it builds wait, pools shrink and
 * garbage is collected. A share of the file system, "5%", or a size, "20GiB"; "0" turns it off. */
#ifndef HOB_CONFIGS_FREE_SPACE_H
#define HOB_CONFIGS_FREE_SPACE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct free_space {
	uint64_t total, free; /* bytes; free: for those who are not root */
	uint64_t mark; /* 0: none */
	bool low; /* less than the mark */
};

/* False when it is neither "0%" to "50%" nor a size. */
bool free_space_parse(const char *text, int64_t *ret_bytes, int64_t *ret_percent);
/* A file system in a sparse file promises more than the disk below may have: of what is free in it,
 * that much can be written which lies in the file already or still fits below. All in bytes. */
uint64_t free_in_sparse(uint64_t free, uint64_t size, uint64_t stored, uint64_t host_free);
/* Looks at the file system of `folder`, which must exist. */
MUSTCHECK int free_space_look(
	const char *folder, const char *setting, struct free_space *ret_space, struct error *err);
/* "120 MiB of 10 GiB free, less than free_space (512 MiB)", into text[FREE_SPACE_TEXT_SIZE]. */
#define FREE_SPACE_TEXT_SIZE 128
void free_space_text(const struct free_space *space, char *text);
/* ERROR_NO_SPACE saying so, and what to do, when it is low. */
MUSTCHECK int free_space_check(const struct free_space *space, struct error *err);

#endif
