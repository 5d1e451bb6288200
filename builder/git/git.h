/*
 * Sources by libgit2: a bare mirror a url, kept up by fetching one ref, and checkouts of a commit
 * as ordinary workspaces. All parsing of git data happens in child processes. A mirror is only ever
 * changed under its lock; packs in it never change, so that workspaces share them by hard links.
 */
#ifndef HOB_BUILDER_GIT_H
#define HOB_BUILDER_GIT_H

#include "base/buffer.h"
#include "base/error.h"
#include "snapshots/store.h"

#include <stdbool.h>
#include <stdint.h>

struct machine;
struct credential;
struct git_module_list;

#define GIT_REF_SIZE 256

struct git_source {
	const char *url; /* as the environment says it; becomes `origin` */
	const char *local; /* folder to read instead when the url names one; NULL: remote */
	const char *ref; /* branch, tag, full name or commit; NULL: the remote's HEAD */
	const struct credential *credential; /* NULL: fetched with nothing */
	const char *mirrors; /* absolute: the store's mirrors/ */
	int64_t stall_ms; /* a remote that is silent for so long has vanished */
};

struct git_found {
	char commit[COMMIT_TEXT_SIZE];
	char ref[GIT_REF_SIZE]; /* refs/heads/…, refs/tags/…; empty: a bare commit */
	bool is_head; /* it is what the remote's HEAD names */
	bool fetched; /* something new came */
	uint64_t objects, bytes; /* of what came */
};

/* The folder that a url names ("/…", "file://…"), NULL for remotes. free() it. */
char *git_url_path(const char *url);
/* The url without a password, fit for logs and workspaces. free() it. */
char *git_url_public(const char *url);

/*
 * Brings the mirror up to date with source->ref and resolves it. A mirror that turns out broken is
 * made anew once. ERROR_NOT_FOUND (no such ref: the hint names similar ones), ERROR_REMOTE,
 * ERROR_TIMEOUT, ERROR_DENIED, ERROR_UNSUPPORTED (shallow or partial repositories).
 */
MUSTCHECK int git_fetch(struct machine *machine, const struct git_source *source,
	struct git_found *ret_found, struct error *err);

struct git_checked_out {
	uint64_t files;
	uint64_t submodules; /* their folders are left empty */
	uint64_t lfs; /* large-file pointers left as they are */
};

/* Where a workspace is written, and what decides the times of its files: one whose path and content
 * the image before had too keeps its time, others are newer than after_ms. */
struct git_place {
	int tree_fd;
	const char *path; /* the workspace's, below it; made */
	int previous_fd; /* .git/index of the image before; -1: none */
	int64_t after_ms;
	/* Submodules that somebody writes afterwards: the configuration names them, and a delta
	 * over which they cannot be laid is refused as `whole`. NULL: they stay empty. */
	const struct git_module_list *modules;
	bool any_size; /* a delta, however large: it belongs to a submodule */
};

/* Writes the workspace of found->commit. ERROR_CORRUPT: the mirror lacks objects; git_mirror_drop
 * it and fetch again. */
MUSTCHECK int git_checkout(struct machine *machine, const struct git_source *source,
	const struct git_found *found, const struct git_place *place,
	struct git_checked_out *ret_counts, struct error *err);

struct git_delta {
	struct git_checked_out counts; /* files: that differ */
	bool whole; /* nothing is to be used: a full checkout is the better way, as it says */
	char why[64];
};

/* Writes what of found->commit differs from the full checkout of `full_commit` whose folder is
 * full_fd, as a layer to lie over it. */
MUSTCHECK int git_write_delta(struct machine *machine, const struct git_source *source,
	const struct git_found *found, const char *full_commit, int full_fd,
	const struct git_place *place, struct git_delta *ret_delta, struct error *err);

/* What the inputs of steps are at a commit. */
#define GIT_INPUTS_MAX 24
struct git_inputs {
	char digests[GIT_INPUTS_MAX][65]; /* of the paths, modes and object ids that match */
	uint32_t files[GIT_INPUTS_MAX]; /* how many do */
};
/* For `count` lists of patterns (base/glob.h) in one walk over the commit's trees. With `modules`,
 * a submodule counts where a pattern could match something in it. */
MUSTCHECK int git_read_inputs(struct machine *machine, const struct git_source *source,
	const char *commit, char *const *const *lists, size_t count, bool modules,
	struct git_inputs *ret_inputs, struct error *err);

/* Appends the paths that differ between two commits, each with its final '\0'; from a process that
 * has read hostile data. ERROR_NOT_FOUND: the mirror lacks one of them. */
#define GIT_CHANGES_BYTES_MAX (16 * 1024 * 1024)
MUSTCHECK int git_read_changes(struct machine *machine, const struct git_source *source,
	const char *from, const char *to, struct buffer *paths, struct error *err);

/* Writes only the files that match, and no .git: what a strict step sees. previous_fd of the place
 * is the index of the whole workspace. The patterns count from the folder that `below` ("", or with
 * its final slash) lies in. */
MUSTCHECK int git_write_inputs(struct machine *machine, const struct git_source *source,
	const struct git_found *found, char *const *patterns, const char *below,
	const struct git_place *place, uint64_t *ret_files, struct error *err);

/* "<mirrors>/<hash of the url>.git"; free() it. */
char *git_mirror_path(const struct git_source *source);
/* Deletes the mirror of a url. */
MUSTCHECK int git_mirror_drop(const struct git_source *source, struct error *err);

#endif
