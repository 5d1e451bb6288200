/* A live copy of a folder whose owner moves folders, swaps them for links out of the tree, and puts
 * fifos where files were, as fast as it can: nothing from outside gets in, and nothing hangs. */
#include "tests/lib/live_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_compare.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#define COPIES 15
#define FOLDERS 20

static void folder_fill(const char *folder)
{
	for (int i = 0; i < FOLDERS; i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%d", folder, i);

		assert_int_equal(mkdir(path, 0755), 0);
		temp_write(path, "canary", "inside");
		temp_write(path, "file", "inside");
	}
}

/* Every call may fail: the state that the round before has left is as good as any. */
static void hostile_run(const char *upper)
{
	if (chdir(upper) < 0) {
		_exit(1);
	}
	for (int i = 0; i < FOLDERS; i++) {
		char name[16], other[16], file[32];

		(void)snprintf(name, sizeof(name), "%d", i);
		(void)snprintf(other, sizeof(other), "%d", (i * 7 + 3) % FOLDERS);
		(void)snprintf(file, sizeof(file), "%d/file", i);
		(void)rename(name, "moved");
		(void)!symlink("../outside", name);
		(void)unlink(name);
		(void)rename("moved", name);
		(void)renameat2(AT_FDCWD, name, AT_FDCWD, other, RENAME_EXCHANGE);
		(void)unlink(file);
		(void)mkfifo(file, 0600);
		(void)unlink(file);
		(void)!symlink("/etc/shadow", file);
		(void)unlink(file);
		close(open(file, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
		(void)rename(name, "0/below");
		(void)rename("0/below", name);
	}
}

static int look(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)type;
	/* What is inside says so in six letters, or is empty. */
	if (S_ISREG(status->st_mode) && status->st_size > 6) {
		(void)fprintf(stderr, "%s came in\n", path + where->base);
		return 1;
	}
	return 0;
}

static void test_nothing_from_outside_gets_in(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(free_p) char *tree = NULL;
	CLEANUP(free_p) char *outside = NULL;
	int copied = 0;

	if (kit == NULL) {
		skip();
	}
	upper = live_kit_path(kit, "upper");
	tree = live_kit_path(kit, "tree");
	outside = live_kit_path(kit, "outside");
	assert_int_equal(mkdir(outside, 0755), 0);
	temp_write(outside, "canary", "from outside");
	temp_write(outside, "file", "from outside");
	folder_fill(upper);
	live_kit_start(kit, hostile_run, upper);
	for (int i = 0; i < COPIES; i++) {
		assert_ok(live_kit_copy(kit), &kit->err);
		assert_int_equal(nftw(tree, look, 16, FTW_PHYS), 0);
		copied++;
	}
	assert_int_equal(copied, COPIES);
	live_kit_kill(kit);
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_same_trees(upper, tree);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_nothing_from_outside_gets_in, live_kit_setup_ext4, live_kit_teardown),
		{"test_nothing_from_outside_gets_in_on_xfs", test_nothing_from_outside_gets_in,
			live_kit_setup_xfs, live_kit_teardown, NULL},
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
