/*
 * Where this machine's cgroups are. Pure but for cgroups_open: the texts of /proc come in, a list
 * of hierarchies with the main one first comes out. A controller is used from cgroup2 when it is
 * there.
 */
#include "pool/sandbox/cgroup.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define PROC_TEXT_MAX (4 * 1024 * 1024)

static const struct {
	const char *name;
	unsigned bit;
} controller_names[] = {
	{"cpu", CGROUP_CPU},
	{"cpuacct", CGROUP_CPUACCT},
	{"memory", CGROUP_MEMORY},
	{"pids", CGROUP_PIDS},
	{"freezer", CGROUP_FREEZER},
};

/* Bits of the names in a list separated by any of `separators`. */
static unsigned controllers_parse(const char *text, const char *separators)
{
	CLEANUP(free_p) char *copy = xstrdup(text);
	unsigned bits = 0;
	char *rest = NULL;

	for (char *word = strtok_r(copy, separators, &rest); word != NULL;
		word = strtok_r(NULL, separators, &rest)) {
		for (size_t i = 0; i < ARRAY_SIZE(controller_names); i++) {
			if (streq(word, controller_names[i].name)) {
				bits |= controller_names[i].bit;
			}
		}
	}
	return bits;
}

/* One line: "id parent dev root mount options [tags] - type source super". False: no cgroup. */
static bool mount_line_parse(char *line, struct cgroup_hierarchy *ret)
{
	char *tail = strstr(line, " - ");
	char *fields[6], *type, *super, *rest = NULL;
	size_t count = 0;

	if (tail == NULL || !str_starts(tail, " - cgroup")) {
		return false;
	}
	*tail = '\0';
	tail += strlen(" - ");
	for (char *word = strtok_r(line, " ", &rest); word != NULL && count < ARRAY_SIZE(fields);
		word = strtok_r(NULL, " ", &rest)) {
		fields[count++] = word;
	}
	type = strtok_r(tail, " ", &rest);
	(void)strtok_r(NULL, " ", &rest);
	super = strtok_r(NULL, " ", &rest);
	if (count < 5 || type == NULL || super == NULL || !streq(fields[3], "/") ||
		strlen(fields[4]) >= CGROUP_PATH_SIZE) {
		return false;
	}
	*ret = (struct cgroup_hierarchy){.v2 = streq(type, "cgroup2"), .fd = -1};
	snprintf(ret->mount, sizeof(ret->mount), "%s", fields[4]);
	if (!ret->v2) {
		ret->controllers = controllers_parse(super, ",");
	}
	return ret->v2 || (streq(type, "cgroup") && ret->controllers != 0);
}

static void hierarchy_add(struct cgroups *cgroups, const struct cgroup_hierarchy *found)
{
	unsigned taken = 0;
	struct cgroup_hierarchy *place;

	for (size_t i = 0; i < cgroups->count; i++) {
		taken |= cgroups->hierarchies[i].controllers;
		if (found->v2 && cgroups->hierarchies[i].v2) {
			return;
		}
	}
	if (cgroups->count == CGROUP_HIERARCHIES_MAX ||
		(!found->v2 && (found->controllers & ~taken) == 0)) {
		return;
	}
	place = &cgroups->hierarchies[cgroups->count++];
	*place = *found;
	place->controllers &= ~taken;
}

static void hierarchies_parse(const char *mountinfo, bool v2, struct cgroups *cgroups)
{
	CLEANUP(free_p) char *copy = xstrdup(mountinfo);
	char *rest = copy, *line;

	while ((line = strsep(&rest, "\n")) != NULL) {
		struct cgroup_hierarchy found;

		if (mount_line_parse(line, &found) && found.v2 == v2) {
			hierarchy_add(cgroups, &found);
		}
	}
}

/* The main one first, and of the v1 ones only what the main one cannot do. */
static int hierarchies_choose(struct cgroups *cgroups, const char *controllers, struct error *err)
{
	size_t kept = 0;
	bool v2 = cgroups->count > 0 && cgroups->hierarchies[0].v2;

	if (v2) {
		cgroups->hierarchies[0].controllers =
			controllers_parse(controllers, " \n") | CGROUP_FREEZER | CGROUP_CPUACCT;
	}
	for (size_t i = 0; i < cgroups->count; i++) {
		struct cgroup_hierarchy *h = &cgroups->hierarchies[i];

		if (v2 && i > 0) {
			h->controllers &= ~cgroups->hierarchies[0].controllers;
		}
		if (h->controllers != 0) {
			cgroups->hierarchies[kept++] = *h;
		}
	}
	cgroups->count = kept;
	for (size_t i = 0; i < kept && !v2; i++) {
		if ((cgroups->hierarchies[i].controllers & CGROUP_FREEZER) != 0) {
			struct cgroup_hierarchy main = cgroups->hierarchies[i];

			cgroups->hierarchies[i] = cgroups->hierarchies[0];
			cgroups->hierarchies[0] = main;
			return 0;
		}
	}
	if (!v2) {
		error_set(err, ERROR_UNSUPPORTED, "no cgroup2 and no v1 freezer is mounted");
		return error_hint(err, "mount -t cgroup2 none /sys/fs/cgroup");
	}
	return 0;
}

/* Our own group in cgroup2 ("0::/path"), without the slash; "" at the root. */
static void own_group(const char *own, char *text)
{
	const char *line = strstr(own, "0::/");
	size_t length;

	text[0] = '\0';
	if (line == NULL || (line != own && line[-1] != '\n')) {
		return;
	}
	line += strlen("0::/");
	length = strcspn(line, "\n");
	if (length < CGROUP_PATH_SIZE / 2) {
		memcpy(text, line, length);
		text[length] = '\0';
	}
}

/* Where the daemon itself lives below a delegated group, so that the group may have children. */
#define DAEMON_GROUP "/daemon"
#define SANDBOXES_GROUP "sandboxes"

static int parent_choose(struct cgroups *cgroups, const char *own, const char *name, bool delegated,
	struct error *err)
{
	char group[CGROUP_PATH_SIZE];
	size_t length;

	if (!streq(name, "auto")) {
		if (strstr(name, "..") != NULL || name[0] == '/' || name[0] == '\0' ||
			strlen(name) >= CGROUP_PATH_SIZE / 2) {
			return error_set(
				err, ERROR_INVALID, "cgroup %s: not a name below the root", name);
		}
		snprintf(cgroups->parent, sizeof(cgroups->parent), "%s", name);
		return 0;
	}
	own_group(own, group);
	length = strlen(group);
	if (!delegated || length == 0) {
		snprintf(cgroups->parent, sizeof(cgroups->parent), "hob");
		return 0;
	}
	if (length > strlen(DAEMON_GROUP) &&
		streq(group + length - strlen(DAEMON_GROUP), DAEMON_GROUP)) {
		group[length - strlen(DAEMON_GROUP)] = '\0';
	}
	snprintf(cgroups->parent, sizeof(cgroups->parent), "%.400s/" SANDBOXES_GROUP, group);
	return 0;
}

int cgroups_parse(const char *mountinfo, const char *own, const char *controllers, const char *name,
	bool delegated, struct cgroups *ret_cgroups, struct error *err)
{
	struct cgroups cgroups = {.count = 0};
	int status;

	hierarchies_parse(mountinfo, true, &cgroups);
	hierarchies_parse(mountinfo, false, &cgroups);
	status = hierarchies_choose(&cgroups, controllers, err);
	if (status == 0) {
		status = parent_choose(&cgroups, own, name, delegated, err);
	}
	if (status == 0) {
		*ret_cgroups = cgroups;
	}
	return status;
}

/* systemd marks what it delegates; the mark is on the group itself or, once we moved, its parent.
 */
static bool is_delegated(const char *mount, const char *own)
{
	char group[CGROUP_PATH_SIZE], path[2 * CGROUP_PATH_SIZE], value[2];

	own_group(own, group);
	for (int up = 0; up < 2 && group[0] != '\0'; up++) {
		char *slash = strrchr(group, '/');

		snprintf(path, sizeof(path), "%s/%s", mount, group);
		if (getxattr(path, "trusted.delegate", value, sizeof(value)) > 0 ||
			getxattr(path, "user.delegate", value, sizeof(value)) > 0) {
			return true;
		}
		if (slash == NULL || !streq(slash, DAEMON_GROUP)) {
			return false;
		}
		*slash = '\0';
	}
	return false;
}

int cgroups_open(const struct config *config, struct cgroups *ret_cgroups, struct error *err)
{
	CLEANUP(buffer_done) struct buffer mountinfo, own, controllers;
	struct cgroups cgroups = {.count = 0};
	struct error none = ERROR_INIT;
	char path[CGROUP_PATH_SIZE + 32];
	bool delegated = false;
	int status;

	buffer_init(&mountinfo, PROC_TEXT_MAX);
	buffer_init(&own, PROC_TEXT_MAX);
	buffer_init(&controllers, PROC_TEXT_MAX);
	if (io_read_file(AT_FDCWD, "/proc/self/mountinfo", &mountinfo, err) < 0 ||
		io_read_file(AT_FDCWD, "/proc/self/cgroup", &own, err) < 0) {
		return -(int)err->kind;
	}
	hierarchies_parse(buffer_text(&mountinfo), true, &cgroups);
	if (cgroups.count > 0) {
		snprintf(path, sizeof(path), "%s/cgroup.controllers", cgroups.hierarchies[0].mount);
		status = io_read_file(AT_FDCWD, path, &controllers, &none);
		delegated = status == 0 &&
			    is_delegated(cgroups.hierarchies[0].mount, buffer_text(&own));
	}
	status = cgroups_parse(buffer_text(&mountinfo), buffer_text(&own),
		buffer_text(&controllers), config->cgroup, delegated, &cgroups, err);
	for (size_t i = 0; status == 0 && i < cgroups.count; i++) {
		struct cgroup_hierarchy *h = &cgroups.hierarchies[i];

		h->fd = io_open(AT_FDCWD, h->mount, O_PATH | O_DIRECTORY, 0, err);
		status = h->fd < 0 ? h->fd : 0;
	}
	if (status < 0) {
		cgroups_close(&cgroups);
		return status;
	}
	*ret_cgroups = cgroups;
	return 0;
}

void cgroups_close(struct cgroups *cgroups)
{
	for (size_t i = 0; i < cgroups->count; i++) {
		fd_done(&cgroups->hierarchies[i].fd);
	}
}
