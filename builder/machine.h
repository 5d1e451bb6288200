/*
 * What every part of a build needs at hand, and the one way in which it waits: the loop runs until
 * something is done, the build is cancelled, or its time is up. Requests to the launcher are waited
 * for to their end even when cancelled, so that no reply finds its receiver gone.
 */
#ifndef HOB_BUILDER_MACHINE_H
#define HOB_BUILDER_MACHINE_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct launcher;
struct loop;
struct report;
struct store;
struct sandbox_spec;
struct sandbox_created;

struct machine {
	const struct config *config;
	struct loop *loop;
	struct report *report;
	struct launcher *launcher; /* NULL in tests that need no sandbox */
	struct store *store; /* NULL in tests that need none */
	int cancelled; /* the signal, or 0; SIGUSR1: superseded */
	/* Asked after SIGUSR1, which says that there is news: is this build in vain? */
	bool (*superseded)(void *context);
	void *superseded_context;
	bool news;
	bool launcher_lost;
	bool no_cache; /* this build is from nothing: no layer is looked for */
	int64_t deadline_ms; /* monotonic, of the whole build; 0: none */
};

/* Opens the loop and takes SIGINT and SIGTERM as cancelling, SIGUSR1 as news of a source. `report`
 * stays the caller's. */
MUSTCHECK int machine_init(struct machine *machine, const struct config *config,
	struct report *report, struct error *err);
/* After privileges_drop: from now on the launcher, which stays the caller's, answers here. */
MUSTCHECK int machine_use_launcher(
	struct machine *machine, struct launcher *launcher, struct error *err);
void machine_done(struct machine *machine);

/* Runs the loop until *done. ERROR_CANCELLED; ERROR_TIMEOUT naming `what` past deadline_ms (0:
 * none) or the build's; ERROR_UNAVAILABLE when the launcher has died. Whoever sets *done calls
 * machine_wake. */
MUSTCHECK int machine_wait(struct machine *machine, const bool *done, int64_t deadline_ms,
	const char *what, struct error *err);
void machine_wake(struct machine *machine);
/* The error of a dead launcher. */
int machine_lost(struct error *err);

/* The launcher's requests, waited for. */
MUSTCHECK int machine_create(struct machine *machine, const struct sandbox_spec *spec,
	struct sandbox_created *ret_created, struct error *err);
MUSTCHECK int machine_destroy(struct machine *machine, const char *id, struct error *err);
MUSTCHECK int machine_seal(struct machine *machine, const char *staging, struct error *err);
MUSTCHECK int machine_prepare_tree(struct machine *machine, const char *staging, uint32_t slot,
	int *ret_userns_fd, struct error *err);
/* Runs hob-snapshots upkeep to its end; a signal ends it, too. */
MUSTCHECK int machine_upkeep(struct machine *machine, struct error *err);
/* A new id for a build's sandbox, into text[ID_SIZE], that tells which process made it. */
void machine_sandbox_id(char *text);
/* Takes away what is left of sandboxes whose hob-build and launcher were both killed. */
MUSTCHECK int machine_sweep(struct machine *machine, struct error *err);
/* For store_set_remover; context is the machine. */
int machine_remove(void *context, const char *room, const char *name, struct error *err);

#endif
