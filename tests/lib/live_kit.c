/* The mount namespace is the process's own, so that nothing stays mounted after it. */
#include "tests/lib/live_kit.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/process.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define IMAGE_BYTES ((off_t)2 * 1024 * 1024 * 1024)

static const char *const folders[] = {
	"upper", "lower", "work", "merged", "tree", "previous", "scratch"};

char *live_kit_path(const struct live_kit *kit, const char *name)
{
	return xasprintf("%s/%s", kit->folder, name);
}

static int folder_open(const struct live_kit *kit, const char *name)
{
	CLEANUP(free_p) char *path = live_kit_path(kit, name);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void folders_make(struct live_kit *kit)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		CLEANUP(free_p) char *path = live_kit_path(kit, folders[i]);

		assert_int_equal(mkdir(path, 0755), 0);
	}
}

static bool run(char *const *argv)
{
	int code = -1;
	struct error err = ERROR_INIT;

	return process_run(argv, NULL, &code, &err) == 0 && code == 0;
}

/* folder is a tmpfs with the image, folder/fs what is in it. */
static bool fs_mount(struct live_kit *kit, char *const *make, const char *image)
{
	CLEANUP(free_p) char *place = live_kit_path(kit, "fs");
	CLEANUP(close_p) int fd = -1;
	char *attach[] = {
		(char[]){"mount"}, (char[]){"-o"}, (char[]){"loop"}, (char *)image, place, NULL};

	if (mount("hob-test", kit->folder, "tmpfs", 0, "mode=0755") < 0) {
		return false;
	}
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
	assert_int_equal(mkdir(place, 0755), 0);
	if (!process_exists(make[0]) || !run(make) || !run(attach)) {
		return false;
	}
	free(kit->folder);
	kit->folder = steal_ptr(place);
	kit->mounted = true;
	return true;
}

static int setup(void **state, bool xfs)
{
	struct live_kit *kit;
	CLEANUP(free_p) char *image = NULL;
	char *xfs_make[] = {(char[]){"mkfs.xfs"}, (char[]){"-q"}, NULL, NULL};
	char *ext4_make[] = {(char[]){"mkfs.ext4"}, (char[]){"-q"}, (char[]){"-F"}, NULL, NULL};

	*state = NULL;
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return 0;
	}
	kit = xcalloc(1, sizeof(*kit));
	kit->folder = temp_folder();
	kit->xfs = xfs;
	image = live_kit_path(kit, "image");
	xfs_make[2] = ext4_make[3] = image;
	*state = kit;
	if (!fs_mount(kit, xfs ? xfs_make : ext4_make, image)) {
		live_kit_teardown(state);
		*state = NULL;
		return 0;
	}
	folders_make(kit);
	return 0;
}

int live_kit_setup_ext4(void **state)
{
	return setup(state, false);
}

int live_kit_setup_xfs(void **state)
{
	return setup(state, true);
}

int live_kit_teardown(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *merged = NULL;

	if (kit == NULL) {
		return 0;
	}
	live_kit_kill(kit);
	assert_int_equal(chdir("/"), 0);
	if (kit->overlaid) {
		merged = live_kit_path(kit, "merged");
		(void)umount2(merged, 0);
	}
	if (kit->mounted) {
		(void)umount2(kit->folder, 0);
		*strrchr(kit->folder, '/') = '\0';
	}
	(void)umount2(kit->folder, 0);
	temp_remove(kit->folder);
	free(kit);
	return 0;
}

void live_kit_mount(struct live_kit *kit)
{
	CLEANUP(free_p) char *merged = live_kit_path(kit, "merged");
	CLEANUP(free_p)
	char *options = xasprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,index=off,"
				  "redirect_dir=off,metacopy=off",
		kit->folder, kit->folder, kit->folder);

	assert_int_equal(mount("overlay", merged, "overlay", 0, options), 0);
	kit->overlaid = true;
}

/* Busy, but not in the way of what is tested. */
static void writer_set(void)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)!nice(10);
}

void live_kit_start(struct live_kit *kit, void (*run_fn)(const char *folder), const char *folder)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		writer_set();
		for (;;) {
			run_fn(folder);
		}
	}
	kit->writers[kit->writer_count++] = pid;
}

void live_kit_spawn(struct live_kit *kit, char *const *argv)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		writer_set();
		(void)execvp(argv[0], argv);
		_exit(127);
	}
	kit->writers[kit->writer_count++] = pid;
}

void live_kit_kill(struct live_kit *kit)
{
	for (size_t i = 0; i < kit->writer_count; i++) {
		(void)kill(kit->writers[i], SIGKILL);
		(void)waitpid(kit->writers[i], NULL, 0);
	}
	kit->writer_count = 0;
}

/* ---- in place of the freezer ---- */

static int freeze(void *context, struct error *err)
{
	struct live_kit *kit = context;
	int status = 0;

	(void)err;
	if (kit->before_freeze != NULL) {
		kit->before_freeze(kit);
	}
	for (size_t i = 0; i < kit->writer_count; i++) {
		assert_int_equal(kill(kit->writers[i], SIGSTOP), 0);
		assert_true(waitpid(kit->writers[i], &status, WUNTRACED) == kit->writers[i]);
		assert_true(WIFSTOPPED(status));
	}
	kit->stopped = true;
	return 0;
}

static int thaw(void *context, struct error *err)
{
	struct live_kit *kit = context;

	(void)err;
	kit->thaws++;
	for (size_t i = 0; i < kit->writer_count; i++) {
		assert_int_equal(kill(kit->writers[i], SIGCONT), 0);
	}
	kit->stopped = false;
	return 0;
}

static int processes(void *context, pid_t **ret_pids, size_t *ret_count, struct error *err)
{
	struct live_kit *kit = context;

	(void)err;
	assert_true(kit->stopped);
	*ret_pids = xmalloc(sizeof(kit->writers));
	memcpy(*ret_pids, kit->writers, sizeof(kit->writers));
	*ret_count = kit->writer_count;
	return 0;
}

static bool cancelled(void *context)
{
	struct live_kit *kit = context;

	return --kit->cancel_after == 0;
}

static void emptied(struct live_kit *kit, const char *name)
{
	CLEANUP(free_p) char *path = live_kit_path(kit, name);
	struct error err = ERROR_INIT;

	assert_ok(io_remove_tree(AT_FDCWD, path, &err), &err);
	assert_int_equal(mkdir(path, 0755), 0);
}

int live_kit_copy(struct live_kit *kit)
{
	CLEANUP(free_p) char *list = live_kit_path(kit, "list");
	CLEANUP(free_p) char *previous_list = live_kit_path(kit, "previous-list");
	struct live_copy_spec spec = {.previous_fd = -1,
		.previous_list_fd = -1,
		.freeze = freeze,
		.thaw = thaw,
		.processes = processes,
		.max_pause_us = kit->max_pause_us,
		.cancelled = kit->cancel_after > 0 ? cancelled : NULL,
		.context = kit};
	int status;

	emptied(kit, "tree");
	kit->thaws = 0;
	kit->err = ERROR_INIT;
	spec.upper_fd = folder_open(kit, "upper");
	spec.tree_fd = folder_open(kit, "tree");
	spec.scratch_fd = folder_open(kit, "scratch");
	spec.list_fd = open(list, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (kit->with_previous) {
		spec.previous_fd = folder_open(kit, "previous");
		spec.previous_list_fd = open(previous_list, O_RDONLY | O_CLOEXEC);
	}
	status = live_copy(&spec, &kit->report, &kit->err);
	close(spec.upper_fd);
	close(spec.tree_fd);
	close(spec.scratch_fd);
	close(spec.list_fd);
	close_p(&spec.previous_fd);
	close_p(&spec.previous_list_fd);
	assert_false(kit->stopped);
	return status;
}

void live_kit_keep(struct live_kit *kit)
{
	CLEANUP(free_p) char *tree = live_kit_path(kit, "tree");
	CLEANUP(free_p) char *previous = live_kit_path(kit, "previous");
	CLEANUP(free_p) char *list = live_kit_path(kit, "list");
	CLEANUP(free_p) char *previous_list = live_kit_path(kit, "previous-list");
	struct error err = ERROR_INIT;

	assert_ok(io_remove_tree(AT_FDCWD, previous, &err), &err);
	assert_int_equal(rename(tree, previous), 0);
	assert_int_equal(rename(list, previous_list), 0);
	assert_int_equal(mkdir(tree, 0755), 0);
	kit->with_previous = true;
}
