/* Sandboxes through a real launcher: what is in one, what limits it, and that nothing of one stays.
 */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"
#include "pool/sandbox/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ROOT_NEEDED(kit)                                                                           \
	do {                                                                                       \
		if ((kit) == NULL) {                                                               \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

static void says(struct kit_box *box, const char *script, const char *wanted)
{
	CLEANUP(free_p) char *said = box_shell(box, script, NULL);

	assert_string_equal(said, wanted);
}

/* No cgroup of this id in any hierarchy, no folder in the store or in run, nothing in staging. */
static void assert_nothing_left(struct sandbox_kit *kit, const char *id)
{
	struct error err = ERROR_INIT;
	struct cgroups cgroups;
	char path[CGROUP_PATH_SIZE];

	assert_ok(cgroups_open(&kit->config, &cgroups, &err), &err);
	cgroup_path(&cgroups, id, NULL, path);
	for (size_t i = 0; i < cgroups.count; i++) {
		assert_int_equal(faccessat(cgroups.hierarchies[i].fd, path, F_OK, 0), -1);
	}
	cgroups_close(&cgroups);
	for (int i = 0; i < 3; i++) {
		CLEANUP(free_p)
		char *folder = xasprintf(
			"%s/%s/%s", i == 0 ? kit->config.run : kit->config.store, "sandboxes", id);

		assert_int_equal(access(folder, F_OK), -1);
	}
}

static void staging_becomes_empty(struct sandbox_kit *kit)
{
	CLEANUP(free_p) char *staging = xasprintf("%s/staging", kit->config.store);
	int64_t end_ms = clock_mono_ms() + 60000;

	while (rmdir(staging) < 0) {
		assert_true(clock_mono_ms() < end_ms);
		usleep(10000);
	}
	assert_int_equal(mkdir(staging, 0711), 0);
}

static void assert_dead(int pidfd)
{
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};

	/* A process leaves its cgroup a moment before it is a zombie. */
	assert_int_equal(poll(&ended, 1, 60000), 1);
}

static void destroyed_completely(struct sandbox_kit *kit, struct kit_box *box)
{
	CLEANUP(close_p) int pidfd = dup(box->created.pidfd);

	assert_int_equal(box_close(box), 0);
	assert_dead(pidfd);
	assert_nothing_left(kit, box->id);
}

static void test_create_runs_a_command(void **state)
{
	struct sandbox_kit *kit = *state;
	struct kit_box box;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-one", 3);
	assert_true(box.created.pid > 1 && box.created.took_us > 0);
	says(&box, "id -u; hostname; pwd; cat /proc/sys/kernel/ostype", "0\nbox\n/\nLinux");
	says(&box, "stat -c '%U %a' / /tmp /usr /root", "root 755\nroot 1777\nroot 755\nroot 755");
	says(&box, "python3 -c 'print(6 * 7)'; echo hi > /root/f; cat /root/f; rm /root/f",
		"42\nhi");
	says(&box, "ps -e -o pid= | head -1 | tr -d ' '; ulimit -c", "1\n0");
	destroyed_completely(kit, &box);
	staging_becomes_empty(kit);
}

static void test_files_have_the_slots_ids(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *path = NULL;
	struct kit_box box;
	struct stat status;
	int64_t base;

	ROOT_NEEDED(kit);
	base = launcher_slot_base(kit->launcher, 4);
	box_open(kit, &box, "sb-ids", 4);
	free(box_shell(&box, "touch /root/f && chown 1000:2000 /root/f", NULL));
	path = xasprintf("%s/sandboxes/sb-ids/upper/root/f", kit->config.store);
	assert_int_equal(lstat(path, &status), 0);
	assert_int_equal(status.st_uid, base + 1000);
	assert_int_equal(status.st_gid, base + 2000);
	destroyed_completely(kit, &box);
}

static void test_an_id_is_taken_once(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_spec spec;
	struct kit_box box, again;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-twice", 3);
	spec = kit_spec(kit, "sb-twice", 4);
	assert_int_equal(box_create(kit, &again, &spec), -ERROR_EXISTS);
	says(&box, "echo alive", "alive");
	destroyed_completely(kit, &box);
	assert_ok(box_create(kit, &again, &spec), &kit->err);
	destroyed_completely(kit, &again);
	assert_ok(kit_destroy(kit, "sb-never-was"), &kit->err);
}

static void test_bad_specs_are_refused(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_spec spec;
	struct kit_box box;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-../x", 3);
	assert_int_equal(box_create(kit, &box, &spec), -ERROR_INVALID);
	spec = kit_spec(kit, "sb-slot", 1u << 20);
	assert_int_equal(box_create(kit, &box, &spec), -ERROR_INVALID);
	spec = kit_spec(kit, "sb-missing", 3);
	kit->layers[0].id = 12345;
	assert_int_equal(box_create(kit, &box, &spec), -ERROR_NOT_FOUND);
	assert_contains(kit->err.message, "12345");
	kit->layers[0].id = KIT_LAYER_HOST;
	assert_nothing_left(kit, "sb-missing");
	assert_int_equal(kit_freeze(kit, "sb-missing"), -ERROR_NOT_FOUND);
}

/* ---- layers ---- */

static void file_put(const char *tree, const char *name, const char *text, int64_t owner)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", tree, name);

	temp_write(tree, name, text);
	assert_int_equal(lchown(path, (uid_t)owner, (gid_t)owner), 0);
}

static void test_thirty_layers_in_order(void **state)
{
	struct sandbox_kit *kit = *state;
	struct kit_box box;

	ROOT_NEEDED(kit);
	for (int i = 0; i < 30; i++) {
		CLEANUP(free_p) char *tree = sandbox_kit_layer(kit, 0, ID_RANGE);
		char name[16], text[16];

		(void)snprintf(name, sizeof(name), "file%d", i);
		(void)snprintf(text, sizeof(text), "%d", i);
		file_put(tree, name, text, 0);
		file_put(tree, "top", text, 0);
	}
	box_open(kit, &box, "sb-layers", 3);
	says(&box, "cat /file0 /file17 /file29 /top; ls /file* | wc -l",
		"01729"
		"2930");
	destroyed_completely(kit, &box);
}

static void test_odd_ranges_become_roots(void **state)
{
	static const struct {
		int64_t base, count;
	} ranges[] = {{0, ID_RANGE}, {12345, 1}, {100000, 777}, {3000000000, ID_RANGE}};
	struct sandbox_kit *kit = *state;
	struct kit_box box;

	ROOT_NEEDED(kit);
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		CLEANUP(free_p)
		char *tree = sandbox_kit_layer(kit, ranges[i].base, ranges[i].count);
		char name[16];

		(void)snprintf(name, sizeof(name), "first%zu", i);
		file_put(tree, name, "", ranges[i].base);
		(void)snprintf(name, sizeof(name), "last%zu", i);
		file_put(tree, name, "", ranges[i].base + ranges[i].count - 1);
	}
	box_open(kit, &box, "sb-ranges", 6);
	says(&box,
		"stat -c '%u:%g' /first0 /first1 /first2 /first3 /last0 /last1 /last2 /last3 | tr "
		"'\\n' ' '",
		"0:0 0:0 0:0 0:0 65535:65535 0:0 776:776 65535:65535 ");
	/* Copied up they keep their owners, and may be changed. */
	says(&box, "echo x >> /last2 && chown 5:6 /last3 && stat -c '%u:%g' /last2 /last3",
		"776:776\n5:6");
	destroyed_completely(kit, &box);
}

static void test_a_sandbox_of_no_layers(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_spec spec;
	struct kit_box box;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-empty", 3);
	spec.layer_count = 0;
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	destroyed_completely(kit, &box);
}

/* ---- limits ---- */

static void test_memory_is_limited(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_usage usage;
	struct sandbox_spec spec;
	struct kit_box box;
	int code = 0;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-hog", 3);
	spec.limits.memory_bytes = 64 << 20;
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(box_shell(&box, "python3 -c 'x = bytearray(256 << 20)'", &code));
	assert_int_equal(code, 128 + SIGKILL);
	says(&box, "echo alive", "alive");
	assert_ok(sandbox_usage_read(&kit->config, "sb-hog", &usage, &kit->err), &kit->err);
	assert_true(usage.oom_kills >= 1);
	assert_true(usage.memory_bytes > 0 && usage.memory_bytes <= 64 << 20);
	assert_true(usage.cpu_us > 0 && usage.populated && !usage.frozen);
	destroyed_completely(kit, &box);
}

static void test_a_fork_bomb_stays_inside_and_dies(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_usage usage;
	struct sandbox_spec spec;
	struct kit_box box;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-bomb", 3);
	spec.limits.pids = 100;
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(box_shell(&box,
		"python3 -c 'import os\n"
		"while True:\n"
		"    try: os.fork()\n"
		"    except OSError: pass' >/dev/null 2>&1 &",
		NULL));
	usleep(300000);
	assert_ok(sandbox_usage_read(&kit->config, "sb-bomb", &usage, &kit->err), &kit->err);
	assert_true(usage.pids > 1 && usage.pids <= 100);
	destroyed_completely(kit, &box);
}

static void test_cpu_is_limited(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *said = NULL;
	struct sandbox_spec spec;
	struct kit_box box;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-cpu", 3);
	spec.limits.cpu_millis = 100;
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	said = box_shell(&box,
		"python3 -c 'import time\n"
		"a, p = time.monotonic(), time.process_time()\n"
		"while time.monotonic() - a < 0.6: pass\n"
		"print(time.process_time() - p < 0.3)'",
		NULL);
	assert_string_equal(said, "True");
	destroyed_completely(kit, &box);
}

/* ---- ends ---- */

static void test_destroy_whatever_it_did(void **state)
{
	static const char *const scripts[] = {
		"setsid sleep 1000 >/dev/null 2>&1 &",
		"(trap '' TERM INT HUP; sleep 1000 & setsid sleep 1000 & wait) >/dev/null 2>&1 &",
		"sleep 1000 >/dev/null 2>&1 & kill -STOP $!",
		"for i in $(seq 200); do (sleep 1000 >/dev/null 2>&1 &) ; done",
		"cd /tmp; exec 9> open; rm open; sleep 1000 >/dev/null 2>&1 &",
		"mkdir -p /root/a/b/c; chmod 0 /root/a/b; ln -s / /root/l; mkfifo /root/p",
	};
	struct sandbox_kit *kit = *state;

	ROOT_NEEDED(kit);
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		struct kit_box box;

		box_open(kit, &box, "sb-end", 7);
		free(box_shell(&box, scripts[i], NULL));
		destroyed_completely(kit, &box);
	}
	staging_becomes_empty(kit);
}

static void test_freeze_thaw_and_destroy_frozen(void **state)
{
	struct sandbox_kit *kit = *state;
	struct sandbox_usage usage;
	struct kit_box box;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-cold", 3);
	assert_ok(kit_freeze(kit, "sb-cold"), &kit->err);
	assert_ok(sandbox_usage_read(&kit->config, "sb-cold", &usage, &kit->err), &kit->err);
	assert_true(usage.frozen);
	assert_ok(kit_freeze(kit, "sb-cold"), &kit->err);
	assert_ok(kit_thaw(kit, "sb-cold"), &kit->err);
	says(&box, "echo warm", "warm");
	assert_ok(kit_freeze(kit, "sb-cold"), &kit->err);
	destroyed_completely(kit, &box);
}

static void test_sessions_outlive_the_launcher(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(strv_free_p) char **ids = NULL;
	struct kit_box box;
	struct stat status;
	CLEANUP(free_p) char *path = NULL;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-long", 3);
	free(box_shell(&box, "echo kept > /root/f", NULL));
	path = xasprintf("%s/sandboxes/sb-long/init.sock", kit->config.run);
	assert_int_equal(lstat(path, &status), 0);
	assert_int_equal(status.st_mode, S_IFSOCK | 0600);
	box_disconnect(&box);
	sandbox_kit_restart(kit);
	box.init.loop = kit->loop;
	box.init.ready = false;
	assert_ok(sandbox_cgroups_list(&kit->config, &ids, &kit->err), &kit->err);
	assert_int_equal(strv_count(ids), 1);
	assert_string_equal(ids[0], "sb-long");
	assert_ok(
		init_client_connect(kit->config.run, "sb-long", &box.created.control_fd, &kit->err),
		&kit->err);
	box_connect(&box);
	says(&box, "cat /root/f", "kept");
	destroyed_completely(kit, &box);
}

/* ---- networks ---- */

static void test_the_hosts_network_is_shared_when_asked(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *here = NULL;
	CLEANUP(free_p) char *inside = NULL;
	struct sandbox_spec spec;
	struct kit_box box;
	char link[64];
	ssize_t length;

	ROOT_NEEDED(kit);
	spec = kit_spec(kit, "sb-net", 3);
	spec.network_host = true;
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	length = readlink("/proc/self/ns/net", link, sizeof(link) - 1);
	assert_true(length > 0);
	link[length] = '\0';
	says(&box, "readlink /proc/self/ns/net", link);
	here = access("/etc/resolv.conf", R_OK) == 0 ? temp_read("/etc", "resolv.conf")
						     : xstrdup("");
	inside = box_shell(&box, "cat /etc/resolv.conf; echo end", NULL);
	assert_int_equal(strncmp(inside, here, strlen(here)), 0);
	says(&box, "(echo x > /etc/resolv.conf) 2>/dev/null || echo refused", "refused");
	destroyed_completely(kit, &box);
}

/* ---- who may ---- */

static void test_only_root_starts_launchers(void **state)
{
	struct config config = {.store = (char[]){"/nowhere"},
		.run = (char[]){"/nowhere"},
		.user = (char[]){"nobody"},
		.group = (char[]){"nogroup"},
		.cgroup = (char[]){"hob-test"},
		.id_slots = 100};
	int status = 0;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct launcher *launcher = NULL;
		struct error err = ERROR_INIT;

		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0)) {
			_exit(2);
		}
		_exit(launcher_start(&config, -1, &launcher, &err) == -ERROR_DENIED ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_dropped_privileges_do_not_come_back(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *closed = NULL;
	int status = 0;
	pid_t pid;

	ROOT_NEEDED(kit);
	closed = xasprintf("%s/closed", kit->folder);
	assert_int_equal(mkdir(closed, 0700), 0);
	pid = fork();
	if (pid == 0) {
		struct error err = ERROR_INIT;

		if (privileges_drop(&kit->config, &err) < 0) {
			_exit(1);
		}
		_exit(geteuid() == 0 || getegid() == 0 || setuid(0) == 0 || setgid(0) == 0 ||
					access(closed, X_OK) == 0
				? 2
				: 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
#define IN_KIT(test) cmocka_unit_test_setup_teardown(test, sandbox_kit_setup, sandbox_kit_teardown)
	const struct CMUnitTest tests[] = {
		IN_KIT(test_create_runs_a_command),
		IN_KIT(test_files_have_the_slots_ids),
		IN_KIT(test_an_id_is_taken_once),
		IN_KIT(test_bad_specs_are_refused),
		IN_KIT(test_thirty_layers_in_order),
		IN_KIT(test_odd_ranges_become_roots),
		IN_KIT(test_a_sandbox_of_no_layers),
		IN_KIT(test_memory_is_limited),
		IN_KIT(test_a_fork_bomb_stays_inside_and_dies),
		IN_KIT(test_cpu_is_limited),
		IN_KIT(test_destroy_whatever_it_did),
		IN_KIT(test_freeze_thaw_and_destroy_frozen),
		IN_KIT(test_sessions_outlive_the_launcher),
		IN_KIT(test_the_hosts_network_is_shared_when_asked),
		cmocka_unit_test(test_only_root_starts_launchers),
		IN_KIT(test_dropped_privileges_do_not_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
