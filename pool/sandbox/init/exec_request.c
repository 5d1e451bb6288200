/*
 * From the packet of a request to a running command: checks the strings, fills the environment up,
 * makes the pipes or the terminal, starts it. Whatever goes wrong is told as INIT_REFUSED, whole.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define WHY_SIZE 480
#define DEFAULTS 4 /* variables that may be added */

struct request {
	struct init_exec head;
	const char *user_text;
	const char *cwd;
	char **argv; /* heap; env is its tail */
	char **env;
	struct user user;
	char home[sizeof("HOME=") + sizeof(((struct user *)NULL)->home)];
	char name[sizeof("USER=") + sizeof(((struct user *)NULL)->name)];
};

/* The descriptors of a command that is being started: ours and the child's. */
struct plumbing {
	int out[2]; /* ours: a terminal has only the first */
	int in;
	int child[3];
	int child_owned[3]; /* to be closed after the start */
};

static char *next_string(char **at, const char *end)
{
	char *string = *at;
	char *stop = memchr(string, '\0', (size_t)(end - string));

	if (stop == NULL) {
		return NULL;
	}
	*at = stop + 1;
	return string;
}

static void add_default(struct request *request, size_t *count, const char *variable)
{
	size_t length = strcspn(variable, "=") + 1;

	for (size_t i = 0; i < *count; i++) {
		if (strncmp(request->env[i], variable, length) == 0) {
			return;
		}
	}
	request->env[(*count)++] = (char *)(uintptr_t)variable;
}

static void add_defaults(struct request *request)
{
	size_t count = request->head.envc;

	text_format(request->home, sizeof(request->home), "HOME=%s", request->user.home);
	text_format(request->name, sizeof(request->name), "USER=%s", request->user.name);
	add_default(request, &count,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	add_default(request, &count, request->home);
	add_default(request, &count, request->name);
	if ((request->head.flags & INIT_EXEC_PTY) != 0) {
		add_default(request, &count, "TERM=xterm-256color");
	}
}

/* False: the packet contradicts itself. */
static bool parse(struct request *request, char *body, size_t length)
{
	char *at = body + sizeof(request->head);
	const char *end = body + length;
	size_t argc, envc;

	if (length < sizeof(request->head)) {
		return false;
	}
	memcpy(&request->head, body, sizeof(request->head));
	argc = request->head.argc;
	envc = request->head.envc;
	if (argc == 0 || argc > INIT_PACKET_MAX || envc > INIT_PACKET_MAX) {
		return false;
	}
	request->user_text = next_string(&at, end);
	request->cwd = request->user_text != NULL ? next_string(&at, end) : NULL;
	if (request->cwd == NULL) {
		return false;
	}
	request->argv = calloc(argc + 1 + envc + DEFAULTS + 1, sizeof(*request->argv));
	if (request->argv == NULL) {
		return false;
	}
	request->env = request->argv + argc + 1;
	for (size_t i = 0; i < argc + envc; i++) {
		char *string = next_string(&at, end);

		if (string == NULL) {
			return false;
		}
		request->argv[i < argc ? i : i + 1] = string;
	}
	return at == end;
}

static void plumbing_close(struct plumbing *plumbing)
{
	for (int i = 0; i < 3; i++) {
		fd_close(&plumbing->child_owned[i]);
	}
	fd_close(&plumbing->out[0]);
	fd_close(&plumbing->out[1]);
	fd_close(&plumbing->in);
}

/* `ours` of the pipe's two ends does not block. Without O_NONBLOCK on it, a process inside that
 * opens the pipe through /proc could take away what epoll announced, and init would hang. */
static int pipe_make(int ours, int *ret_ours, int *ret_child)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return errno;
	}
	(void)fcntl(ends[ours], F_SETFL, O_NONBLOCK);
	*ret_ours = ends[ours];
	*ret_child = ends[1 - ours];
	return 0;
}

static int plumb_pipes(const struct request *request, struct plumbing *plumbing)
{
	int sys = 0;

	plumbing->child[0] = null_fd;
	if ((request->head.flags & INIT_EXEC_STDIN) != 0) {
		sys = pipe_make(1, &plumbing->in, &plumbing->child_owned[0]);
		plumbing->child[0] = plumbing->child_owned[0];
	}
	for (int i = 0; sys == 0 && i < 2; i++) {
		sys = pipe_make(0, &plumbing->out[i], &plumbing->child_owned[i + 1]);
		plumbing->child[i + 1] = plumbing->child_owned[i + 1];
	}
	return sys;
}

static int plumb(const struct request *request, struct plumbing *plumbing)
{
	struct init_size size = {.rows = request->head.rows, .cols = request->head.cols};
	int sys;

	*plumbing = (struct plumbing){{-1, -1}, -1, {-1, -1, -1}, {-1, -1, -1}};
	if ((request->head.flags & INIT_EXEC_PTY) == 0) {
		return plumb_pipes(request, plumbing);
	}
	sys = terminal_open(&size, request->user.uid, &plumbing->out[0], &plumbing->child_owned[0]);
	for (int i = 0; i < 3; i++) {
		plumbing->child[i] = plumbing->child_owned[0];
	}
	return sys;
}

static bool stream_watch(struct exec *exec, int index, int fd)
{
	struct stream *stream = &exec->out[index];
	/* A terminal's input goes through the same descriptor. */
	uint32_t events = EPOLLIN | EPOLLET | (exec->tty ? (uint32_t)EPOLLOUT : 0);

	stream->watch =
		(struct watch){.kind = index == 0 ? WATCH_STDOUT : WATCH_STDERR, .exec = exec};
	stream->type = index == 0 ? INIT_STDOUT : INIT_STDERR;
	stream->fd = fd;
	return fd < 0 || watch_add(fd, events, &stream->watch);
}

/* Takes the descriptors over from `plumbing`. NULL when memory or watches are exhausted. */
static struct exec *exec_make(uint32_t id, const struct request *request, struct plumbing *plumbing)
{
	struct exec *exec = calloc(1, sizeof(*exec));
	bool watched;

	if (exec == NULL) {
		return NULL;
	}
	exec->id = id;
	exec->tty = (request->head.flags & INIT_EXEC_PTY) != 0;
	exec->quiet = (request->head.flags & INIT_EXEC_QUIET) != 0;
	exec->group = (request->head.flags & INIT_EXEC_GROUP) != 0;
	exec->ends_with_wire = (request->head.flags & INIT_EXEC_APPLY) != 0;
	exec->attached = true;
	exec->grant = request->head.window;
	exec->in.watch = (struct watch){.kind = WATCH_STDIN, .exec = exec};
	exec->in.fd = exec->tty ? plumbing->out[0] : plumbing->in;
	watched =
		stream_watch(exec, 0, plumbing->out[0]) &&
		stream_watch(exec, 1, plumbing->out[1]) &&
		(plumbing->in < 0 || watch_add(plumbing->in, EPOLLOUT | EPOLLET, &exec->in.watch));
	if (!watched) {
		watch_close(&plumbing->out[0]);
		watch_close(&plumbing->out[1]);
		watch_close(&plumbing->in);
		free(exec);
		return NULL;
	}
	exec->in.ready = exec->in.fd >= 0;
	plumbing->out[0] = -1;
	plumbing->out[1] = -1;
	plumbing->in = -1;
	return exec;
}

/* The log of a command that is started again is one log. */
static void follow(struct exec *exec, uint32_t before)
{
	struct exec *ended = exec_find(before);
	char line[64];

	if (ended == NULL || !ended->quiet || !ended->exited || ended == exec) {
		return;
	}
	text_format(line, sizeof(line), "[hob] it ended with code %d; started again\n",
		ended->result.code);
	exec->kept = ended->kept;
	ended->kept = (struct kept){.data = NULL};
	kept_add(&exec->kept, INIT_STDERR, line, strlen(line));
	file_logs_move(before, exec->id);
	exec_forget(ended);
}

static int start(uint32_t id, struct request *request, struct plumbing *plumbing, char *why)
{
	struct spawn spawn = {
		.argv = request->argv,
		.env = request->env,
		.cwd = request->cwd[0] != '\0' ? request->cwd : "/",
		.user = &request->user,
		.fds = {plumbing->child[0], plumbing->child[1], plumbing->child[2]},
		.tty = (request->head.flags & INIT_EXEC_PTY) != 0,
		.apply = (request->head.flags & INIT_EXEC_APPLY) != 0,
	};
	int64_t started_us = now_us();
	struct exec *exec;
	int sys = 0;
	pid_t pid = spawn_start(&spawn, &sys, why, WHY_SIZE);

	if (pid < 0) {
		return sys;
	}
	exec = exec_make(id, request, plumbing);
	if (exec == NULL) {
		spawn_kill(pid);
		text_format(why, WHY_SIZE, "%s: no memory to watch it", request->argv[0]);
		return ENOMEM;
	}
	exec->pid = pid;
	exec->started_us = started_us;
	exec_add(exec);
	if (exec->quiet) {
		follow(exec, request->head.follows);
	}
	wire_send_u32(INIT_STARTED, id, (uint32_t)pid);
	return 0;
}

static int prepare_and_start(uint32_t id, struct request *request, char *why)
{
	struct plumbing plumbing;
	int sys = user_find(request->user_text, &request->user, why, WHY_SIZE);

	if (sys != 0) {
		return REFUSAL(sys, INIT_STEP_USER);
	}
	add_defaults(request);
	sys = plumb(request, &plumbing);
	if (sys != 0) {
		text_format(why, WHY_SIZE, "%s: %s: %s", request->argv[0],
			(request->head.flags & INIT_EXEC_PTY) != 0 ? "/dev/ptmx" : "pipe",
			strerror(sys));
	} else {
		sys = start(id, request, &plumbing, why);
	}
	plumbing_close(&plumbing);
	return sys;
}

void exec_request(uint32_t id, char *body, size_t length)
{
	struct request request = {.argv = NULL};
	char why[WHY_SIZE] = "";
	int sys;

	if (exec_find(id) != NULL || id == 0 || id >= INIT_FILE_ID_FIRST) {
		wire_refuse(id, EEXIST, "%u: not a free number for a command", id);
		return;
	}
	if (exec_count() >= INIT_EXECS_MAX) {
		wire_refuse(id, EUSERS,
			"more than %d commands in this sandbox, ended ones that nobody "
			"asked about too",
			INIT_EXECS_MAX);
		return;
	}
	if (!parse(&request, body, length)) {
		sys = EINVAL;
		text_format(why, sizeof(why), "malformed request");
	} else {
		sys = prepare_and_start(id, &request, why);
	}
	if (sys != 0) {
		wire_refuse(id, sys, "%s", why);
	}
	user_done(&request.user);
	free(request.argv);
}
