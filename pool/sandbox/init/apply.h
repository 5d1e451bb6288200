/*
 * Between the files of the process that brings a workspace to another commit. It is a fork of
 * hob-init with the rights of the workspace's owner; it may block, and it ends with its task, so
 * what it allocates is never freed. Every path is resolved beneath the workspace, through no link.
 */
#ifndef HOB_POOL_SANDBOX_INIT_APPLY_H
#define HOB_POOL_SANDBOX_INIT_APPLY_H

#include "pool/sandbox/init/init.h"

#define APPLY_HEX_SIZE (2 * APPLY_ID_SIZE + 1)

struct apply_change {
	char *path;
	size_t length;
	struct apply_record record;
	unsigned staged; /* the name of its new content in .git/hob-sync; 0: none */
	bool needed; /* the work tree has the old state still */
};

struct apply_ref {
	char *path;
	unsigned staged;
};

struct apply {
	const char *workspace;
	int root_fd; /* the workspace */
	int git_fd; /* its .git */
	int staging_fd; /* .git/hob-sync, locked */
	struct apply_record begin;
	char *branch;
	struct apply_change *changes; /* sorted by path */
	size_t change_count, change_room;
	struct apply_ref refs[8];
	size_t ref_count;
	char *packs[4];
	size_t pack_count;
	unsigned staged_count;
	bool touched; /* something of the workspace has changed */
	bool index_locked;
	size_t conflicts;
};

/* Ends the process: with APPLY_UNTOUCHED, or APPLY_TORN once something was changed. */
void apply_fail(struct apply *apply, int sys, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
/* Writes the path to stdout. */
void apply_conflict(struct apply *apply, const char *path);
void *apply_alloc(struct apply *apply, void *old, size_t count, size_t size);
/* The change of exactly this path, or NULL. */
struct apply_change *apply_find(const struct apply *apply, const char *path, size_t length);
void apply_staged_name(unsigned staged, char name[16]);

/* ---- apply_id.c: git's names of content ---- */
struct apply_sha1 {
	uint32_t state[5];
	uint64_t length;
	uint8_t block[64];
};
void apply_sha1_start(struct apply_sha1 *sha1);
void apply_sha1_add(struct apply_sha1 *sha1, const void *data, size_t length);
void apply_sha1_end(struct apply_sha1 *sha1, uint8_t id[APPLY_ID_SIZE]);
void apply_hex(const uint8_t id[APPLY_ID_SIZE], char hex[APPLY_HEX_SIZE]);

/* ---- apply_tree.c: the work tree ---- */
/* Looks at every path that changes; a conflict for each that is neither as before nor as after. */
void apply_tree_check(struct apply *apply);
void apply_tree_write(struct apply *apply);

/* ---- apply_index.c ---- */
/* Locks the index as git does, checks that it says of every path what the old commit says, and
 * writes the new one into the lock. */
void apply_index_stage(struct apply *apply);
void apply_index_commit(struct apply *apply);

/* ---- apply_refs.c ---- */
/* Is HEAD where it is expected, and nothing under way? */
void apply_refs_check(struct apply *apply);
void apply_refs_write(struct apply *apply);

#endif
