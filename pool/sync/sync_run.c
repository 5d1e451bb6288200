/* Running one command by hob-init and keeping the end of what it says. */
#include "pool/sync/sync_run.h"

#include "base/buffer.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

#define SAID_MAX 4096

struct sync_run {
	struct init_exec_handle *exec;
	struct loop_timer *timer;
	struct buffer said;
	bool timed_out;
	sync_run_done_fn *fn;
	void *context;
};

static void run_free(struct sync_run *run)
{
	loop_timer_free(run->timer);
	buffer_done(&run->said);
	free(run);
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct sync_run *run = context;

	(void)stream;
	if (run->said.length + length > SAID_MAX) {
		buffer_clear(&run->said);
	}
	buffer_add(&run->said, data, length < SAID_MAX ? length : SAID_MAX);
	init_exec_consumed(run->exec, length);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct sync_run *run = context;
	sync_run_done_fn *fn = run->fn;
	void *owner = run->context;
	struct error failure = ERROR_INIT;

	if (run->timed_out) {
		error_set(&failure, ERROR_TIMEOUT, "sync.run took over %d s",
			SYNC_RUN_TIMEOUT_MS / 1000);
		err = &failure;
	} else if (result != NULL && result->code != 0) {
		error_set(&failure, ERROR_FAILED, "sync.run: exit code %d: %.900s", result->code,
			buffer_text(&run->said));
		err = &failure;
	}
	run_free(run);
	fn(owner, result != NULL ? result->code : -1, err);
}

static void on_timeout(void *context)
{
	struct sync_run *run = context;

	run->timed_out = true;
	init_exec_signal(run->exec, 9);
}

int sync_run_start(struct entry *entry, const char *command, sync_run_done_fn *fn, void *context,
	struct sync_run **ret_run, struct error *err)
{
	static const struct exec_events events = {.output = on_output, .ended = on_ended};
	const struct pool_image *image = entry->image;
	char *const argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t)command, NULL};
	struct exec_spec spec = {
		.argv = argv, .env = image->env, .cwd = image->cwd, .user = image->user};
	struct sync_run *run = xcalloc(1, sizeof(*run));
	int status;

	run->fn = fn;
	run->context = context;
	buffer_init(&run->said, 0);
	status = init_exec(entry->client, entry->next_exec++, &spec, &events, run, &run->exec, err);
	if (status < 0) {
		run_free(run);
		return status;
	}
	run->timer = loop_timer_new(entry->manager->loop, on_timeout, run);
	loop_timer_after(run->timer, SYNC_RUN_TIMEOUT_MS);
	*ret_run = run;
	return 0;
}

void sync_run_abandon(struct sync_run *run)
{
	if (run != NULL) {
		init_exec_detach(run->exec, true);
		run_free(run);
	}
}
