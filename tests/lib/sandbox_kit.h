/* A real launcher over a temporary store, and calls that wait for its answers. Needs root. */
#ifndef HOB_TESTS_LIB_SANDBOX_KIT_H
#define HOB_TESTS_LIB_SANDBOX_KIT_H

#include "base/error.h"
#include "configs/config.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/store.h"
#include "tests/lib/init_kit.h"

#include <stdbool.h>
#include <stdint.h>

/* Layer 1 of every kit: a skeleton over this machine's /usr, owned by one id, as base: host makes.
 */
#define KIT_LAYER_HOST 1
#define KIT_LAYERS_MAX 64
#define KIT_BOXES_MAX 16 /* connected at a time */

struct sandbox_kit {
	struct config config;
	char *folder; /* holds store/ and run/ */
	struct loop *loop;
	struct launcher *launcher;
	bool lost; /* the handler was called */
	struct layer layers[KIT_LAYERS_MAX];
	size_t layer_count;
	bool waiting; /* for the answer below */
	struct error err;
	struct sandbox_created created;
	struct sandbox_copied copied;
	int fd;
	struct init_client *clients[KIT_BOXES_MAX]; /* for a test that fails half-way */
};

/* cmocka fixtures: *state is a struct sandbox_kit, or the tests are skipped where there is no root.
 */
int sandbox_kit_setup(void **state);
int sandbox_kit_teardown(void **state);
/* Without cmocka's fixtures, for benchmarks and for several in one test; `launchers` as in config.
 */
struct sandbox_kit *sandbox_kit_new(int64_t launchers);
/* One launcher in which the first passage of a fault point does `action` (base/fault.h). Skips the
 * test where there is no root. */
struct sandbox_kit *sandbox_kit_broken(const char *point, const char *action);
void sandbox_kit_free(struct sandbox_kit *kit);
/* Stops the launchers and starts others, as a restart of hobd does. */
void sandbox_kit_restart(struct sandbox_kit *kit);

/* layers/<id>/tree, empty, owned by id_base; the caller fills it. Returns its path; free it. */
char *sandbox_kit_layer(struct sandbox_kit *kit, int64_t id_base, int64_t id_count);

/* A sandbox and a client of its hob-init. */
struct kit_box {
	struct init_kit init; /* for kit_run_* */
	struct sandbox_kit *kit;
	char id[64];
	uint32_t slot;
	struct sandbox_created created;
};

/* A spec over all layers of the kit, with `id` and `slot`. */
struct sandbox_spec kit_spec(const struct sandbox_kit *kit, const char *id, uint32_t slot);
/* 0, or the error's code with kit->err set. Then box_close. */
int box_create(struct sandbox_kit *kit, struct kit_box *box, const struct sandbox_spec *spec);
/* Connects a client to the created control socket and waits for hob-init's hello. */
void box_connect(struct kit_box *box);
/* Lets go of the connection; the sandbox lives on. */
void box_disconnect(struct kit_box *box);
/* Creates and connects, failing the test. */
void box_open(struct sandbox_kit *kit, struct kit_box *box, const char *id, uint32_t slot);
/* Runs `sh -c script`; its standard output without the last newline, for the caller to free. */
char *box_shell(struct kit_box *box, const char *script, int *ret_code);
/* Destroys it and closes what it holds; the error's code. */
int box_close(struct kit_box *box);

/* Requests, and the wait for their answer: 0, or the error's code with kit->err set. */
int kit_destroy(struct sandbox_kit *kit, const char *id);
int kit_freeze(struct sandbox_kit *kit, const char *id);
int kit_thaw(struct sandbox_kit *kit, const char *id);
int kit_seal(struct sandbox_kit *kit, const char *staging);
int kit_snapshot(
	struct sandbox_kit *kit, const char *id, const char *staging, int64_t previous_layer);
int kit_keep(struct sandbox_kit *kit, const char *id, const char *staging);
int kit_prepare(struct sandbox_kit *kit, const char *staging, uint32_t slot, int *ret_fd);
int kit_remove(struct sandbox_kit *kit, const char *room, const char *name);
int kit_build(struct sandbox_kit *kit, const char *environment, pid_t *ret_pid, int *ret_pidfd);

#endif
