/*
 * A store broken at every step: the work runs in a child that is the test program again, with one
 * fault armed, at one fault point after the other, at every passage of it.
 */
#ifndef HOB_TESTS_LIB_FAULT_KIT_H
#define HOB_TESTS_LIB_FAULT_KIT_H

#include "snapshots/store.h"

#include <stdbool.h>
#include <stddef.h>

struct fault_kit {
	/* What the child does to the store once that is open and swept. */
	int (*work)(struct store *store, struct error *err);
	/* What the store holds before that. */
	void (*prepare)(struct store *store);
	/* One run with `fault`, and what must hold after it, in a store that is prepared. False:
	 * this passage was not there, the point is through. */
	bool (*break_once)(struct store *store, const char *fault, int passage);
};

/* For main(): `test --work STORE` is the child; its exit code, or -1 for any other call. */
int fault_kit_child(const struct fault_kit *kit, int argc, char **argv);
/* The work in a child, with HOB_FAULT="point:n:action" or NULL; what waitpid says. */
int fault_kit_run(const struct store *store, const char *fault);
/* Each of `wanted` is passed by the work when nothing fails. */
void fault_kit_expect(
	const struct fault_kit *kit, const char *folder, const char *const *wanted, size_t count);
/* Calls break_once for every passage of every point of the work, each in a new store. An action
 * of "kill" must happen at each point at least once. */
void fault_kit_everywhere(const struct fault_kit *kit, const char *folder, const char *action);

#endif
