/* A store on a disk that is really full: a small tmpfs in a mount namespace of the test's own. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define DISK_OPTIONS "size=16m"

/* Writes until nothing more fits. */
static void fill_disk(const struct store *store)
{
	int fd = openat(store_fd(store), "downloads/filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char block[4096] = "";

	assert_true(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0) {
		continue;
	}
	assert_int_equal(errno, ENOSPC);
	close(fd);
}

static void build_on_a_full_disk(struct store *store)
{
	struct staging *staging = NULL;
	struct build build;
	struct error err = ERROR_INIT;
	struct image image;
	int log = -1, status = 0;

	for (int i = 0; status == 0 && i < 100; i++) {
		status = build_begin(store, "webapp", &build, &log, &err);
		if (status == 0) {
			close(log);
			status = build_end(store, &build, BUILD_FAILED, "disk full", &err);
			build_done(&build);
		}
		if (status == 0) {
			status = staging_new(store, &staging, &err);
			staging_free(status == 0 ? staging : NULL);
		}
	}
	assert_kind(status, &err, ERROR_NO_SPACE);
	assert_ok(image_head(store, "webapp", &image, &err), &err);
	assert_int_equal(image.id, 2);
	image_done(&image);
}

/* All in a child, whose mounts go with it. */
static int use_full_disk(const char *folder)
{
	struct store *store;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	uint64_t freed = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", folder, "tmpfs", 0, DISK_OPTIONS) < 0) {
		return 100;
	}
	store = store_kit_open(folder);
	store_kit_image(store, "webapp");
	store_kit_image(store, "webapp");
	store_close(store);
	store = store_kit_open(folder);
	fill_disk(store);
	build_on_a_full_disk(store);
	store_close(store);
	/* From here on not even the catalog's WAL has room, but for the ballast. */
	store = store_kit_open(folder);
	assert_ok(store_recover(store, &sweep, &err), &err);
	assert_int_equal(sweep.missing, 0);
	assert_ok(image_remove(store, 1, &freed, &err), &err);
	assert_true(freed > 0);
	assert_int_equal(store_kit_count(store, "layers"), 1);
	assert_int_equal(unlinkat(store_fd(store), "downloads/filler", 0), 0);
	store_kit_image(store, "webapp");
	store_close(store);
	store = store_kit_open(folder);
	assert_int_equal(faccessat(store_fd(store), "ballast", F_OK, 0), 0);
	store_close(store);
	return 0;
}

static void test_a_full_disk_can_be_emptied(void **state)
{
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		skip();
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(use_full_disk(*state));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(test_a_full_disk_can_be_emptied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
