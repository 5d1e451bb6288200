/*
 * Live copies without a sandbox: folders on a file system of the test's choice, processes that are
 * stopped by SIGSTOP in place of the freezer, and a hook for what happens just before that. Needs
 * root.
 */
#ifndef HOB_TESTS_LIB_LIVE_KIT_H
#define HOB_TESTS_LIB_LIVE_KIT_H

#include "base/error.h"
#include "pool/sandbox/live/live_copy.h"

#include <stdbool.h>

#define LIVE_KIT_WRITERS 8

struct live_kit {
	char *folder; /* upper, lower, work, merged, tree, previous, scratch */
	bool xfs;
	bool mounted, overlaid; /* in this process's mount namespace */
	pid_t writers[LIVE_KIT_WRITERS];
	size_t writer_count;
	bool stopped;
	int thaws; /* calls of thaw */
	void (*before_freeze)(struct live_kit *kit); /* NULL: nothing */
	void *context;
	int cancel_after; /* looks; 0: never */
	int64_t max_pause_us; /* 0: none */
	bool with_previous; /* previous/ and its list are given */
	struct sandbox_copied report;
	struct error err;
};

/* Fixtures: *state is a kit, or NULL where the tests cannot run. The file systems are in memory,
 * made for the kit, so that syncing one does not wait for the rest of the machine. */
int live_kit_setup_ext4(void **state);
int live_kit_setup_xfs(void **state);
int live_kit_teardown(void **state);

/* folder/name; free it. */
char *live_kit_path(const struct live_kit *kit, const char *name);
/* An overlay of lower and upper at merged. */
void live_kit_mount(struct live_kit *kit);
/* fork; the child calls `run` until it is killed. */
void live_kit_start(struct live_kit *kit, void (*run)(const char *folder), const char *folder);
/* A program in its place. */
void live_kit_spawn(struct live_kit *kit, char *const *argv);
void live_kit_kill(struct live_kit *kit);
/* Copies upper to an empty tree: 0, or the error's code with kit->err set. */
int live_kit_copy(struct live_kit *kit);
/* tree becomes previous. */
void live_kit_keep(struct live_kit *kit);

#endif
