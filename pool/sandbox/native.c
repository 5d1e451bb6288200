/*
 * The launcher's half of a creation. Order matters for recovery: the cgroup is made first and
 * removed last, so whatever a killed launcher leaves is found by the name of a cgroup. Nothing is
 * done by a path that the sandbox or the store's owner could bend: folders are opened beneath held
 * descriptors.
 */
#include "pool/sandbox/native.h"

#include "base/fault.h"
#include "base/memory.h"
#include "pool/sandbox/overlay.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/* Connections that wait while hob-init is busy: one hobd, and one more during an adoption. */
#define LISTEN_BACKLOG 4

#define NATIVE_FLAGS                                                                               \
	((uint64_t)CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC |      \
		CLONE_PIDFD)

/* Folders and mounts of one creation, closed together. */
struct parts {
	int folder_fd; /* detached clone of sandboxes/<id> or staging/<name> */
	int upper_fd, work_fd;
	int lower_fds[SANDBOX_LAYERS_MAX + 1];
	size_t lower_count;
	int sent[IO_FDS_MAX];
	size_t sent_count;
};

static void parts_done(struct parts *parts)
{
	fd_done(&parts->folder_fd);
	fd_done(&parts->upper_fd);
	fd_done(&parts->work_fd);
	while (parts->lower_count > 0) {
		fd_done(&parts->lower_fds[--parts->lower_count]);
	}
	while (parts->sent_count > 0) {
		fd_done(&parts->sent[--parts->sent_count]);
	}
}

static int64_t base_of(const struct native_means *means, const struct launcher_request *request)
{
	return means->id_base + (int64_t)request->slot * ID_RANGE;
}

/* A folder for the sandbox's root user, there already or not. */
static int folder_own(int dir_fd, const char *name, int64_t owner, struct error *err)
{
	CLEANUP(close_p) int fd = -1;

	if (mkdirat(dir_fd, name, 0755) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir %s", name);
	}
	fd = io_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	if (fchown(fd, (uid_t)owner, (gid_t)owner) < 0 || fchmod(fd, 0755) < 0) {
		return error_sys(err, errno, "chown %s", name);
	}
	return 0;
}

static int beneath(int dir_fd, const char *name, int flags, int *ret_fd, struct error *err)
{
	int fd = io_open_beneath(dir_fd, name, flags | O_DIRECTORY, 0, err);

	if (fd >= 0) {
		*ret_fd = fd;
	}
	return fd < 0 ? fd : 0;
}

/* sandboxes/<id>/{upper,work}, or staging/<staging>/{tree,work} for a build. */
static int writable_make(struct native_means *means, const struct launcher_request *request,
	struct parts *parts, struct error *err)
{
	bool build = request->kind == SANDBOX_BUILD;
	int room = build ? means->places.staging_fd : means->places.sandboxes_fd;
	const char *name = build ? request->staging : request->name;
	const char *upper = build ? "tree" : "upper";
	CLEANUP(close_p) int folder = -1;
	int fault = fault_point("create.folder");

	if (fault != 0) {
		return error_sys(err, fault, "mkdir sandboxes/%s", name);
	}
	if (!build && !spares_take(&means->spares, &means->places, name) &&
		mkdirat(room, name, 0700) < 0) {
		return error_sys(err, errno, "mkdir sandboxes/%s", name);
	}
	if (beneath(room, name, O_RDONLY, &folder, err) < 0 ||
		folder_own(folder, upper, base_of(means, request), err) < 0) {
		return error_wrap(err, "%s %s", build ? "staging folder" : "sandbox", name);
	}
	if (mkdirat(folder, "work", 0700) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir %s/work", name);
	}
	if (mount_clone(folder, -1, 0, &parts->folder_fd, err) < 0 ||
		beneath(parts->folder_fd, upper, O_PATH, &parts->upper_fd, err) < 0 ||
		beneath(parts->folder_fd, "work", O_PATH, &parts->work_fd, err) < 0) {
		return error_wrap(err, "sandbox %s", request->name);
	}
	return 0;
}

static int lower_add(struct native_means *means, const struct launcher_layer *layer, int64_t base,
	struct parts *parts, struct error *err)
{
	CLEANUP(close_p) int tree = -1;
	int64_t group = layer->id_base;
	int userns = -1;
	char path[48];

	/* What hob wrote itself has hob's group, whose number need not be hob's user's. */
	if (layer->id_count == 1 && layer->id_base == means->uid) {
		group = means->gid;
	}
	snprintf(path, sizeof(path), "%" PRId64 "/tree", layer->id);
	if (beneath(means->places.layers_fd, path, O_PATH, &tree, err) < 0) {
		return error_wrap(err, "layer %" PRId64, layer->id);
	}
	/* Made in this very slot: the ids on disk are right as they are. */
	if (layer->id_base != base && idmap_get(&means->idmaps, layer->id_base, group, base,
					      (uint32_t)layer->id_count, &userns, err) < 0) {
		return error_wrap(err, "layer %" PRId64, layer->id);
	}
	if (mount_clone(tree, userns, 0, &parts->lower_fds[parts->lower_count], err) < 0) {
		return error_wrap(err, "layer %" PRId64, layer->id);
	}
	parts->lower_count++;
	return 0;
}

/* An image of no layers stands on an empty folder. */
static int lowers_open(struct native_means *means, const struct launcher_request *request,
	struct parts *parts, struct error *err)
{
	for (size_t i = request->layer_count; i-- > 0;) {
		if (lower_add(means, &request->layers[i], base_of(means, request), parts, err) <
			0) {
			return -(int)err->kind;
		}
	}
	if (parts->lower_count == 0) {
		int fd = io_open(AT_FDCWD, PLACE_EMPTY, O_PATH | O_DIRECTORY, 0, err);

		if (fd < 0) {
			return fd;
		}
		parts->lower_fds[parts->lower_count++] = fd;
	}
	return 0;
}

static int root_mount(struct native_means *means, const struct launcher_request *request,
	struct parts *parts, struct error *err)
{
	struct overlay overlay = {
		.lower_fds = parts->lower_fds, .is_volatile = request->kind == SANDBOX_BUILD};

	if (writable_make(means, request, parts, err) < 0 ||
		lowers_open(means, request, parts, err) < 0) {
		return -(int)err->kind;
	}
	overlay.lower_count = parts->lower_count;
	overlay.upper_fd = parts->upper_fd;
	overlay.work_fd = parts->work_fd;
	if (overlay_mount(&overlay, &parts->sent[parts->sent_count], err) < 0) {
		return -(int)err->kind;
	}
	parts->sent_count++;
	return 0;
}

/* The host's /usr with its owners shifted, as the sandbox's own user namespace maps them. */
static int usr_clone(struct native_means *means, const struct native *native, struct parts *parts,
	struct error *err)
{
	CLEANUP(close_p) int userns = -1;
	char path[48];

	if (means->places.usr_fd < 0) {
		return error_set(
			err, ERROR_UNSUPPORTED, "this machine has no /usr of its own to share");
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/user", native->pid);
	userns = io_open(AT_FDCWD, path, O_RDONLY, 0, err);
	if (userns < 0) {
		return userns;
	}
	if (mount_clone(means->places.usr_fd, userns,
		    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
		    &parts->sent[parts->sent_count], err) < 0) {
		return error_wrap(err, "/usr");
	}
	parts->sent_count++;
	return 0;
}

/* As the user that will connect, so that the file is that user's from its first moment. */
static int socket_bind(const struct native_means *means, int fd, int dir_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask = umask(0177);
	int status, saved;

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" NATIVE_SOCKET_NAME,
		dir_fd);
	(void)setfsgid(means->gid);
	(void)setfsuid(means->uid);
	status = bind(fd, (const struct sockaddr *)&address, sizeof(address));
	saved = errno;
	(void)setfsuid(0);
	(void)setfsgid(0);
	umask(mask);
	errno = saved;
	return status;
}

static int socket_listen(
	const struct native_means *means, const char *id, struct parts *parts, struct error *err)
{
	CLEANUP(close_p) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CLEANUP(close_p) int dir = -1;

	if (mkdirat(means->places.run_fd, id, 0700) == 0) {
		if (fchownat(means->places.run_fd, id, means->uid, means->gid,
			    AT_SYMLINK_NOFOLLOW) < 0) {
			return error_sys(err, errno, "chown the run folder of %s", id);
		}
	} else if (errno != EEXIST) {
		return error_sys(err, errno, "mkdir the run folder of %s", id);
	}
	if (beneath(means->places.run_fd, id, O_PATH, &dir, err) < 0) {
		return -(int)err->kind;
	}
	(void)unlinkat(dir, NATIVE_SOCKET_NAME, 0);
	if (fd < 0 || socket_bind(means, fd, dir) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		return error_sys(err, errno, "make the socket of %s", id);
	}
	parts->sent[parts->sent_count++] = steal_fd(&fd);
	return 0;
}

static pid_t child_start(struct native_means *means, const struct launcher_request *request,
	int cgroup_fd, struct native *native, int socket, int control_fd)
{
	struct clone_args args = {.flags = NATIVE_FLAGS,
		.exit_signal = (uint64_t)SIGCHLD,
		.pidfd = (uint64_t)(uintptr_t)&native->pidfd};
	pid_t pid;

	if (means->cgroups.hierarchies[0].v2) {
		args.flags |= (uint64_t)CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)(unsigned)cgroup_fd;
	}
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		native_child(means, request, native, socket, control_fd);
	}
	return pid;
}

static int child_make(struct native_means *means, const struct launcher_request *request,
	int cgroup_fd, struct native *native, struct error *err)
{
	CLEANUP(close_p) int socket = -1;
	CLEANUP(close_p) int control = -1;
	int ends[2], saved;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	native->status_fd = ends[0];
	socket = ends[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	native->control_fd = ends[0];
	control = ends[1];
	if (!request->network_host && netns_pool_enter(&means->nets, err) < 0) {
		return -(int)err->kind;
	}
	native->pid = child_start(means, request, cgroup_fd, native, socket, control);
	saved = errno;
	if (!request->network_host) {
		netns_pool_leave(&means->nets);
	}
	if (native->pid < 0) {
		return error_sys(err, saved, "clone3");
	}
	return 0;
}

static int fault(const char *point, struct error *err)
{
	int sys = fault_point(point);

	return sys != 0 ? error_sys(err, sys, "%s", point) : 0;
}

/* Sends what `parts` has collected and lets go of it. */
static int parts_send(const struct native *native, enum native_message message, struct parts *parts,
	struct error *err)
{
	if (io_send_fds(native->status_fd, &message, sizeof(message), parts->sent,
		    parts->sent_count, 0) < 0) {
		return error_sys(err, errno, "the new process is gone");
	}
	while (parts->sent_count > 0) {
		fd_done(&parts->sent[--parts->sent_count]);
	}
	return 0;
}

/* Everything after the clone. The overlay comes last: it takes longest, and meanwhile the child
 * makes its own mounts and joins its cgroups. */
static int child_supply(struct native_means *means, const struct launcher_request *request,
	struct native *native, struct error *err)
{
	CLEANUP(parts_done) struct parts parts = {.folder_fd = -1, .upper_fd = -1, .work_fd = -1};

	if (fault("create.cloned", err) < 0 ||
		idmap_write(native->pid, 0, 0, base_of(means, request), ID_RANGE, err) < 0 ||
		parts_send(native, NATIVE_MAPPED, &parts, err) < 0) {
		return -(int)err->kind;
	}
	if (cgroup_make_rest(&means->cgroups, request->name, &request->limits, parts.sent,
		    &parts.sent_count, err) < 0 ||
		parts_send(native, NATIVE_JOIN, &parts, err) < 0) {
		return -(int)err->kind;
	}
	if (request->network_host && places_resolv(&means->places, err) < 0) {
		return -(int)err->kind;
	}
	if (root_mount(means, request, &parts, err) < 0 ||
		(request->host_usr && usr_clone(means, native, &parts, err) < 0) ||
		(request->kind == SANDBOX_SESSION &&
			socket_listen(means, request->name, &parts, err) < 0) ||
		fault("create.supplied", err) < 0) {
		return -(int)err->kind;
	}
	return parts_send(native, NATIVE_ROOT, &parts, err);
}

static int result_read(const struct native *native, int flags, struct error *err)
{
	struct native_outcome outcome;
	ssize_t got;

	do {
		got = recv(native->status_fd, &outcome, sizeof(outcome), flags);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return error_sys(err, errno, "hear from the new sandbox");
	}
	if (got != (ssize_t)sizeof(outcome)) {
		error_set(err, ERROR_FAILED, "the new sandbox was killed before it started");
		return error_hint(err, "is its memory limit, or the machine's memory, too small?");
	}
	if (outcome.sys == 0) {
		return 0;
	}
	outcome.step[sizeof(outcome.step) - 1] = '\0';
	return error_sys(err, outcome.sys, "inside the new sandbox: %s", outcome.step);
}

int native_begin(struct native_means *means, const struct launcher_request *request,
	struct native *ret_native, struct error *err)
{
	CLEANUP(native_done) struct native native = NATIVE_INIT;
	CLEANUP(close_p) int cgroup_fd = -1;
	struct error first = ERROR_INIT;

	/* What another sandbox of this name has left is not ours to touch. */
	if (request->kind == SANDBOX_SESSION && faccessat(means->places.sandboxes_fd, request->name,
							F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		return error_set(err, ERROR_EXISTS, "there is a sandbox %s already", request->name);
	}
	if (cgroup_make_main(&means->cgroups, request->name, &cgroup_fd, err) < 0 ||
		fault("create.cgroup", err) < 0 ||
		(request->kind == SANDBOX_SESSION &&
			cgroup_freezer_give(
				&means->cgroups, request->name, means->uid, means->gid, err) < 0) ||
		child_make(means, request, cgroup_fd, &native, err) < 0) {
		return -(int)err->kind;
	}
	if (child_supply(means, request, &native, err) < 0) {
		/* If the child failed first, its reason is the better one. */
		if (result_read(&native, MSG_DONTWAIT, &first) < 0 && first.sys != EAGAIN) {
			error_copy(err, &first);
		}
		return -(int)err->kind;
	}
	*ret_native = native;
	native = NATIVE_INIT;
	return 0;
}

int native_result(struct native *native, struct error *err)
{
	return result_read(native, 0, err);
}

void native_done(struct native *native)
{
	fd_done(&native->pidfd);
	fd_done(&native->control_fd);
	fd_done(&native->status_fd);
}
