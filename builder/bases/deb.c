/* From an environment to mmdebstrap's words, and from what it made to a layer. The child writes
 * what is installed into a file beside the tree, which becomes the layer's list. */
#include "builder/bases/deb.h"

#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/process.h"
#include "builder/base.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "builder/packages/packages.h"
#include "builder/range.h"
#include "configs/deb_reference.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

/* A change of how it is made makes new layers. */
#define DEB_VERSION "1"
#define PROGRAM "/usr/bin/mmdebstrap"
#define DEBIAN_KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"
#define KEYRING_BYTES_MAX (1024 * 1024)
#define STALL_MS (10 * 60 * 1000) /* it is silent while a package comes */
#define REPORT "report" /* beside the tree */
#define WORD(text) ((char *)(uintptr_t)(text))

char *deb_base_text(const struct environment *environment)
{
	return xasprintf("%s %s %s %s %s security %s keyring %s", DEB_VERSION,
		environment->base_location, environment->base_date, environment->base_mirror,
		environment->base_components,
		environment->base_security != NULL ? environment->base_security : "",
		environment->base_keyring != NULL ? environment->base_keyring : "");
}

/* ---- what it is told ---- */

static const struct deb_script scripts[] = {
	/* apt finds the keys of its first update outside, those of later ones in the image. */
	{"setup", "#!/bin/sh\nset -eu\n[ ! -e " DEB_ROOM_KEYRING " ] ||"
		  " install -D -m 0644 " DEB_ROOM_KEYRING " \"$1" DEB_ROOM_KEYRING "\"\n"},
	/* While apt still has its lists, which know the digest of every package. */
	{"report", "#!/bin/sh\nset -eu\nexport APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\"\n"
		   "cd " DEB_ROOM_WORK "\n"
		   "grep -h -m 1 '^Date: ' \"$1\"/var/lib/apt/lists/*Release | cut -c 7- >release\n"
		   "dpkg-query --admindir=\"$1/var/lib/dpkg\" -W"
		   " -f '${binary:Package}=${Version}\\n' >names\n"
		   "xargs apt-cache show <names | awk '"
		   "function out() { if (sha != \"\") print name \"\\t\" arch \"\\t\" version "
		   "\"\\t\" sha"
		   "; name = arch = version = sha = \"\" }\n"
		   "/^Package: / { out(); name = $2 }\n/^Architecture: / { arch = $2 }\n"
		   "/^Version: / { version = $2 }\n/^SHA256: / { sha = $2 }\nEND { out() }'"
		   " | sort -u >packages\n"},
};

struct words {
	char **argv, **env;
};

static void words_done(struct words *words)
{
	strv_free(words->argv);
	strv_free(words->env);
}

static void add_env(const struct environment *environment, char ***env)
{
	static const char *const fixed[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"TMPDIR=/tmp", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"};
	CLEANUP(strv_free_p) char **own = package_env(environment);
	int64_t date_ms = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		strv_add(env, fixed[i]);
	}
	for (char **entry = own; *entry != NULL; entry++) {
		size_t length = strcspn(*entry, "=");

		if (length > 6 && strncasecmp(*entry + length - 6, "_proxy", 6) == 0) {
			strv_add(env, *entry);
		}
	}
	if (deb_date_parse(environment->base_date, &date_ms)) {
		CLEANUP(free_p)
		char *epoch = xasprintf("SOURCE_DATE_EPOCH=%lld", (long long)date_ms / 1000);

		strv_add(env, epoch);
	}
}

/* A line of apt's sources.list. */
static void add_source(const struct environment *environment, const char *mirror,
	const char *suite_end, char ***argv)
{
	CLEANUP(free_p) char *url = deb_mirror_url(mirror, environment->base_date);
	CLEANUP(free_p)
	char *line = xasprintf("deb [signed-by=%s] %s %s%s %s",
		environment->base_keyring != NULL ? DEB_ROOM_KEYRING : DEBIAN_KEYRING, url,
		environment->base_location, suite_end, environment->base_components);

	strv_add(argv, line);
}

static struct words words_for(const struct environment *environment)
{
	static const char *const fixed[] = {PROGRAM, "--mode=root", "--variant=apt",
		"--format=directory", "--verbose",
		"--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr",
		"--setup-hook=" DEB_ROOM_WORK "/setup", "--customize-hook=" DEB_ROOM_WORK "/report",
		"--skip=chroot/mount/sys",
		/* An old release is past its time by intention. */
		"--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Acquire::Retries \"3\"",
		"--aptopt=Acquire::Languages \"none\""};
	struct words words = {NULL, NULL};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		strv_add(&words.argv, fixed[i]);
	}
	strv_add(&words.argv, environment->base_location);
	strv_add(&words.argv, DEB_ROOM_TREE);
	add_source(environment, environment->base_mirror, "", &words.argv);
	if (environment->base_security != NULL) {
		add_source(environment, environment->base_security, "-security", &words.argv);
	}
	add_env(environment, &words.env);
	return words;
}

/* ---- in the child ---- */

struct task {
	const struct environment *environment;
	const struct range *range;
	struct deb_room room;
	int report_fd;
};

/* The machine's own, which it has copied for the time of the work. */
static int tidy(int tree_fd, struct error *err)
{
	static const char *const names[] = {"resolv.conf", "hostname"};
	CLEANUP(close_p)
	int etc = io_open_beneath(tree_fd, "etc", O_RDONLY | O_DIRECTORY, 0, err);

	if (etc < 0) {
		return etc;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (unlinkat(etc, names[i], 0) < 0 && errno != ENOENT) {
			return error_sys(err, errno, "remove etc/%s of the base", names[i]);
		}
	}
	return skeleton_write(tree_fd, err);
}

static int take_report(const struct task *task, struct error *err)
{
	CLEANUP(buffer_done) struct buffer release = {.max = 4096};
	CLEANUP(buffer_done) struct buffer packages = {.max = INSTALLED_BYTES_MAX};
	const char *text;

	if (io_read_file(AT_FDCWD, DEB_ROOM_WORK "/release", &release, err) < 0 ||
		io_read_file(AT_FDCWD, DEB_ROOM_WORK "/packages", &packages, err) < 0) {
		return error_wrap(err, "what mmdebstrap has made");
	}
	text = buffer_text(&release);
	do { /* a line for each source */
		if (deb_check_release(text, task->environment->base_date, err) < 0) {
			return -(int)err->kind;
		}
		text += strcspn(text, "\n");
		text += *text == '\n';
	} while (*text != '\0');
	return io_write_full(task->report_fd, buffer_text(&packages), packages.length, err);
}

static int make_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	struct task *task = context;
	struct words words = words_for(task->environment);
	CLEANUP(close_p) int tree = -1;
	struct deb_run run = {.argv = words.argv,
		.env = words.env,
		.bytes_max = (uint64_t)task->environment->limits.disk_bytes};
	int status = range_enter(task->range, child, err);

	if (status == 0) {
		status = deb_room_enter(&task->room, err);
	}
	if (status == 0) {
		run.tree_fd = tree =
			io_open(AT_FDCWD, DEB_ROOM_TREE, O_RDONLY | O_DIRECTORY, 0, err);
		status = tree < 0 ? tree : deb_run(child, &run, err);
	}
	if (status == 0) {
		status = take_report(task, err);
	}
	if (status == 0) {
		status = tidy(tree, err);
	}
	words_done(&words);
	*(bool *)ret_result = true;
	return status;
}

/* ---- in the builder ---- */

static int read_keyring(
	const struct environment *environment, struct buffer *keyring, struct error *err)
{
	const char *path = environment->base_keyring;

	buffer_init(keyring, KEYRING_BYTES_MAX);
	if (path == NULL) {
		if (access(DEBIAN_KEYRING, R_OK) < 0) {
			error_sys(err, errno, "read " DEBIAN_KEYRING);
			return error_hint(err, "apt-get install debian-archive-keyring, or name a "
					       "base.keyring");
		}
		return 0;
	}
	if (io_read_file(AT_FDCWD, path, keyring, err) < 0) {
		return error_hint(err, "base.keyring must be a file that user hob may read");
	}
	return 0;
}

static int run_child(
	struct machine *machine, struct task *task, struct staging *staging, struct error *err)
{
	CLEANUP(close_p)
	int report = io_open(
		staging_fd(staging), REPORT, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	CLEANUP(close_p)
	int tree = io_open(staging_fd(staging), "tree", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, err);
	int fds[3] = {tree, report, task->range->userns_fd};
	struct child_spec spec = {.what = "make a Debian",
		.run = make_child,
		.context = task,
		.result_size = sizeof(bool),
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.stall_ms = STALL_MS};
	bool done = false;

	if (report < 0 || tree < 0) {
		return -(int)err->kind;
	}
	task->room.tree_fd = tree;
	task->report_fd = report;
	return child_run(machine, &spec, &done, err);
}

static int keep_list(struct staging *staging, struct error *err)
{
	CLEANUP(buffer_done) struct buffer report = {.max = INSTALLED_BYTES_MAX};
	CLEANUP(json_decref_p) json_t *list = NULL;
	char *const nothing[] = {NULL};
	int status = io_read_file(staging_fd(staging), REPORT, &report, err);

	if (status == 0) {
		status = installed_parse(PACKAGE_APT, buffer_text(&report), nothing, &list, err);
	}
	if (status == 0) {
		status = installed_write(staging, list, err);
	}
	if (status == 0 && unlinkat(staging_fd(staging), REPORT, 0) < 0) {
		status = error_sys(err, errno, "remove the list of packages");
	}
	return status;
}

int deb_base_write(struct machine *machine, const struct environment *environment,
	struct staging *staging, struct range *range, struct layer *layer, struct error *err)
{
	CLEANUP(buffer_done) struct buffer keyring = {0};
	struct task task = {.environment = environment, .range = range};
	int status = 0;

	if (access(PROGRAM, X_OK) < 0) {
		error_set(err, ERROR_UNAVAILABLE, "there is no " PROGRAM " on this machine");
		return error_hint(err, "apt-get install mmdebstrap");
	}
	status = read_keyring(environment, &keyring, err);
	if (status == 0) {
		status = range_prepare(range, staging_name(staging), err);
	}
	if (status == 0) {
		task.room.scripts = scripts;
		task.room.script_count = ARRAY_SIZE(scripts);
		task.room.keyring =
			environment->base_keyring != NULL ? buffer_text(&keyring) : NULL;
		task.room.keyring_length = keyring.length;
		status = run_child(machine, &task, staging, err);
	}
	if (status == 0) {
		status = keep_list(staging, err);
	}
	layer->id_base = range->first;
	layer->id_count = ID_RANGE;
	if (status == 0 && fault_point("base.installed") != 0) {
		status = error_sys(err, EIO, "keep the base");
	}
	return status;
}
