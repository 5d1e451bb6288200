/* Files between this machine and a sandbox, for hob cp. */
#ifndef HOB_POOL_CLI_COPY_H
#define HOB_POOL_CLI_COPY_H

#include "base/error.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli;

/* Deeper trees are refused: they are loops, or meant to hurt. */
#define COPY_DEPTH_MAX 256

struct copy {
	struct cli *cli;
	char *id; /* of the sandbox */
	uint64_t bytes, files;
	int64_t started_ms, shown_ms;
};

enum remote_kind { REMOTE_NONE, REMOTE_FILE, REMOTE_FOLDER };

/* What is at an absolute path in the sandbox. */
MUSTCHECK int copy_remote_kind(
	struct copy *copy, const char *path, enum remote_kind *ret_kind, struct error *err);

/* `source` (a file, or a folder with all in it) becomes `target`, an absolute path in the sandbox.
 * `merge`: there may be folders already; those keep their modes. */
MUSTCHECK int copy_in(
	struct copy *copy, const char *source, const char *target, bool merge, struct error *err);
/* Standard input becomes the file `target`. */
MUSTCHECK int copy_in_stream(struct copy *copy, const char *target, struct error *err);
/* The sandbox's `source` becomes `target` here. Nothing is written outside of `target`, whatever
 * the sandbox holds; set-uid bits are dropped. */
MUSTCHECK int copy_out(
	struct copy *copy, const char *source, const char *target, struct error *err);
/* The file `source` goes to standard output. */
MUSTCHECK int copy_out_stream(struct copy *copy, const char *source, struct error *err);

/* Counts bytes, and shows them on a terminal once a copy takes long. */
void copy_progress(struct copy *copy, size_t bytes);
void copy_progress_end(struct copy *copy);
/* "/v1/sandboxes/<id>/files/<path>". The caller frees it. */
char *copy_url(const struct copy *copy, const char *path);
/* "<folder>/<name>". The caller frees it. */
char *copy_join(const char *folder, const char *name);

#endif
