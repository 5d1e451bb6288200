/* Drops root for good, and reads whose ids hob may give to sandboxes. */
#include "pool/sandbox/privileges.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SUBUID_MAX (1024 * 1024)
/* Where the ids begin on a machine that reserves none: far from users, below 2^31. */
#define ID_BASE_FALLBACK 1879048192

int user_find(const struct config *config, uid_t *ret_uid, gid_t *ret_gid, struct error *err)
{
	const struct passwd *user = getpwnam(config->user);

	if (user == NULL) {
		error_set(err, ERROR_NOT_FOUND, "no user %s", config->user);
		return error_hint(err,
			"useradd --system --no-create-home %s, or set user: in hob.yaml",
			config->user);
	}
	*ret_uid = user->pw_uid;
	*ret_gid = user->pw_gid;
	return 0;
}

/* The first "user:first:count" line; ids are there for uids and, by convention, the same gids. */
static bool subuid_find(const char *text, const char *user, int64_t *ret_first, int64_t *ret_count)
{
	size_t length = strlen(user);

	for (const char *line = text; line != NULL && *line != '\0';
		line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL) {
		if (strncmp(line, user, length) == 0 && line[length] == ':' &&
			sscanf(line + length, ":%" SCNd64 ":%" SCNd64, ret_first, ret_count) == 2) {
			return true;
		}
	}
	return false;
}

int id_range_find(
	const struct config *config, int64_t *ret_base, uint32_t *ret_slots, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error missing = ERROR_INIT;
	int64_t first = ID_BASE_FALLBACK, count = INT64_MAX, slots = config->id_slots;

	buffer_init(&text, SUBUID_MAX);
	if (config->id_base > 0) {
		first = config->id_base;
	} else if (io_read_file(AT_FDCWD, "/etc/subuid", &text, &missing) == 0) {
		(void)subuid_find(buffer_text(&text), config->user, &first, &count);
	}
	if (slots > count / ID_RANGE) {
		slots = count / ID_RANGE;
	}
	if (first <= 0 || slots <= BUILD_SLOTS || first + slots * ID_RANGE > UINT32_MAX) {
		error_set(err, ERROR_INVALID,
			"ids from %" PRId64 " for %" PRId64 " sandboxes: too few, or too high",
			first, slots);
		return error_hint(err,
			"give %s a range in /etc/subuid, or set id_base and id_slots",
			config->user);
	}
	*ret_base = first;
	*ret_slots = (uint32_t)slots;
	return 0;
}

/* So that no program started later can have one again. */
static int capabilities_bound(struct error *err)
{
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++) {
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
			return error_sys(err, errno, "drop capability %d", capability);
		}
	}
	return 0;
}

int capabilities_limit(const int *kept, size_t count, struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}, {0, 0, 0}};

	for (size_t i = 0; i < count; i++) {
		data[CAP_TO_INDEX(kept[i])].effective |= CAP_TO_MASK(kept[i]);
		data[CAP_TO_INDEX(kept[i])].permitted |= CAP_TO_MASK(kept[i]);
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
		syscall(SYS_capset, &header, data) < 0 ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return error_sys(err, errno, "limit the capabilities");
	}
	return 0;
}

int privileges_drop(const struct config *config, struct error *err)
{
	const struct group *group = getgrnam(config->group);
	gid_t gid = 0, groups[2];
	uid_t uid = 0;

	if (user_find(config, &uid, &gid, err) < 0) {
		return -(int)err->kind;
	}
	if (geteuid() != 0) {
		return geteuid() == uid
			       ? 0
			       : error_set(err, ERROR_DENIED, "not root, and not %s", config->user);
	}
	groups[0] = gid;
	groups[1] = group != NULL ? group->gr_gid : gid;
	if (capabilities_bound(err) < 0) {
		return -(int)err->kind;
	}
	if (setgroups(groups[0] == groups[1] ? 1 : 2, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
		setresuid(uid, uid, uid) < 0) {
		return error_sys(err, errno, "become user %s", config->user);
	}
	return capabilities_limit(NULL, 0, err);
}
