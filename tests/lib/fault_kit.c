/* The points are not written down here: one run of the work lists those that it passes. */
#include "tests/lib/fault_kit.h"

#include "base/io.h"
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

int fault_kit_child(const struct fault_kit *kit, int argc, char **argv)
{
	CLEANUP(store_close_p) struct store *store = NULL;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	int status;

	if (argc != 3 || !streq(argv[1], "--work")) {
		return -1;
	}
	status = store_open(argv[2], STORE_WRITE, &store, &err);
	if (status == 0) {
		status = store_recover(store, &sweep, &err);
	}
	if (status == 0) {
		status = kit->work(store, &err);
	}
	if (status < 0) {
		fprintf(stderr, "%s\n", err.message);
	}
	return -status;
}

static int run_child(const struct store *store, const char *fault, const char *list)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (fault != NULL) {
			/* Its failure is wanted, so its words are no news. */
			dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
			setenv("HOB_FAULT", fault, 1);
		}
		if (list != NULL) {
			setenv("HOB_FAULT_LIST", list, 1);
		}
		execl("/proc/self/exe", program_invocation_short_name, "--work", store_path(store),
			NULL);
		_exit(126);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

int fault_kit_run(const struct store *store, const char *fault)
{
	return run_child(store, fault, NULL);
}

/* A new store in place of the last run's. */
static struct store *open_prepared(const struct fault_kit *kit, const char *folder)
{
	CLEANUP(free_p) char *path = xasprintf("%s/store", folder);
	struct error err = ERROR_INIT;
	struct store *store;

	assert_ok(io_remove_tree(AT_FDCWD, path, &err), &err);
	store = store_kit_open(folder);
	kit->prepare(store);
	return store;
}

/* The points that one run of the work passes, each once. */
static char **list_points(const struct fault_kit *kit, const char *folder)
{
	CLEANUP(store_close_p) struct store *store = open_prepared(kit, folder);
	CLEANUP(free_p) char *list = xasprintf("%s/points", folder);
	CLEANUP(free_p) char *text = NULL;
	char **points = xcalloc(1, sizeof(*points));
	char *rest, *line;

	assert_int_equal(run_child(store, NULL, list), 0);
	text = temp_read(folder, "points");
	for (rest = text; (line = strsep(&rest, "\n")) != NULL;) {
		if (*line != '\0' && !strv_contains(points, line)) {
			strv_add(&points, line);
		}
	}
	return points;
}

void fault_kit_expect(
	const struct fault_kit *kit, const char *folder, const char *const *wanted, size_t count)
{
	CLEANUP(strv_free_p) char **points = list_points(kit, folder);

	for (size_t i = 0; i < count; i++) {
		if (!strv_contains(points, wanted[i])) {
			fail_msg("%s is never passed", wanted[i]);
		}
	}
}

static bool break_once(const struct fault_kit *kit, const char *folder, const char *point,
	int passage, const char *action)
{
	CLEANUP(free_p) char *fault = xasprintf("%s:%d:%s", point, passage, action);
	CLEANUP(store_close_p) struct store *store = open_prepared(kit, folder);

	return kit->break_once(store, fault, passage);
}

void fault_kit_everywhere(const struct fault_kit *kit, const char *folder, const char *action)
{
	CLEANUP(strv_free_p) char **points = list_points(kit, folder);

	for (size_t i = 0; points[i] != NULL; i++) {
		int passage = 1;

		while (break_once(kit, folder, points[i], passage, action)) {
			passage++;
		}
		if (streq(action, "kill") && passage == 1) {
			fail_msg("%s: the fault did not happen", points[i]);
		}
	}
}
