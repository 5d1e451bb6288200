/* How this machine is set up for hob: accounts, ids, limits, programs, environments, the daemon. */
#include "pool/cli/doctor/doctor_probe.h"

#include "base/io.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "pool/cli/http.h"
#include "pool/sandbox/privileges.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/resource.h>

/* hobd holds a pidfd and a connection for each sandbox; a command in it and its client are two. */
#define FILES_PER_SANDBOX 4
#define FILES_BESIDE 512
#define SUBUID_MAX (1024 * 1024)

void probe_user(const struct doctor *doctor, struct finding *finding)
{
	const char *name = doctor->config->user;
	const struct passwd *user = getpwnam(name);

	if (user == NULL) {
		finding_set(finding, FINDING_LACKING, "no user \"%s\"", name);
		finding_advise(finding,
			"useradd --system --no-create-home --shell /usr/sbin/nologin %s", name);
	} else if (user->pw_uid == 0) {
		finding_set(finding, FINDING_LACKING, "\"%s\" is root", name);
		finding_advise(finding, "set `user` to one without rights");
	} else {
		finding_set(finding, FINDING_OK, "%s, uid %u", name, (unsigned)user->pw_uid);
	}
}

void probe_group(const struct doctor *doctor, struct finding *finding)
{
	const char *name = doctor->config->group;
	const struct group *group = getgrnam(name);

	if (group == NULL) {
		finding_set(finding, FINDING_LACKING, "no group \"%s\"", name);
		finding_advise(finding, "groupadd --system %s", name);
	} else {
		finding_set(finding, FINDING_OK, "%s, gid %u", name, (unsigned)group->gr_gid);
	}
}

/* The user of another line of /etc/subuid whose ids are among first … first + count - 1, or NULL.
 */
static char *other_owner(const char *text, const char *user, int64_t first, int64_t count)
{
	CLEANUP(free_p) char *copy = xstrdup(text);
	char *rest = copy, *line;

	while ((line = strsep(&rest, "\n")) != NULL) {
		size_t length = strcspn(line, ":");
		int64_t other_first, other_count;

		if (sscanf(line + length, ":%" SCNd64 ":%" SCNd64, &other_first, &other_count) ==
				2 &&
			(strncmp(line, user, length) != 0 || user[length] != '\0') &&
			other_first < first + count && first < other_first + other_count) {
			return xstrndup(line, length);
		}
	}
	return NULL;
}

void probe_ids(const struct doctor *doctor, struct finding *finding)
{
	const struct config *config = doctor->config;
	CLEANUP(buffer_done) struct buffer text;
	CLEANUP(free_p) char *other = NULL;
	struct error err = ERROR_INIT;
	uint32_t slots;
	int64_t base;

	buffer_init(&text, SUBUID_MAX);
	if (id_range_find(config, &base, &slots, &err) < 0) {
		finding_fail(finding, &err);
		return;
	}
	(void)!io_read_file(AT_FDCWD, "/etc/subuid", &text, &err);
	other = other_owner(buffer_text(&text), config->user, base, (int64_t)slots * ID_RANGE);
	if (other != NULL) {
		finding_set(finding, FINDING_WARN,
			"from %" PRId64 " on: %s has some of them in /etc/subuid", base, other);
		finding_advise(finding,
			"give %s ids that nobody else has, in /etc/subuid and /etc/subgid",
			config->user);
	} else if ((int64_t)slots - BUILD_SLOTS < config->max_sandboxes) {
		finding_set(finding, FINDING_WARN,
			"from %" PRId64 " on, for %" PRId64 " sandboxes; max_sandboxes is %" PRId64,
			base, (int64_t)slots - BUILD_SLOTS, config->max_sandboxes);
	} else {
		finding_set(finding, FINDING_OK,
			"from %" PRId64 " on, for %" PRId64 " sandboxes and %d builds", base,
			(int64_t)slots - BUILD_SLOTS, BUILD_SLOTS);
	}
}

void probe_files(const struct doctor *doctor, struct finding *finding)
{
	uint64_t wanted =
		(uint64_t)doctor->config->max_sandboxes * FILES_PER_SANDBOX + FILES_BESIDE;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
		finding_fail_sys(finding, "getrlimit");
	} else if (limit.rlim_max < wanted) {
		finding_set(finding, FINDING_LACKING, "%ju, %" PRIu64 " wanted",
			(uintmax_t)limit.rlim_max, wanted);
		finding_advise(finding,
			"LimitNOFILE=%" PRIu64 " in the service, or ulimit -Hn; or lower "
			"max_sandboxes",
			wanted);
	} else {
		finding_set(finding, FINDING_OK, "%ju", (uintmax_t)limit.rlim_max);
	}
}

void probe_inotify(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(close_p) int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0) {
		finding_fail_sys(finding, "inotify_init1");
		finding_advise(finding, "raise the sysctl fs.inotify.max_user_instances");
	} else if (inotify_add_watch(fd, doctor->folder, IN_CREATE) < 0) {
		finding_fail_sys(finding, doctor->folder);
		finding_advise(finding, "raise the sysctl fs.inotify.max_user_watches");
	} else {
		finding_set(finding, FINDING_OK, "watches folders");
	}
}

void probe_swap(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;
	int64_t kib = 0;
	bool zram = false;

	(void)doctor;
	buffer_init(&text, SUBUID_MAX);
	if (io_read_file(AT_FDCWD, "/proc/swaps", &text, &err) < 0) {
		finding_fail(finding, &err);
		return;
	}
	for (const char *line = strchr(buffer_text(&text), '\n'); line != NULL && line[1] != '\0';
		line = strchr(line + 1, '\n')) {
		int64_t size;

		if (sscanf(line + 1, "%*s %*s %" SCNd64, &size) == 1) {
			kib += size;
			zram = zram || str_starts(line + 1, "/dev/zram");
		}
	}
	if (kib > 0) {
		finding_set(
			finding, FINDING_OK, "%" PRId64 " MiB%s", kib / 1024, zram ? ", zram" : "");
	} else {
		finding_set(finding, FINDING_LACKING, "none");
	}
}

void probe_mmdebstrap(const struct doctor *doctor, struct finding *finding)
{
	static const char *const files[] = {
		"/usr/bin/mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg"};

	(void)doctor;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (access(files[i], R_OK) < 0) {
			finding_fail_sys(finding, files[i]);
			return;
		}
	}
	finding_set(finding, FINDING_OK, "there, with Debian's keys");
}

void probe_programs(const struct doctor *doctor, struct finding *finding)
{
	static const char *const names[] = {"hobd", "hob-build", "hob-snapshots", "hob-init"};
	struct error err = ERROR_INIT;

	(void)doctor;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP(free_p) char *path = NULL;

		if (process_sibling(names[i], &path, &err) < 0) {
			finding_fail(finding, &err);
			return;
		}
		if (access(path, X_OK) < 0) {
			finding_fail_sys(finding, path);
			return;
		}
	}
	finding_set(finding, FINDING_OK, "hobd, hob-build, hob-snapshots, hob-init");
}

void probe_environments(const struct doctor *doctor, struct finding *finding)
{
	struct environment_list list = {0};
	struct error err = ERROR_INIT;

	if (environment_list_load(doctor->config->environments, &list, &err) < 0) {
		finding_fail(finding, &err);
	} else if (list.failure_count > 0) {
		finding_set(finding, FINDING_WARN, "%zu good, %zu with errors", list.count,
			list.failure_count);
		finding_advise(finding, "%s", list.failures[0].error.message);
	} else if (list.count == 0) {
		finding_set(finding, FINDING_LACKING, "none in %s", doctor->config->environments);
	} else {
		finding_set(
			finding, FINDING_OK, "%zu in %s", list.count, doctor->config->environments);
	}
	environment_list_done(&list);
}

void probe_hobd(const struct doctor *doctor, struct finding *finding)
{
	const struct http_request request = {
		.method = "GET", .path = "/v1/info", .upload_bytes = -1};
	struct http_reply reply = {0};
	struct http *http = NULL;
	struct error err = ERROR_INIT;

	if (http_open(doctor->config->socket, &http, &err) < 0 ||
		http_run(http, &request, &reply, &err) < 0) {
		finding_fail(finding, &err);
	} else {
		const char *version = json_string_value(json_object_get(reply.json, "version"));

		finding_set(finding, FINDING_OK, "%s answers, version %s", doctor->config->socket,
			version != NULL ? version : "unknown");
	}
	json_decref(reply.json);
	http_close(http);
}
