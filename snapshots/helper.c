/* The child that keeps root. It knows three rooms, takes names without slashes, follows no link,
 * and looks at nothing else; whoever speaks to it can do no more than delete in the store, and read
 * and set one attribute of folders that it can open itself. */
#include "snapshots/helper.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum helper_task {
	HELPER_REMOVE = 1,
	HELPER_USAGE,
	HELPER_OPAQUE_GET,
	HELPER_OPAQUE_SET,
	HELPER_COMPARE
};

struct helper_request {
	uint32_t task;
	char room[16];
	char name[NAME_MAX + 1];
};

struct helper_reply {
	int32_t status;
	bool opaque; /* or equal */
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
	case HELPER_OPAQUE_GET:
	case HELPER_OPAQUE_SET:
	case HELPER_COMPARE:
		break;
	}
	return error_set(err, ERROR_INVALID, "unknown task %u", request->task);
}

/* The one attribute of a folder that the asker could open itself. */
static int serve_opaque(int folder, bool set, struct helper_reply *reply)
{
	struct stat status;

	if (folder < 0 || fstat(folder, &status) < 0 || !S_ISDIR(status.st_mode)) {
		return error_set(&reply->error, ERROR_INVALID, "opaque is for folders");
	}
	return opaque_access(folder, set, &reply->opaque, &reply->error);
}

static int serve_fds(
	const struct helper_request *request, int *fds, size_t count, struct helper_reply *reply)
{
	if (request->task != HELPER_COMPARE) {
		return serve_opaque(
			count == 1 ? fds[0] : -1, request->task == HELPER_OPAQUE_SET, reply);
	}
	return count != 2 ? error_set(&reply->error, ERROR_INVALID, "two files are compared")
			  : xattrs_compare(fds[0], fds[1], &reply->opaque, &reply->error);
}

static void serve(int fd, int store_fd)
{
	struct helper_request request;
	ssize_t got;
	int folders[IO_FDS_MAX];
	size_t count = 0;

	while ((got = io_recv_fds(fd, &request, sizeof(request), folders, &count, 0)) != 0) {
		struct helper_reply reply = {.error = ERROR_INIT};
		bool by_fds;

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got != (ssize_t)sizeof(request)) {
			break;
		}
		by_fds = request.task == HELPER_OPAQUE_GET || request.task == HELPER_OPAQUE_SET ||
			 request.task == HELPER_COMPARE;
		reply.status =
			by_fds ? serve_fds(&request, folders, count, &reply)
			       : serve_request(store_fd, &request, &reply.usage, &reply.error);
		for (size_t i = 0; i < count; i++) {
			close(folders[i]);
		}
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

static int receive(struct store_helper *helper, struct helper_reply *ret_reply, struct error *err)
{
	ssize_t got;

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

static int ask(struct store_helper *helper, enum helper_task task, const char *room,
	const char *name, struct helper_reply *ret_reply, struct error *err)
{
	struct helper_request request = {.task = task};

	if (strlen(room) >= sizeof(request.room) || strlen(name) >= sizeof(request.name)) {
		return error_set(err, ERROR_INVALID, "%s/%s is no name in a store", room, name);
	}
	snprintf(request.room, sizeof(request.room), "%s", room);
	snprintf(request.name, sizeof(request.name), "%s", name);
	if (send(helper->fd, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request)) {
		return error_sys(err, errno, "ask the process that deletes in the store");
	}
	return receive(helper, ret_reply, err);
}

static int ask_about(struct store_helper *helper, enum helper_task task, int *fds, size_t count,
	bool *answer, struct error *err)
{
	struct helper_request request = {.task = task};
	struct helper_reply reply;
	int status;

	if (io_send_fds(helper->fd, &request, sizeof(request), fds, count, MSG_NOSIGNAL) !=
		(ssize_t)sizeof(request)) {
		return error_sys(err, errno, "ask about a file's attributes");
	}
	status = receive(helper, &reply, err);
	if (status == 0) {
		*answer = reply.opaque;
	}
	return status;
}

int store_helper_opaque(void *context, int fd, bool set, bool *opaque, struct error *err)
{
	return ask_about(context, set ? HELPER_OPAQUE_SET : HELPER_OPAQUE_GET, &fd, 1, opaque, err);
}

int store_helper_compare(void *context, int old_fd, int new_fd, bool *ret_same, struct error *err)
{
	int fds[] = {old_fd, new_fd};

	return ask_about(context, HELPER_COMPARE, fds, 2, ret_same, err);
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

static uint64_t rights_mask(enum store_rights rights)
{
	switch (rights) {
	case STORE_RIGHTS_NONE:
		return 0;
	case STORE_RIGHTS_READ_TREES:
		return UINT64_C(1) << CAP_DAC_READ_SEARCH;
	case STORE_RIGHTS_MAKE_TREES:
		return UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_FOWNER |
		       UINT64_C(1) << CAP_FSETID | UINT64_C(1) << CAP_DAC_OVERRIDE |
		       UINT64_C(1) << CAP_DAC_READ_SEARCH | UINT64_C(1) << CAP_SETFCAP;
	}
	return 0;
}

/* Exactly these capabilities, effective and permitted. */
static int set_capabilities(uint64_t mask, struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
		data[i].effective = data[i].permitted = (uint32_t)(mask >> (32 * i));
	}
	if (syscall(SYS_capset, &header, data) < 0) {
		return error_sys(err, errno, "give up capabilities");
	}
	return 0;
}

static int become(uid_t uid, gid_t gid, uint64_t mask, struct error *err)
{
	if (mask != 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) {
		return error_sys(err, errno, "keep capabilities");
	}
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
		setresuid(uid, uid, uid) < 0) {
		return error_sys(err, errno, "become user id %u", uid);
	}
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 || set_capabilities(mask, err) < 0) {
		return error_wrap(err, "become user id %u", uid);
	}
	if (setuid(0) == 0) {
		return error_set(err, ERROR_INTERNAL,
			"root could be regained after becoming user id %u", uid);
	}
	return 0;
}

int store_become_owner(const char *path, enum store_rights rights, struct store_helper **ret_helper,
	struct error *err)
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
	if (status == 0) {
		status = become(owner.st_uid, owner.st_gid, rights_mask(rights), err);
	}
	if (status < 0) {
		return error_wrap(err, "serve the store %s as its owner", path);
	}
	*ret_helper = steal_ptr(helper);
	return 0;
}

#define NOBODY 65534

int store_become_nobody(struct error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return error_sys(err, errno, "forbid new privileges");
	}
	return geteuid() == 0 ? become(NOBODY, NOBODY, 0, err) : set_capabilities(0, err);
}
