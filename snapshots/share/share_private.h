/* What the files of sharing have in common. */
#ifndef HOB_SNAPSHOTS_SHARE_PRIVATE_H
#define HOB_SNAPSHOTS_SHARE_PRIVATE_H

#include "snapshots/share/share.h"
#include "snapshots/store_private.h"

#include <sys/stat.h>

/* Two layers of which the first is older, opened and locked against removal. */
struct share_pair {
	struct layer old, new;
	int old_fd, new_fd; /* layers/<id>, locked LOCK_SH */
	bool old_free, new_free; /* its names may be replaced */
};

struct share_counts {
	uint64_t files; /* made one in this run */
	uint64_t bytes; /* of all that the two have in common now, on disk */
	uint64_t saved; /* of those made one in this run */
};

/* Right before names are replaced, with the times of folders written down, so that whoever comes
 * now waits: is nobody else on the layer, who came meanwhile? ERROR_BUSY. Keeps the lock. */
MUSTCHECK int share_still_free(struct store *store, int64_t id, int layer_fd, struct error *err);

/* Compares the trees of a pair. ERROR_CANCELLED: stopped. */
MUSTCHECK int share_trees(struct store *store, const struct share_pair *pair,
	enum share_method method, const struct share_events *events,
	struct share_counts *ret_counts, struct error *err);

/* A regular file of two layers, open for reading. */
struct share_file {
	int old_fd, new_fd;
	struct stat old, new;
};

/* Shares blocks of equal content; *ret_bytes is how many. */
MUSTCHECK int share_blocks(const struct share_file *file, uint64_t *ret_bytes, struct error *err);
/* Are content and attributes, overlayfs' own too, equal? The stats have been compared. */
MUSTCHECK int share_is_equal(
	struct store *store, const struct share_file *file, bool *ret_equal, struct error *err);
/* True when the stats do not forbid that one stands for the other. */
bool share_may_link(const struct stat *a, const struct stat *b);

/* ---- the times of folders ---- */
struct restamp {
	int layer_fd;
	int fd; /* of the file that they are written in, locked; -1: none */
	struct buffer text;
};

void restamp_add(struct restamp *restamp, const char *path, const struct stat *status);
/* Writes down what was added, durably; from here on the layer may be changed. */
MUSTCHECK int restamp_begin(struct restamp *restamp, int layer_fd, struct error *err);
/* Puts all times back, makes everything durable, and forgets them. */
MUSTCHECK int restamp_end(struct restamp *restamp, struct error *err);
void restamp_done(struct restamp *restamp); /* without an end: the file stays */

#endif
