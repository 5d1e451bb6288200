/* What cgroups say to a program without rights: sizes of one sandbox, and which sandboxes there
 * are. */
#include "pool/sandbox/sandbox.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/sandbox/cgroup.h"

#include <fcntl.h>
#include <stdio.h>

/* What is asked for is in the first lines. */
#define FILE_READ_MAX 1024

/* Hierarchies do not move while a program runs; finding them reads every mount. */
static int cgroups_get(
	const struct config *config, const struct cgroups **ret_cgroups, struct error *err)
{
	static struct cgroups found;
	static char name[CGROUP_PATH_SIZE];

	if (found.count == 0 || !streq(name, config->cgroup)) {
		cgroups_close(&found);
		found.count = 0;
		if (cgroups_open(config, &found, err) < 0) {
			return -(int)err->kind;
		}
		snprintf(name, sizeof(name), "%s", config->cgroup);
	}
	*ret_cgroups = &found;
	return 0;
}

/* The number after `key`, or the first of the file (key NULL); `missing` when it is not there. */
static int64_t number_read(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, const char *file, const char *key, int64_t missing)
{
	char path[CGROUP_PATH_SIZE], text[FILE_READ_MAX];
	CLEANUP(close_p) int fd = -1;
	size_t length = key != NULL ? strlen(key) : 0;
	ssize_t got;

	cgroup_path(cgroups, id, file, path);
	fd = openat(h->fd, path, O_RDONLY | O_CLOEXEC);
	got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (got <= 0) {
		return missing;
	}
	text[got] = '\0';
	if (key == NULL) {
		return strtoll(text, NULL, 10);
	}
	for (const char *line = text; *line != '\0'; line += *line == '\n' ? 1 : 0) {
		if (strncmp(line, key, length) == 0 && line[length] == ' ') {
			return strtoll(line + length, NULL, 10);
		}
		line += strcspn(line, "\n");
	}
	return missing;
}

static int64_t memory_read(
	const struct cgroups *cgroups, const struct cgroup_hierarchy *h, const char *id)
{
	return number_read(
		cgroups, h, id, h->v2 ? "memory.current" : "memory.usage_in_bytes", NULL, 0);
}

/* -1: it is not there. */
static int64_t cpu_read(
	const struct cgroups *cgroups, const struct cgroup_hierarchy *h, const char *id)
{
	int64_t ns;

	if (h->v2) {
		return number_read(cgroups, h, id, "cpu.stat", "usage_usec", -1);
	}
	ns = number_read(cgroups, h, id, "cpuacct.usage", NULL, -1);
	return ns >= 0 ? ns / 1000 : -1;
}

static void usage_add(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, struct sandbox_usage *usage)
{
	if ((h->controllers & CGROUP_MEMORY) != 0) {
		usage->memory_bytes = memory_read(cgroups, h, id);
		usage->oom_kills = number_read(cgroups, h, id,
			h->v2 ? "memory.events" : "memory.oom_control", "oom_kill", 0);
	}
	if ((h->controllers & CGROUP_PIDS) != 0) {
		usage->pids = number_read(cgroups, h, id, "pids.current", NULL, 0);
	}
	if ((h->controllers & CGROUP_CPUACCT) != 0) {
		int64_t us = cpu_read(cgroups, h, id);

		usage->cpu_us = us > 0 ? us : 0;
	}
}

int sandbox_freeze_now(const struct config *config, const char *id, bool frozen, struct error *err)
{
	const struct cgroups *cgroups = NULL;

	if (!name_is_valid(id)) {
		return error_set(err, ERROR_INVALID, "sandbox \"%s\": not an id", id);
	}
	return cgroups_get(config, &cgroups, err) < 0 ? -(int)err->kind
						      : cgroup_freeze(cgroups, id, frozen, err);
}

static int state_read(const struct config *config, const char *id,
	const struct cgroups **ret_cgroups, struct sandbox_usage *usage, struct error *err)
{
	struct cgroup_state state = {.exists = false};
	const struct cgroups *cgroups = NULL;

	if (!name_is_valid(id)) {
		return error_set(err, ERROR_INVALID, "sandbox \"%s\": not an id", id);
	}
	if (cgroups_get(config, &cgroups, err) < 0 ||
		cgroup_state_read(cgroups, id, &state, err) < 0) {
		return -(int)err->kind;
	}
	if (!state.exists) {
		return error_set(err, ERROR_NOT_FOUND, "no sandbox %s", id);
	}
	usage->frozen = state.frozen;
	usage->populated = state.populated;
	*ret_cgroups = cgroups;
	return 0;
}

int sandbox_state_read(const struct config *config, const char *id, struct sandbox_usage *ret_usage,
	struct error *err)
{
	struct sandbox_usage usage = {.memory_bytes = 0};
	const struct cgroups *cgroups = NULL;

	if (state_read(config, id, &cgroups, &usage, err) < 0) {
		return -(int)err->kind;
	}
	*ret_usage = usage;
	return 0;
}

int sandbox_usage_read(const struct config *config, const char *id, struct sandbox_usage *ret_usage,
	struct error *err)
{
	struct sandbox_usage usage = {.memory_bytes = 0};
	const struct cgroups *cgroups = NULL;

	if (state_read(config, id, &cgroups, &usage, err) < 0) {
		return -(int)err->kind;
	}
	for (size_t i = 0; i < cgroups->count; i++) {
		usage_add(cgroups, &cgroups->hierarchies[i], id, &usage);
	}
	*ret_usage = usage;
	return 0;
}

int sandbox_sums_read(const struct config *config, const char *id, int64_t *ret_cpu_us,
	int64_t *ret_memory_bytes, struct error *err)
{
	const struct cgroups *cgroups = NULL;
	int64_t cpu_us = 0, memory_bytes = 0;

	if (!name_is_valid(id)) {
		return error_set(err, ERROR_INVALID, "sandbox \"%s\": not an id", id);
	}
	if (cgroups_get(config, &cgroups, err) < 0) {
		return -(int)err->kind;
	}
	for (size_t i = 0; i < cgroups->count; i++) {
		const struct cgroup_hierarchy *h = &cgroups->hierarchies[i];

		if ((h->controllers & CGROUP_CPUACCT) != 0 &&
			(cpu_us = cpu_read(cgroups, h, id)) < 0) {
			return error_set(err, ERROR_NOT_FOUND, "no sandbox %s", id);
		}
		if ((h->controllers & CGROUP_MEMORY) != 0) {
			memory_bytes = memory_read(cgroups, h, id);
		}
	}
	*ret_cpu_us = cpu_us;
	*ret_memory_bytes = memory_bytes;
	return 0;
}

/* Adds the ids among the entries of a folder that may be missing. */
static int folder_list(int dir_fd, const char *path, char ***ids, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, path, err);
	struct dirent *entry;

	if (dir == NULL) {
		return err->sys == ENOENT ? 0 : -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		const char *name = entry->d_name;

		if ((str_starts(name, SANDBOX_ID_PREFIX) ||
			    str_starts(name, BUILD_SANDBOX_ID_PREFIX)) &&
			name_is_valid(name) && !strv_contains(*ids, name)) {
			strv_add(ids, name);
		}
	}
	return 0;
}

int sandbox_cgroups_list(const struct config *config, char ***ret_ids, struct error *err)
{
	CLEANUP(strv_free_p) char **ids = xcalloc(1, sizeof(*ids));
	CLEANUP(free_p) char *folders = xasprintf("%s/sandboxes", config->store);
	const struct cgroups *cgroups = NULL;

	if (cgroups_get(config, &cgroups, err) < 0) {
		return -(int)err->kind;
	}
	for (size_t i = 0; i < cgroups->count; i++) {
		if (folder_list(cgroups->hierarchies[i].fd, cgroups->parent, &ids, err) < 0) {
			return -(int)err->kind;
		}
	}
	/* A reboot takes the cgroups and leaves the folders. */
	if (folder_list(AT_FDCWD, folders, &ids, err) < 0) {
		return -(int)err->kind;
	}
	*err = ERROR_INIT;
	*ret_ids = steal_ptr(ids);
	return 0;
}
