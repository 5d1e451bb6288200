/* Finding or making the lowest layer. What is made is kept under its key at once, so that a failure
 * of a later step does not make the next build unpack an archive again. */
#include "builder/base.h"

#include "base/digest.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "builder/archive.h"
#include "builder/bases/deb.h"
#include "builder/child.h"
#include "builder/download.h"
#include "builder/machine.h"
#include "builder/packages/packages.h"
#include "builder/range.h"
#include "builder/report.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A change of how an archive is unpacked makes new layers. */
#define TAR_VERSION "1"
#define DOWNLOAD_STALL_MS 60000
#define UNPACK_STALL_MS 120000

int base_key(const struct environment *environment, char *key, struct error *err)
{
	char inner[SHA256_TEXT_SIZE] = "";
	CLEANUP(close_p) int root = -1;
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *deb = NULL;
	int status;

	if (environment->base == BASE_DEB) {
		deb = deb_base_text(environment);
		digest_of(deb, strlen(deb), inner);
	}
	if (environment->base == BASE_HOST) {
		root = io_open(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, err);
		status = root < 0 ? root : skeleton_host_key(root, inner, err);
		if (status < 0) {
			return error_wrap(err, "base host");
		}
	}
	if (environment->base == BASE_OCI) {
		snprintf(inner, sizeof(inner), "%s", environment->base_sha256);
	}
	text = xasprintf("base %s %s %s owner %u", base_kind_name(environment->base), TAR_VERSION,
		environment->base == BASE_TAR ? environment->base_sha256 : inner,
		environment->base == BASE_TAR || environment->base == BASE_DEB
			? 0
			: (unsigned)geteuid());
	digest_of(text, strlen(text), key);
	return 0;
}

/* staging/<x>/tree, made by hob and owned by it. */
static int make_tree(struct staging *staging, int *ret_fd, struct error *err)
{
	int fd;

	if (mkdirat(staging_fd(staging), "tree", 0755) < 0 ||
		fchmodat(staging_fd(staging), "tree", 0755, 0) < 0) {
		return error_sys(err, errno, "make the tree of a layer");
	}
	fd = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

static int write_own(const struct environment *environment, struct staging *staging,
	struct layer *layer, struct error *err)
{
	CLEANUP(close_p) int tree = -1;
	CLEANUP(close_p) int root = -1;
	mode_t mask = umask(0);
	int status = make_tree(staging, &tree, err);

	if (status == 0 && environment->base == BASE_HOST) {
		root = io_open(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, err);
		status = root < 0 ? root : skeleton_host_write(root, tree, err);
	} else if (status == 0) {
		status = skeleton_write(tree, err);
	}
	umask(mask);
	layer->id_base = geteuid();
	layer->id_count = 1;
	layer->host_usr = environment->base == BASE_HOST;
	return status;
}

struct unpack_task {
	const struct range *range;
	int archive_fd, tree_fd;
	struct archive_options options;
};

/* Confined by ids and by its root folder before the first byte of the archive is looked at. */
static int unpack_child(struct child *child, void *context, void *ret_counts, struct error *err)
{
	struct unpack_task *task = context;
	int status = range_enter(task->range, child, err);

	if (status < 0) {
		return status;
	}
	if (fchdir(task->tree_fd) < 0 || chroot(".") < 0) {
		return error_sys(err, errno, "confine the unpacking to its folder");
	}
	umask(0);
	status = archive_unpack(
		task->archive_fd, task->tree_fd, &task->options, child, ret_counts, err);
	return status < 0 ? status : skeleton_write(task->tree_fd, err);
}

static int unpack(struct machine *machine, const struct environment *environment, int archive_fd,
	struct staging *staging, struct range *range, struct error *err)
{
	CLEANUP(close_p)
	int tree = io_open(staging_fd(staging), "tree", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, err);
	struct unpack_task task = {.range = range, .archive_fd = archive_fd, .tree_fd = tree};
	struct archive_counts counts = {0};
	int fds[3] = {archive_fd, tree, range->userns_fd}, status;
	struct child_spec spec = {
		.what = "unpack the base",
		.run = unpack_child,
		.context = &task,
		.result_size = sizeof(counts),
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.stall_ms = UNPACK_STALL_MS,
	};

	if (tree < 0) {
		return tree;
	}
	task.options = (struct archive_options){.owners = true,
		.ids = ID_RANGE,
		.bytes_max = (uint64_t)environment->limits.disk_bytes};
	status = child_run(machine, &spec, &counts, err);
	if (status < 0) {
		if (err->kind == ERROR_LIMIT) {
			error_hint(err, "raise `limits: {disk: …}` if that is right");
		}
		return status;
	}
	if (counts.devices > 0) {
		report_line(machine->report,
			"%llu device nodes and sockets were left out: a sandbox has "
			"its own /dev",
			(unsigned long long)counts.devices);
	}
	if (counts.foreign > 0) {
		report_line(machine->report, "%llu entries have owners above %d: now nobody's",
			(unsigned long long)counts.foreign, ID_RANGE - 1);
	}
	return 0;
}

static int write_tar(struct machine *machine, const struct environment *environment, int tar_fd,
	struct staging *staging, struct range *range, struct layer *layer, struct error *err)
{
	CLEANUP(close_p)
	int folder = io_open(store_fd(machine->store), "downloads", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int archive = -1;
	struct download download = {.location = environment->base_location,
		.sha256 = environment->base_sha256,
		.local_fd = tar_fd,
		.folder_fd = folder,
		.stall_ms = DOWNLOAD_STALL_MS};
	int status;

	if (folder < 0) {
		return folder;
	}
	status = download_get(machine, &download, &archive, err);
	if (status == 0) {
		status = range_prepare(range, staging_name(staging), err);
	}
	if (status == 0) {
		status = unpack(machine, environment, archive, staging, range, err);
	}
	layer->id_base = range->first;
	layer->id_count = ID_RANGE;
	return status;
}

static int make_layer(struct machine *machine, const struct environment *environment, int tar_fd,
	struct range *range, struct layer *layer, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = staging_new(machine->store, &staging, err);

	if (status == 0 && environment->base == BASE_DEB) {
		status = deb_base_write(machine, environment, staging, range, layer, err);
	} else if (status == 0) {
		status = environment->base == BASE_TAR
				 ? write_tar(
					   machine, environment, tar_fd, staging, range, layer, err)
				 : write_own(environment, staging, layer, err);
	}
	if (status == 0 && fault_point("base.written") != 0) {
		status = error_sys(err, EIO, "write the base");
	}
	if (status == 0) {
		status = layer_seal(machine->store, staging, layer, err);
	}
	return status < 0 ? status : layer_keep(machine->store, layer->id, err);
}

/* One that has lost the list of what is installed is made again. */
static int find(struct machine *machine, const struct environment *environment, const char *key,
	struct layer *ret_layer, struct error *err)
{
	CLEANUP(json_decref_p) json_t *list = NULL;
	struct layer layer = {0};
	int status =
		machine->no_cache ? -ERROR_NOT_FOUND : layer_find(machine->store, key, &layer, err);

	if (status == 0 && environment->base == BASE_DEB) {
		list = installed_read(machine->store, &layer);
		status = list != NULL ? 0 : -ERROR_NOT_FOUND;
	}
	if (status == 0) {
		*ret_layer = layer;
	}
	return status;
}

char *base_text(const struct environment *environment)
{
	const char *name = base_kind_name(environment->base);

	if (environment->base == BASE_DEB) {
		return xasprintf("%s:%s@%s", name, environment->base_location,
			environment->base_date != NULL ? environment->base_date : "");
	}
	return environment->base == BASE_TAR ? xasprintf("%s %.12s", name, environment->base_sha256)
					     : xstrdup(name);
}

/* *ret_found: it was there. */
static int find_or_make(struct machine *machine, const struct environment *environment,
	const char *key, int tar_fd, struct range *range, struct layer *ret_layer, bool *ret_found,
	struct error *err)
{
	struct layer layer = {.kind = "base"};
	CLEANUP(free_p) char *text = base_text(environment);
	int status = find(machine, environment, key, ret_layer, err);

	*ret_found = status == 0;
	if (status != -ERROR_NOT_FOUND) {
		return status;
	}
	snprintf(layer.title, sizeof(layer.title), "base %s", text);
	snprintf(layer.step_key, sizeof(layer.step_key), "%s", key);
	status = make_layer(machine, environment, tar_fd, range, &layer, err);
	if (status < 0) {
		return error_wrap(err, "base %s",
			environment->base == BASE_TAR ? base_kind_name(BASE_TAR) : text);
	}
	*ret_layer = layer;
	return 0;
}

int base_prepare(struct machine *machine, const struct environment *environment, const char *key,
	int tar_fd, struct range *range, struct layer *ret_layer, struct error *err)
{
	CLEANUP(free_p) char *text = base_text(environment);
	bool found = false;
	int status;

	report_stage(machine->report, "base", "%s",
		environment->base == BASE_TAR ? environment->base_location : text);
	status = find_or_make(machine, environment, key, tar_fd, range, ret_layer, &found, err);
	if (status < 0) {
		return status;
	}
	if (found) {
		report_stage_end(
			machine->report, "layer %lld, as before", (long long)ret_layer->id);
	} else {
		report_stage_end(machine->report, "layer %lld, %llu files",
			(long long)ret_layer->id, (unsigned long long)ret_layer->files);
	}
	return 0;
}

int base_skeleton(
	struct machine *machine, struct range *range, struct layer *ret_layer, struct error *err)
{
	const struct environment scratch = {.base = BASE_SCRATCH};
	char key[SHA256_TEXT_SIZE];
	bool found;
	int status = base_key(&scratch, key, err);

	return status < 0 ? status
			  : find_or_make(machine, &scratch, key, -1, range, ret_layer, &found, err);
}
