/*
 * Secrets by name: files of one folder (hob.yaml's `secrets`) that only root and hob's group can
 * read. Configuration, catalog, logs and arguments of processes hold names, never what they stand
 * for. A secret is read when it is used, so that replacing the file is all that a rotation takes.
 */
#ifndef HOB_CONFIGS_SECRET_H
#define HOB_CONFIGS_SECRET_H

#include "base/error.h"

#include <stddef.h>

/* A private key of 16,384 bits as PEM has 13 kB. */
#define SECRET_BYTES_MAX 65536

/* Wiped when it is freed. */
struct secret {
	char *text; /* ends with '\0', which is not counted; a line end at the end is left out */
	size_t length;
};

/* ERROR_NOT_FOUND; ERROR_DENIED when it cannot be read, or when everybody can; ERROR_INVALID when
 * it is empty or no text; ERROR_LIMIT. `folder` is config->secrets. */
MUSTCHECK int secret_read(
	const char *folder, const char *name, struct secret *ret_secret, struct error *err);
void secret_done(struct secret *secret);

#endif
