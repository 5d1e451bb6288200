/*
 * Each blob is unpacked by a child that is root of the build's range of ids and sees nothing but
 * its tree. Two run side by side; a layer is kept under its key as soon as it is whole.
 */
#include "builder/bases/oci_unpack.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/archive.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "builder/range.h"
#include "builder/report.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A change of how layers are unpacked makes new ones. */
#define UNPACK_VERSION "1"
#define UNPACK_STALL_MS 120000
#define AT_ONCE 2

void oci_layer_key(const struct oci_blob *blob, char *key)
{
	CLEANUP(free_p) char *text = xasprintf("oci layer %s %s", UNPACK_VERSION, blob->sha256);

	digest_of(text, strlen(text), key);
}

void oci_merged_key(const struct oci_image *image, size_t count, char *key)
{
	struct digest *digest = digest_new();

	digest_add_str(digest, "oci layers in one " UNPACK_VERSION);
	for (size_t i = 0; i < count; i++) {
		digest_add_str(digest, image->layers[i].sha256);
	}
	digest_end(digest, key);
	digest_free(digest);
}

struct task {
	struct oci_unpacking *unpacking;
	const struct oci_image *image;
	size_t index; /* of one, or how many in one */
	bool merged;
	struct staging *staging;
	int tree_fd, opaque_fd;
	int fds[4];
	char what[64];
	struct child_spec spec;
	struct child_running *running;
};

static void task_done(struct task *task)
{
	child_drop(task->running);
	fd_done(&task->tree_fd);
	fd_done(&task->opaque_fd);
	staging_free_p(&task->staging);
	task->running = NULL;
	task->staging = NULL;
}

/* ---- in the child ---- */

static int open_blobs(const struct task *task, int **ret_fds, struct error *err)
{
	size_t first = task->merged ? 0 : task->index;
	size_t count = task->merged ? task->index : 1;
	int *fds = xcalloc(count, sizeof(*fds));

	for (size_t i = 0; i < count; i++) {
		fds[i] = io_open(task->unpacking->folder_fd, task->image->layers[first + i].sha256,
			O_RDONLY | O_NOFOLLOW, 0, err);
		if (fds[i] < 0) {
			return -(int)err->kind; /* and the process ends */
		}
	}
	*ret_fds = fds;
	return 0;
}

/* What is left of the cap for the next. */
static uint64_t room(const struct task *task, const struct archive_counts *sum)
{
	uint64_t most = task->unpacking->bytes_max, used = task->unpacking->bytes + sum->bytes;

	return most == 0 ? 0 : used < most ? most - used : 1;
}

static int unpack_one(const struct task *task, int fd, enum archive_form form, struct child *child,
	struct archive_counts *sum, struct error *err)
{
	struct archive_options options = {.form = form,
		.opaque_fd = task->opaque_fd,
		.owners = true,
		.ids = ID_RANGE,
		.bytes_max = room(task, sum)};
	struct archive_counts counts = {0};

	if (lseek(fd, 0, SEEK_SET) < 0) {
		return error_sys(err, errno, "rewind a layer");
	}
	if (archive_unpack(fd, task->tree_fd, &options, child, &counts, err) < 0) {
		return -(int)err->kind;
	}
	sum->entries += counts.entries;
	sum->bytes += counts.bytes;
	sum->devices += counts.devices;
	sum->foreign += counts.foreign;
	sum->opaque += counts.opaque;
	sum->needs_below |= counts.needs_below;
	return 0;
}

static int unpack_child(struct child *child, void *context, void *ret_counts, struct error *err)
{
	const struct task *task = context;
	struct archive_counts *sum = ret_counts;
	int *fds = NULL, status = open_blobs(task, &fds, err);

	if (status == 0) {
		status = range_enter(task->unpacking->range, child, err);
	}
	if (status < 0) {
		return status;
	}
	if (fchdir(task->tree_fd) < 0 || chroot(".") < 0) {
		return error_sys(err, errno, "confine the unpacking to its folder");
	}
	close(task->unpacking->folder_fd);
	umask(0);
	if (!task->merged) {
		return unpack_one(task, fds[0], ARCHIVE_LAYER, child, sum, err);
	}
	for (size_t i = 0; status == 0 && i < task->index; i++) {
		if (i > 0) {
			status = unpack_one(task, fds[i], ARCHIVE_CLEAR, child, sum, err);
		}
		if (status == 0) {
			status = unpack_one(task, fds[i], ARCHIVE_OVER, child, sum, err);
		}
	}
	return status;
}

/* ---- in the builder ---- */

static int task_open(struct task *task, struct error *err)
{
	struct oci_unpacking *unpacking = task->unpacking;
	int status = staging_new(unpacking->machine->store, &task->staging, err);

	if (status == 0) {
		status = range_prepare(unpacking->range, staging_name(task->staging), err);
	}
	if (status < 0) {
		return status;
	}
	task->tree_fd = io_open(
		staging_fd(task->staging), "tree", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, err);
	task->opaque_fd = task->tree_fd < 0 ? -1
					    : io_open(staging_fd(task->staging), "opaque",
						      O_WRONLY | O_CREAT | O_EXCL, 0600, err);
	return task->opaque_fd < 0 ? -(int)err->kind : 0;
}

static int task_begin(struct task *task, struct oci_unpacking *unpacking,
	const struct oci_image *image, size_t index, bool merged, struct error *err)
{
	*task = (struct task){.unpacking = unpacking,
		.image = image,
		.index = index,
		.merged = merged,
		.tree_fd = -1,
		.opaque_fd = -1};
	if (task_open(task, err) < 0) {
		return -(int)err->kind;
	}
	task->fds[0] = task->tree_fd;
	task->fds[1] = task->opaque_fd;
	task->fds[2] = unpacking->folder_fd;
	task->fds[3] = unpacking->range->userns_fd;
	if (merged) {
		snprintf(task->what, sizeof(task->what), "unpack layers 1 to %zu", index);
	} else {
		snprintf(task->what, sizeof(task->what), "unpack layer %zu of %u", index + 1,
			image->layer_count);
	}
	task->spec = (struct child_spec){.what = task->what,
		.run = unpack_child,
		.context = task,
		.result_size = sizeof(struct archive_counts),
		.fds = task->fds,
		.fd_count = ARRAY_SIZE(task->fds),
		.stall_ms = UNPACK_STALL_MS};
	return child_begin(unpacking->machine, &task->spec, &task->running, err);
}

static void tell_counts(const struct task *task, const struct archive_counts *counts)
{
	struct report *report = task->unpacking->machine->report;

	if (counts->devices > 0) {
		report_line(report,
			"%s: %llu device nodes and sockets were left out: a sandbox has its own "
			"/dev",
			task->what, (unsigned long long)counts->devices);
	}
	if (counts->foreign > 0) {
		report_line(report, "%s: %llu entries have owners above %d: now nobody's",
			task->what, (unsigned long long)counts->foreign, ID_RANGE - 1);
	}
}

static int take_bytes(struct oci_unpacking *unpacking, uint64_t bytes, struct error *err)
{
	unpacking->bytes += bytes;
	if (unpacking->bytes_max > 0 && unpacking->bytes > unpacking->bytes_max) {
		return error_set(err, ERROR_LIMIT, "the image unpacks to more than %llu bytes",
			(unsigned long long)unpacking->bytes_max);
	}
	return 0;
}

static int task_keep(struct task *task, const struct archive_counts *counts, struct error *err)
{
	struct oci_unpacking *unpacking = task->unpacking;
	struct store *store = unpacking->machine->store;
	struct layer layer = {
		.kind = "base", .id_base = unpacking->range->first, .id_count = ID_RANGE};
	int status = 0;

	if (task->merged) {
		oci_merged_key(task->image, task->index, layer.step_key);
		snprintf(layer.title, sizeof(layer.title), "base oci 1-%zu", task->index);
	} else {
		const struct oci_blob *blob = &task->image->layers[task->index];

		oci_layer_key(blob, layer.step_key);
		snprintf(layer.title, sizeof(layer.title), "base oci %.12s", blob->sha256);
	}
	fd_done(&task->tree_fd);
	fd_done(&task->opaque_fd);
	if (counts->opaque > 0) {
		status = machine_seal(unpacking->machine, staging_name(task->staging), err);
	} else if (unlinkat(staging_fd(task->staging), "opaque", 0) < 0) {
		status = error_sys(err, errno, "remove the list of opaque folders");
	}
	if (status == 0 && fault_point("base.unpacked") != 0) {
		status = error_sys(err, EIO, "keep a layer of the base");
	}
	if (status == 0) {
		status = layer_seal(store, task->staging, &layer, err);
	}
	return status < 0 ? status : layer_keep(store, layer.id, err);
}

/* *ret_alone: it is a layer now; else it needs those below. */
static int task_end(struct task *task, bool *ret_alone, struct error *err)
{
	struct archive_counts counts = {0};
	int status = child_end(steal_ptr(task->running), &counts, err);

	*ret_alone = task->merged || !counts.needs_below;
	if (status < 0) {
		if (err->kind == ERROR_LIMIT) {
			error_hint(err, "raise `limits: {disk: …}` if that is right");
		}
		return error_wrap(err, "%s", task->what);
	}
	if (!*ret_alone) {
		return 0;
	}
	status = take_bytes(task->unpacking, counts.bytes, err);
	if (status == 0) {
		tell_counts(task, &counts);
		status = task_keep(task, &counts, err);
	}
	return status;
}

int oci_unpack(struct oci_unpacking *unpacking, const struct oci_image *image,
	const size_t *indices, size_t count, size_t *ret_needs_below, struct error *err)
{
	struct task tasks[AT_ONCE];
	size_t begun = 0, needs_below = 0;
	int status = 0;

	for (size_t i = 0; i < AT_ONCE; i++) {
		tasks[i] = (struct task){.tree_fd = -1, .opaque_fd = -1};
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		struct task *task = &tasks[i % AT_ONCE];
		bool alone = true;

		for (; status == 0 && begun < count && begun < i + AT_ONCE; begun++) {
			status = task_begin(&tasks[begun % AT_ONCE], unpacking, image,
				indices[begun], false, err);
		}
		if (status == 0) {
			status = task_end(task, &alone, err);
		}
		if (!alone && indices[i] + 1 > needs_below) {
			needs_below = indices[i] + 1;
		}
		task_done(task);
	}
	for (size_t i = 0; i < AT_ONCE; i++) {
		task_done(&tasks[i]);
	}
	*ret_needs_below = needs_below;
	return status;
}

int oci_unpack_merged(struct oci_unpacking *unpacking, const struct oci_image *image, size_t count,
	struct error *err)
{
	struct task task = {.tree_fd = -1, .opaque_fd = -1};
	bool alone;
	int status = task_begin(&task, unpacking, image, count, true, err);

	if (status == 0) {
		status = task_end(&task, &alone, err);
	}
	task_done(&task);
	return status;
}
