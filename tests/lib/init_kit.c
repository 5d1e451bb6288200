/* Starts hob-init for tests, from the build folder that the test program is in. */
#include "tests/lib/init_kit.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/loop.h"
#include "pool/sandbox/init_protocol.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PATIENCE_MS 120000
#define KIT_ID "sb-kit"

/* build/release/tests/unit/test_init -> build/release/hob-init, wherever the program is below. */
static char *program_find(void)
{
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(length > 0);
	self[length] = '\0';
	for (char *slash = strrchr(self, '/'); slash != NULL; slash = strrchr(self, '/')) {
		CLEANUP(free_p) char *path = NULL;

		*slash = '\0';
		path = xasprintf("%s/hob-init", self);
		if (access(path, X_OK) == 0) {
			return steal_ptr(path);
		}
	}
	fail_msg("no hob-init in a folder above this test: make it first");
	return NULL;
}

static int listen_at(const char *folder)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int dir = io_open(AT_FDCWD, folder, O_PATH | O_DIRECTORY, 0, &err);
	int fd;

	assert_ok(dir, &err);
	assert_ok(io_mkdir_all(dir, "sandboxes/" KIT_ID, 0755, &err), &err);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/sandboxes/%s/init.sock",
		folder, KIT_ID);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

static void __attribute__((noreturn)) child_run(const char *program, int control, int listening)
{
	char *argv[] = {(char *)(uintptr_t)program, NULL};
	char *env[] = {NULL};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (geteuid() != 0) {
		(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	} else if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		   mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
		_exit(120);
	}
	control = fcntl(control, F_DUPFD, 64);
	listening = fcntl(listening, F_DUPFD, 64);
	if (dup2(control, INIT_CONTROL_FD) < 0 || dup2(listening, INIT_LISTEN_FD) < 0) {
		_exit(121);
	}
	close(control);
	close(listening);
	execve(program, argv, env);
	_exit(122);
}

static void on_ready(void *context, const uint32_t *execs, size_t count)
{
	struct init_kit *kit = context;

	kit->exec_count = 0;
	for (size_t i = 0; i < count && i < KIT_EXECS_MAX; i++) {
		kit->execs[kit->exec_count++] = execs[i];
	}
	kit->ready = true;
	loop_stop(kit->loop);
}

static void on_closed(void *context)
{
	struct init_kit *kit = context;

	kit->closed = true;
	loop_stop(kit->loop);
}

static const struct init_client_events client_events = {.ready = on_ready, .closed = on_closed};

static void client_make(struct init_kit *kit, int fd)
{
	struct error err = ERROR_INIT;

	kit->ready = false;
	kit->closed = false;
	assert_ok(init_client_new(kit->loop, fd, &client_events, kit, &kit->client, &err), &err);
	init_kit_until(kit, &kit->ready);
}

int init_kit_setup(void **state)
{
	struct init_kit *kit = xcalloc(1, sizeof(*kit));
	unsigned long flags = SIGCHLD | (geteuid() == 0 ? CLONE_NEWPID | CLONE_NEWNS : 0);
	CLEANUP(free_p) char *program = program_find();
	struct error err = ERROR_INIT;
	int ends[2];
	int listening;

	*state = kit;
	kit->next_id = 1;
	kit->folder = temp_folder();
	assert_ok(loop_open(&kit->loop, &err), &err);
	listening = listen_at(kit->folder);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	kit->pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
	if (kit->pid == 0) {
		child_run(program, ends[1], listening);
	}
	assert_true(kit->pid > 0);
	close(ends[1]);
	close(listening);
	client_make(kit, ends[0]);
	return 0;
}

int init_kit_teardown(void **state)
{
	struct init_kit *kit = *state;

	init_client_free(kit->client);
	loop_close(kit->loop);
	if (kit->pid > 0) {
		kill(kit->pid, SIGKILL);
		waitpid(kit->pid, NULL, 0);
	}
	temp_remove(kit->folder);
	free(kit);
	return 0;
}

void init_kit_reconnect(struct init_kit *kit)
{
	struct error err = ERROR_INIT;
	int fd = -1;

	init_client_free(kit->client);
	kit->client = NULL;
	assert_ok(init_client_connect(kit->folder, KIT_ID, &fd, &err), &err);
	client_make(kit, fd);
}

static void on_time(void *context)
{
	struct init_kit *kit = context;

	loop_stop(kit->loop);
}

static void run_once(struct init_kit *kit, int64_t ms)
{
	struct loop_timer *timer = loop_timer_new(kit->loop, on_time, kit);
	struct error err = ERROR_INIT;

	loop_timer_after(timer, ms);
	assert_ok(loop_run(kit->loop, &err), &err);
	loop_timer_free(timer);
}

void init_kit_until(struct init_kit *kit, const bool *flag)
{
	int64_t end_ms = clock_mono_ms() + PATIENCE_MS;

	while (!*flag) {
		if (clock_mono_ms() >= end_ms) {
			fail_msg("hob-init did not answer in %d ms", PATIENCE_MS);
		}
		run_once(kit, end_ms - clock_mono_ms());
	}
}

void init_kit_pause(struct init_kit *kit, int64_t ms)
{
	int64_t end_ms = clock_mono_ms() + ms;

	while (clock_mono_ms() < end_ms) {
		run_once(kit, end_ms - clock_mono_ms());
	}
}

static void on_started(void *context, uint32_t pid)
{
	struct kit_run *run = context;

	run->started = true;
	run->pid = pid;
	loop_stop(run->kit->loop);
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct kit_run *run = context;

	assert_true(buffer_add(stream == EXEC_STDOUT ? &run->out : &run->err, data, length));
	if (!run->hold) {
		init_exec_consumed(run->exec, length);
	}
	loop_stop(run->kit->loop);
}

static void on_room(void *context, size_t bytes)
{
	struct kit_run *run = context;

	run->room += bytes;
	loop_stop(run->kit->loop);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct kit_run *run = context;

	assert_false(run->ended);
	assert_true((result == NULL) != (err == NULL));
	run->ended = true;
	run->exec = NULL;
	if (result != NULL) {
		run->result = *result;
	} else {
		run->error = *err;
		run->result.code = -1;
	}
	loop_stop(run->kit->loop);
}

const struct exec_events kit_run_events = {
	.started = on_started, .output = on_output, .stdin_room = on_room, .ended = on_ended};

static void run_init(struct init_kit *kit, struct kit_run *run)
{
	bool hold = run->hold;

	*run = (struct kit_run){.kit = kit, .hold = hold};
	buffer_init(&run->out, 0);
	buffer_init(&run->err, 0);
}

void kit_run_start(struct init_kit *kit, struct kit_run *run, const struct exec_spec *spec)
{
	struct error err = ERROR_INIT;

	run_init(kit, run);
	run->id = kit->next_id++;
	assert_ok(init_exec(kit->client, run->id, spec, &kit_run_events, run, &run->exec, &err),
		&err);
}

void kit_run_adopt(struct init_kit *kit, struct kit_run *run, uint32_t id)
{
	struct error err = ERROR_INIT;

	run_init(kit, run);
	run->id = id;
	assert_ok(init_exec_adopt(kit->client, id, &kit_run_events, run, &run->exec, &err), &err);
}

void kit_run_shell(struct init_kit *kit, struct kit_run *run, const char *script)
{
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char *)(uintptr_t)script, NULL};
	struct exec_spec spec = {.argv = argv};

	kit_run_start(kit, run, &spec);
	init_kit_until(kit, &run->ended);
}

void kit_run_done(struct kit_run *run)
{
	buffer_done(&run->out);
	buffer_done(&run->err);
}
