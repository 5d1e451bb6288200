/*
 * The two rules of a live copy that times alone do not make up for. On tmpfs a store into a shared
 * mapping changes a file and none of its times, so that each rule can be met alone: a file that is
 * mapped when the sandbox stands still, and one that was, and whose ctime is young. Without the
 * rule the test fails, which was tried by taking each one out.
 */
#include "tests/lib/live_kit.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define TALK_BYTES (3 * PAGE)
#define YOUNG_US 2200000

/* What the writer and the test say to each other, in memory that both have. */
struct talk {
	atomic_int wanted, done;
	bool unmaps;
};

static struct talk *talk;

static void await(atomic_int *word, int value)
{
	while (atomic_load(word) < value) {
		usleep(200);
	}
}

static void writer(const char *upper)
{
	CLEANUP(free_p) char *path = xasprintf("%s/mapped", upper);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	memcpy(page, "first", 5);
	atomic_store(&talk->done, 1);
	await(&talk->wanted, 2);
	memcpy(page, "after", 5);
	if (talk->unmaps) {
		munmap(page, PAGE);
		close(fd);
	}
	atomic_store(&talk->done, 2);
	for (;;) {
		pause();
	}
}

static void store_again(struct live_kit *kit)
{
	(void)kit;
	atomic_store(&talk->wanted, 2);
	await(&talk->done, 2);
}

static int setup(void **state)
{
	struct live_kit *kit = xcalloc(1, sizeof(*kit));
	static const char *const folders[] = {"upper", "tree", "scratch"};

	kit->folder = temp_folder();
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("rules", kit->folder, "tmpfs", 0, "size=16m"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		CLEANUP(free_p) char *path = live_kit_path(kit, folders[i]);

		assert_int_equal(mkdir(path, 0755), 0);
	}
	/* Of another size: with the same, and made in the same tick, it would pass for the file. */
	talk = mmap(NULL, TALK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(talk, MAP_FAILED);
	*state = kit;
	return 0;
}

static int teardown(void **state)
{
	struct live_kit *kit = *state;

	live_kit_kill(kit);
	munmap(talk, TALK_BYTES);
	assert_int_equal(umount2(kit->folder, MNT_DETACH), 0);
	temp_remove(kit->folder);
	free(kit);
	return 0;
}

/* What the copy has when the file was stored into after its first copy. */
static void check_copy(struct live_kit *kit, bool unmaps, useconds_t age_us)
{
	CLEANUP(free_p) char *upper = live_kit_path(kit, "upper");
	CLEANUP(free_p) char *mapped = xasprintf("%s/mapped", upper);
	CLEANUP(free_p) char *copied = live_kit_path(kit, "tree/mapped");
	char found[6] = "";
	int fd;

	temp_write(upper, "mapped", "");
	assert_int_equal(truncate(mapped, PAGE), 0);
	talk->unmaps = unmaps;
	live_kit_start(kit, writer, upper);
	await(&talk->done, 1);
	usleep(age_us);
	kit->before_freeze = store_again;
	assert_ok(live_kit_copy(kit), &kit->err);
	fd = open(copied, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, found, 5), 5);
	close(fd);
	assert_string_equal(found, "after");
}

static void test_what_is_mapped_is_copied_again(void **state)
{
	check_copy(*state, false, YOUNG_US);
}

static void test_what_is_young_is_copied_again(void **state)
{
	check_copy(*state, true, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_what_is_mapped_is_copied_again, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_what_is_young_is_copied_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
