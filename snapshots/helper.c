/* The child that keeps root. It knows three rooms, takes names without slashes, follows no link,
 * and looks at nothing else; whoever speaks to it can do no more than delete in the store. */
#include "snapshots/helper.h"

#include "base/io.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum helper_task { HELPER_REMOVE = 1, HELPER_USAGE };

struct helper_request {
	uint32_t task;
	char room[16];
	char name[NAME_MAX + 1];
};

struct helper_reply {
	int32_t status;
	struct tree_usage usage;
	struct error error;
};

struct store_helper {
	int fd;
	pid_t pid;
};

static const char *const rooms[] = {"staging", "layers", "sandboxes"};

static bool is_allowed(const struct helper_request *request)
{
	bool known = false;

	if (memchr(request->room, '\0', sizeof(request->room)) == NULL ||
		memchr(request->name, '\0', sizeof(request->name)) == NULL) {
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		known = known || streq(request->room, rooms[i]);
	}
	return known && request->name[0] != '\0' && strchr(request->name, '/') == NULL &&
	       !streq(request->name, ".") && !streq(request->name, "..");
}

static int serve_usage(
	int room_fd, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	CLEANUP(close_p)
	int folder = io_open_beneath(room_fd, name, O_RDONLY | O_DIRECTORY, 0, err);

	return folder < 0 ? folder : io_tree_usage(folder, "tree", ret_usage, err);
}

static int serve_request(int store_fd, const struct helper_request *request,
	struct tree_usage *ret_usage, struct error *err)
{
	CLEANUP(close_p) int room = -1;

	if (!is_allowed(request)) {
		return error_set(err, ERROR_INVALID, "no such room or name in a store");
	}
	room = io_open_beneath(store_fd, request->room, O_RDONLY | O_DIRECTORY, 0, err);
	if (room < 0) {
		return room;
	}
	switch ((enum helper_task)request->task) {
	case HELPER_REMOVE:
		return io_remove_tree(room, request->name, err);
	case HELPER_USAGE:
		return serve_usage(room, request->name, ret_usage, err);
	}
	return error_set(err, ERROR_INVALID, "unknown task %u", request->task);
}

static void serve(int fd, int store_fd)
{
	struct helper_request request;
	ssize_t got;

	while ((got = recv(fd, &request, sizeof(request), 0)) != 0) {
		struct helper_reply reply = {.error = ERROR_INIT};

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got != (ssize_t)sizeof(request)) {
			break;
		}
		reply.status = serve_request(store_fd, &request, &reply.usage, &reply.error);
		if (send(fd, &reply, sizeof(reply), MSG_NOSIGNAL) != (ssize_t)sizeof(reply)) {
			break;
		}
	}
}

/* Keeps the two descriptors that it needs: locks of the parent's must not live on here. */
static _Noreturn void run_child(int fd, int store_fd)
{
	if (dup2(fd, 3) < 0 || dup2(store_fd, 4) < 0 || close_range(5, ~0U, 0) < 0) {
		_exit(1);
	}
	/* Ctrl-C reaches the whole terminal: a deletion that has begun is finished all the same. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	serve(3, 4);
	_exit(0);
}

int store_helper_start(const char *path, struct store_helper **ret_helper, struct error *err)
{
	CLEANUP(close_p) int store_fd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);
	/* Above the numbers that the child moves them to. */
	CLEANUP(close_p) int high = store_fd < 0 ? -1 : fcntl(store_fd, F_DUPFD_CLOEXEC, 10);
	int pair[2];
	pid_t pid;

	if (store_fd < 0) {
		return error_wrap(err, "store %s", path);
	}
	if (high < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return error_sys(err, errno, "make a socket pair");
	}
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		run_child(pair[1], high);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return error_sys(err, errno, "fork");
	}
	*ret_helper = xcalloc(1, sizeof(**ret_helper));
	**ret_helper = (struct store_helper){.fd = pair[0], .pid = pid};
	return 0;
}

void store_helper_stop(struct store_helper *helper)
{
	int status;

	if (helper == NULL) {
		return;
	}
	close(helper->fd);
	while (waitpid(helper->pid, &status, 0) < 0 && errno == EINTR) {
		continue;
	}
	free(helper);
}

static int ask(struct store_helper *helper, enum helper_task task, const char *room,
	const char *name, struct helper_reply *ret_reply, struct error *err)
{
	struct helper_request request = {.task = task};
	ssize_t got;

	if (strlen(room) >= sizeof(request.room) || strlen(name) >= sizeof(request.name)) {
		return error_set(err, ERROR_INVALID, "%s/%s is no name in a store", room, name);
	}
	snprintf(request.room, sizeof(request.room), "%s", room);
	snprintf(request.name, sizeof(request.name), "%s", name);
	if (send(helper->fd, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request)) {
		return error_sys(err, errno, "ask the process that deletes in the store");
	}
	do {
		got = recv(helper->fd, ret_reply, sizeof(*ret_reply), 0);
	} while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(*ret_reply)) {
		return error_set(
			err, ERROR_UNAVAILABLE, "the process that deletes in the store has ended");
	}
	if (ret_reply->status < 0) {
		error_copy(err, &ret_reply->error);
	}
	return ret_reply->status;
}

int store_helper_remove(void *context, const char *room, const char *name, struct error *err)
{
	struct helper_reply reply;

	return ask(context, HELPER_REMOVE, room, name, &reply, err);
}

int store_helper_usage(
	void *context, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	struct helper_reply reply;
	int status = ask(context, HELPER_USAGE, "staging", name, &reply, err);

	if (status == 0) {
		*ret_usage = reply.usage;
	}
	return status;
}

int store_become_owner(const char *path, struct store_helper **ret_helper, struct error *err)
{
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct stat owner;
	int status;

	if (geteuid() != 0) {
		return 0;
	}
	if (stat(path, &owner) < 0) {
		/* Root may look anywhere: it is not there, and opening it will say so. */
		return 0;
	}
	if (owner.st_uid == 0) {
		return 0;
	}
	status = store_helper_start(path, &helper, err);
	if (status < 0) {
		return status;
	}
	if (setgroups(0, NULL) < 0 || setresgid(owner.st_gid, owner.st_gid, owner.st_gid) < 0 ||
		setresuid(owner.st_uid, owner.st_uid, owner.st_uid) < 0) {
		return error_sys(
			err, errno, "become user id %u, the owner of %s", owner.st_uid, path);
	}
	if (setuid(0) == 0) {
		return error_set(err, ERROR_INTERNAL,
			"root could be regained after becoming user id %u", owner.st_uid);
	}
	*ret_helper = steal_ptr(helper);
	return 0;
}
