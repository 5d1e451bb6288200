/* Build sandboxes, sealing, trees that a builder writes itself, deletions, and builds as programs.
 */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"
#include "pool/sandbox/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define ROOT_NEEDED(kit)                                                                           \
	do {                                                                                       \
		if ((kit) == NULL) {                                                               \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

static struct sandbox_spec build_spec(struct sandbox_kit *kit, const char *id, const char *staging)
{
	struct sandbox_spec spec = kit_spec(kit, id, (uint32_t)kit->config.id_slots - 1);
	CLEANUP(free_p) char *path = xasprintf("%s/staging/%s", kit->config.store, staging);

	spec.kind = SANDBOX_BUILD;
	spec.staging = staging;
	(void)!mkdir(path, 0700);
	return spec;
}

static char *staged(const struct sandbox_kit *kit, const char *path)
{
	return xasprintf("%s/staging/%s", kit->config.store, path);
}

static void test_a_step_becomes_a_layer(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *file = NULL;
	CLEANUP(free_p) char *work = NULL;
	CLEANUP(free_p) char *tree = NULL;
	struct sandbox_spec spec;
	struct kit_box box;
	struct stat status;
	char value[8];

	ROOT_NEEDED(kit);
	spec = build_spec(kit, "bs-step", "step");
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(box_shell(&box,
		"mkdir /workspace/out && echo made > /workspace/out/f && "
		"echo more >> /etc/passwd && rm -r /home",
		NULL));
	assert_int_equal(kit_seal(kit, "step"), -ERROR_BUSY);
	assert_int_equal(box_close(&box), 0);
	file = staged(kit, "step/tree/workspace/out/f");
	assert_int_equal(lstat(file, &status), 0);
	assert_int_equal(status.st_uid, launcher_slot_base(kit->launcher, spec.slot));
	assert_ok(kit_seal(kit, "step"), &kit->err);
	work = staged(kit, "step/work");
	assert_int_equal(access(work, F_OK), -1);
	tree = staged(kit, "step/tree");
	for (int i = 0; i < 2; i++) {
		CLEANUP(free_p)
		char *path = xasprintf("%s/%s", tree, i == 0 ? "etc/passwd" : "etc");

		assert_int_equal(
			lgetxattr(path, "trusted.overlay.origin", value, sizeof(value)), -1);
		assert_int_equal(errno, ENODATA);
		assert_int_equal(
			lgetxattr(path, "trusted.overlay.impure", value, sizeof(value)), -1);
	}
	/* What was deleted stays deleted in the layer. */
	free(file);
	file = staged(kit, "step/tree/home");
	assert_int_equal(lstat(file, &status), 0);
	assert_true(S_ISCHR(status.st_mode) && status.st_rdev == 0);
}

/* Renamed into layers/, it is what a sandbox in another slot sees. */
static void test_a_sealed_step_is_used_by_a_session(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *from = NULL;
	CLEANUP(free_p) char *to = NULL;
	CLEANUP(free_p) char *said = NULL;
	struct sandbox_spec spec;
	struct kit_box box;
	int64_t base;

	ROOT_NEEDED(kit);
	spec = build_spec(kit, "bs-first", "first");
	base = launcher_slot_base(kit->launcher, spec.slot);
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(box_shell(
		&box, "echo step > /workspace/f; chown 1000:1000 /workspace/f; rm -r /var", NULL));
	assert_int_equal(box_close(&box), 0);
	assert_ok(kit_seal(kit, "first"), &kit->err);
	to = sandbox_kit_layer(kit, base, ID_RANGE);
	assert_int_equal(rmdir(to), 0);
	from = staged(kit, "first/tree");
	assert_int_equal(rename(from, to), 0);
	box_open(kit, &box, "sb-after", 3);
	said = box_shell(&box,
		"cat /workspace/f; stat -c %u:%g /workspace/f /workspace; ls -d /var 2>&1",
		&(int){0});
	assert_string_equal(
		said, "step\n1000:1000\n0:0\nls: cannot access '/var': No such file or directory");
	assert_int_equal(box_close(&box), 0);
	/* The next step in the slot that the layer was made in needs no mapping. */
	spec = build_spec(kit, "bs-second", "second");
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(said);
	said = box_shell(&box, "stat -c %u:%g /workspace/f", NULL);
	assert_string_equal(said, "1000:1000");
	assert_int_equal(box_close(&box), 0);
}

static void assert_cgroup_goes(struct sandbox_kit *kit, const char *id)
{
	int64_t end_ms = clock_mono_ms() + 60000;
	struct sandbox_usage usage;

	while (sandbox_usage_read(&kit->config, id, &usage, &kit->err) == 0) {
		assert_true(clock_mono_ms() < end_ms);
		usleep(1000);
	}
}

static void test_builds_die_with_their_launcher(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_spec spec;
	struct kit_box build, session;
	struct pollfd ended = {.events = POLLIN};

	ROOT_NEEDED(kit);
	box_open(kit, &session, "sb-stays", 3);
	spec = build_spec(kit, "bs-goes", "goes");
	assert_ok(box_create(kit, &build, &spec), &kit->err);
	box_connect(&build);
	box_disconnect(&build);
	box_disconnect(&session);
	sandbox_kit_restart(kit);
	assert_cgroup_goes(kit, "bs-goes");
	ended.fd = build.created.pidfd;
	assert_int_equal(poll(&ended, 1, 60000), 1);
	ended.fd = session.created.pidfd;
	assert_int_equal(poll(&ended, 1, 0), 0);
	assert_int_equal(box_close(&session), 0);
	close(build.created.pidfd);
}

/* Killed, the launcher cannot clean up; its build sandboxes die nevertheless. */
static void test_builds_die_with_a_killed_launcher(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_spec spec;
	struct kit_box build;
	struct pollfd ended = {.events = POLLIN};
	char path[64];
	FILE *file;
	int launcher = 0;

	ROOT_NEEDED(kit);
	spec = build_spec(kit, "bs-orphan", "orphan");
	assert_ok(box_create(kit, &build, &spec), &kit->err);
	box_connect(&build);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", build.created.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d (%*[^)]) %*c %d", &launcher), 1);
	fclose(file);
	assert_int_equal(kill(launcher, SIGKILL), 0);
	ended.fd = build.created.pidfd;
	assert_int_equal(poll(&ended, 1, 60000), 1);
	box_disconnect(&build);
	assert_int_equal(kit_freeze(kit, "bs-orphan"), -ERROR_UNAVAILABLE);
	assert_true(kit->lost);
	sandbox_kit_restart(kit);
	assert_int_equal(box_close(&build), 0);
	assert_cgroup_goes(kit, "bs-orphan");
}

static void test_a_prepared_tree_and_its_ids(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(close_p) int userns = -1;
	CLEANUP(free_p) char *folder = NULL;
	CLEANUP(free_p) char *tree = NULL;
	const struct passwd *user;
	struct stat status;
	int64_t base;
	int code = 0;
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	skip(); /* its own thread keeps the child from entering a user namespace */
#endif
	ROOT_NEEDED(kit);
	base = launcher_slot_base(kit->launcher, 40);
	folder = staged(kit, "unpack");
	assert_int_equal(mkdir(folder, 0711), 0);
	assert_ok(kit_prepare(kit, "unpack", 40, &userns), &kit->err);
	user = getpwnam(kit->config.user);
	pid = fork();
	if (pid == 0) {
		struct error err = ERROR_INIT;
		int tree_fd;

		if (chdir(folder) < 0 || privileges_drop(&kit->config, &err) < 0 ||
			setns(userns, CLONE_NEWUSER) < 0 || setresgid(0, 0, 0) < 0 ||
			setresuid(0, 0, 0) < 0) {
			_exit(1);
		}
		tree_fd = open("tree", O_RDONLY | O_DIRECTORY);
		if (tree_fd < 0 || mkdirat(tree_fd, "etc", 0755) < 0 ||
			fchownat(tree_fd, "etc", 33, 33, 0) < 0) {
			_exit(2);
		}
		/* Nothing outside the range. */
		_exit(fchownat(tree_fd, "etc", ID_RANGE, 0, 0) == 0 ? 3 : 0);
	}
	assert_non_null(user);
	assert_int_equal(waitpid(pid, &code, 0), pid);
	assert_int_equal(code, 0);
	tree = staged(kit, "unpack/tree/etc");
	assert_int_equal(lstat(tree, &status), 0);
	assert_int_equal(status.st_uid, base + 33);
	assert_int_equal(kit_prepare(kit, "missing", 40, &code), -ERROR_NOT_FOUND);
}

static void test_removal_leaves_what_is_beside(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *folder = NULL;
	CLEANUP(free_p) char *link = NULL;
	CLEANUP(free_p) char *kept = NULL;

	ROOT_NEEDED(kit);
	folder = staged(kit, "old");
	link = staged(kit, "old/link");
	kept = staged(kit, "kept");
	assert_int_equal(mkdir(folder, 0000), 0);
	assert_int_equal(mkdir(kept, 0755), 0);
	temp_write(kept, "f", "x");
	assert_int_equal(symlink("../kept", link), 0);
	assert_ok(kit_remove(kit, "staging", "old"), &kit->err);
	assert_int_equal(access(folder, F_OK), -1);
	free(temp_read(kept, "f"));
	assert_ok(kit_remove(kit, "staging", "old"), &kit->err);
	assert_int_equal(kit_remove(kit, "mirrors", "x"), -ERROR_INVALID);
	assert_int_equal(kit_remove(kit, "staging", "../layers"), -ERROR_INVALID);
}

/* The launcher's sibling hob-build, here a script that writes what it was given. */
static void test_a_build_is_started_clean(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *script = NULL;
	CLEANUP(free_p) char *out = NULL;
	CLEANUP(free_p) char *said = NULL;
	CLEANUP(close_p) int pidfd = -1;
	struct pollfd ended = {.events = POLLIN};
	char self[4096];
	ssize_t length;
	FILE *file;
	pid_t pid;

	ROOT_NEEDED(kit);
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(length > 0);
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	script = xasprintf("%s/hob-build", self);
	out = xasprintf("%s/out", kit->folder);
	file = fopen(script, "we");
	assert_non_null(file);
	fprintf(file,
		"#!/bin/sh\n(echo \"$@\"; id -u; pwd; ulimit -c; ls /proc/self/fd | wc -l; env | "
		"sort |"
		" grep -v '^_\\|^PWD\\|SHLVL\\|OLDPWD'; wc -l < /proc/self/mountinfo) > %s\n",
		out);
	fclose(file);
	assert_int_equal(chmod(script, 0755), 0);
	assert_ok(kit_build(kit, "webapp", &pid, &pidfd), &kit->err);
	ended.fd = pidfd;
	assert_int_equal(poll(&ended, 1, 60000), 1);
	assert_int_equal(unlink(script), 0);
	said = temp_read(kit->folder, "out");
	assert_contains(said, "webapp --json\n0\n/\n");
	assert_contains(said, "HOME=/root\nLC_ALL=C.UTF-8\nPATH=");
	assert_null(strstr(said, "HOB_TEST_RUN"));
	assert_int_equal(kit_build(kit, "webapp", &pid, &pidfd), -ERROR_NOT_FOUND);
	assert_int_equal(kit_build(kit, "../x", &pid, &pidfd), -ERROR_INVALID);
}

int main(void)
{
#define IN_KIT(test) cmocka_unit_test_setup_teardown(test, sandbox_kit_setup, sandbox_kit_teardown)
	const struct CMUnitTest tests[] = {
		IN_KIT(test_a_step_becomes_a_layer),
		IN_KIT(test_a_sealed_step_is_used_by_a_session),
		IN_KIT(test_builds_die_with_their_launcher),
		IN_KIT(test_builds_die_with_a_killed_launcher),
		IN_KIT(test_a_prepared_tree_and_its_ids),
		IN_KIT(test_removal_leaves_what_is_beside),
		IN_KIT(test_a_build_is_started_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
