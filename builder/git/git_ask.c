/* The parent's side of questions about commits: each is answered by a child of its own. */
#include "builder/git/git.h"

#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_internal.h"

#include <stdio.h>
#include <sys/mman.h>

static bool is_digest(const char *text)
{
	return strnlen(text, 65) == 64 && strspn(text, "0123456789abcdef") == 64;
}

int git_read_inputs(struct machine *machine, const struct git_source *source, const char *commit,
	char *const *const *lists, size_t count, bool modules, struct git_inputs *ret_inputs,
	struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("read the inputs of %.12s", commit);
	struct git_inputs_task task = {source, commit, lists, count, modules};
	struct git_inputs inputs = {0};
	struct child_spec spec = {
		.what = what,
		.run = git_inputs_child,
		.context = &task,
		.result_size = sizeof(inputs),
		.stall_ms = source->stall_ms,
	};
	int status = child_run(machine, &spec, &inputs, err);

	for (size_t i = 0; status == 0 && i < count; i++) {
		if (!is_digest(inputs.digests[i])) {
			status = error_set(err, ERROR_INTERNAL, "%s: no digest came", what);
		}
	}
	if (status == 0) {
		*ret_inputs = inputs;
	}
	return status;
}

static int read_paths(int fd, struct buffer *paths, struct error *err)
{
	size_t start = paths->length;
	char part[65536];
	ssize_t got;
	off_t at = 0;

	while ((got = pread(fd, part, sizeof(part), at)) > 0) {
		if (at + got > GIT_CHANGES_BYTES_MAX) {
			return error_set(err, ERROR_LIMIT, "too many paths differ");
		}
		buffer_add(paths, part, (size_t)got);
		at += got;
	}
	if (got < 0) {
		return error_sys(err, errno, "read the paths that differ");
	}
	if (paths->length > start && paths->data[paths->length - 1] != '\0') {
		return error_set(err, ERROR_INTERNAL, "the paths that differ have no end");
	}
	return 0;
}

int git_read_changes(struct machine *machine, const struct git_source *source, const char *from,
	const char *to, struct buffer *paths, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("compare %.12s with %.12s", from, to);
	CLEANUP(close_p) int fd = memfd_create("changes", MFD_CLOEXEC);
	struct git_changes_task task = {source, from, to, fd};
	struct child_spec spec = {
		.what = what,
		.run = git_changes_child,
		.context = &task,
		.fds = &fd,
		.fd_count = 1,
		.stall_ms = source->stall_ms,
	};
	int status;

	if (fd < 0) {
		return error_sys(err, errno, "%s: memfd_create", what);
	}
	status = child_run(machine, &spec, NULL, err);
	return status < 0 ? status : read_paths(fd, paths, err);
}

int git_write_inputs(struct machine *machine, const struct git_source *source,
	const struct git_found *found, char *const *patterns, const char *below,
	const struct git_place *place, uint64_t *ret_files, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("write the inputs of %.12s", found->commit);
	struct git_pick_task task = {.checkout = git_checkout_task_of(source, found, place),
		.patterns = patterns,
		.below = below};
	uint64_t files = 0;
	int fds[2] = {place->tree_fd, place->previous_fd};
	struct child_spec spec = {
		.what = what,
		.run = git_pick_child,
		.context = &task,
		.result_size = sizeof(files),
		.fds = fds,
		.fd_count = place->previous_fd >= 0 ? 2 : 1,
		.stall_ms = source->stall_ms,
	};
	int status = child_run(machine, &spec, &files, err);

	if (status == 0) {
		*ret_files = files;
	}
	return status;
}
