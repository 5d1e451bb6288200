/* A real hob-init without a sandbox around it: as root PID 1 of a namespace of its own with its own
 * /proc, otherwise a plain child. And waiting for what it answers, with an end to patience. */
#ifndef HOB_TESTS_LIB_INIT_KIT_H
#define HOB_TESTS_LIB_INIT_KIT_H

#include "base/buffer.h"
#include "base/error.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define KIT_EXECS_MAX 256

struct init_kit {
	struct loop *loop;
	struct init_client *client;
	pid_t pid; /* of hob-init */
	char *folder; /* temporary; holds sandboxes/sb-kit/init.sock */
	bool ready, closed;
	uint32_t execs[KIT_EXECS_MAX]; /* that `ready` named */
	size_t exec_count;
	uint32_t next_id;
};

/* cmocka fixtures: *state is a struct init_kit with a client that is ready. */
int init_kit_setup(void **state);
int init_kit_teardown(void **state);
/* Another connection instead of the present one, and waits until it is ready. */
void init_kit_reconnect(struct init_kit *kit);
/* Runs the loop until *flag, or fails the test after 20 s. */
void init_kit_until(struct init_kit *kit, const bool *flag);
/* Runs the loop for a while. */
void init_kit_pause(struct init_kit *kit, int64_t ms);

/* One command and what it said. */
struct kit_run {
	struct init_kit *kit;
	struct init_exec_handle *exec;
	uint32_t id;
	bool started, ended;
	bool hold; /* do not consume */
	uint32_t pid;
	struct buffer out, err;
	size_t room;
	struct exec_result result;
	struct error error;
};
extern const struct exec_events kit_run_events;

void kit_run_start(struct init_kit *kit, struct kit_run *run, const struct exec_spec *spec);
/* The same for one the client's `ready` named. */
void kit_run_adopt(struct init_kit *kit, struct kit_run *run, uint32_t id);
/* Starts `sh -c script` and waits for its end. */
void kit_run_shell(struct init_kit *kit, struct kit_run *run, const char *script);
void kit_run_done(struct kit_run *run);

#endif
