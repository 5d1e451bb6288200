/*
 * A build slot, held by a lock that the kernel drops with the process, and its user namespace. The
 * namespace comes from the launcher, owned by hob, when the first tree is prepared or measured.
 */
#include "builder/range.h"

#include "base/memory.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "pool/sandbox/sandbox.h"
#include "pool/sandbox/slots.h"
#include "snapshots/store.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>

int range_take(struct range *range, struct error *err)
{
	int status;

	if (range->lock_fd >= 0) {
		return 0;
	}
	status = build_slot_take(
		range->machine->config, range->preference, &range->slot, &range->lock_fd, err);
	if (status < 0) {
		return error_wrap(err, "take a range of ids for this build");
	}
	range->first = launcher_slot_base(range->machine->launcher, range->slot);
	return 0;
}

int range_prepare(struct range *range, const char *staging, struct error *err)
{
	int fd = -1, status = range_take(range, err);

	if (status == 0) {
		status = machine_prepare_tree(range->machine, staging, range->slot, &fd, err);
	}
	if (status < 0) {
		return status;
	}
	fd_done(&range->userns_fd);
	range->userns_fd = fd;
	return 0;
}

void range_done(struct range *range)
{
	fd_done(&range->userns_fd);
	fd_done(&range->lock_fd);
}

int range_enter(const struct range *range, struct child *child, struct error *err)
{
	if (setns(range->userns_fd, CLONE_NEWUSER) < 0) {
		return error_sys(err, errno, "enter the user namespace of the build");
	}
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) {
		return error_sys(err, errno, "become root of the build's range of ids");
	}
	child_bind(child);
	return 0;
}

struct usage_task {
	const struct range *range;
	int tree_fd;
};

static int usage_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	struct usage_task *task = context;
	int status = range_enter(task->range, child, err);

	return status < 0 ? status : io_tree_usage(task->tree_fd, ".", ret_result, err);
}

/* The namespace comes with a tree, so an empty one is prepared for it and thrown away. */
static int make_userns(struct range *range, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = staging_new(range->machine->store, &staging, err);

	return status < 0 ? status : range_prepare(range, staging_name(staging), err);
}

int range_open(struct range *range, struct error *err)
{
	int status = range_take(range, err);

	return status == 0 && range->userns_fd < 0 ? make_userns(range, err) : status;
}

int range_usage(void *context, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	struct range *range = context;
	CLEANUP(free_p) char *path = xasprintf("staging/%s/tree", name);
	CLEANUP(close_p) int fd = -1;
	struct usage_task task = {.range = range};
	int fds[2], status;
	struct child_spec spec = {
		.what = "measure a layer",
		.run = usage_child,
		.context = &task,
		.result_size = sizeof(*ret_usage),
		.fds = fds,
		.fd_count = 2,
	};

	/* O_PATH, because only the range's root may be allowed to read it. */
	fd = io_open_beneath(store_fd(range->machine->store), path, O_PATH | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	if (range->lock_fd < 0) {
		return io_tree_usage(fd, ".", ret_usage, err); /* all of it is hob's own */
	}
	status = range_open(range, err);
	if (status < 0) {
		return status;
	}
	task.tree_fd = fds[0] = fd;
	fds[1] = range->userns_fd;
	return child_run(range->machine, &spec, ret_usage, err);
}
