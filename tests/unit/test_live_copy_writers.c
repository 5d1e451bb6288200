/*
 * Live copies under writers that can tell from what they find whether it is a state that they have
 * ever been in: pwrite to two files in turn, stores into a shared mapping, rename with fsync, a
 * folder that is moved to and fro, sqlite3 in WAL mode. HOB_TEST_SNAPSHOTS says how many copies.
 */
#include "tests/lib/live_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SNAPSHOTS_DEFAULT 20
#define BEGIN_MS_MAX 120000
#define BLOCKS 64
#define BLOCK_SIZE 4096
#define WORDS 512
#define WORD_STRIDE 64 /* in words: eight on a page */
#define MAPPED_BYTES (WORDS * WORD_STRIDE * sizeof(uint64_t))

struct block {
	uint64_t round, index;
	uint64_t fill[BLOCK_SIZE / 8 - 2];
};

/* ---- pwrite ---- */

static void block_fill(struct block *block, uint64_t round, uint64_t index)
{
	block->round = round;
	block->index = index;
	for (size_t i = 0; i < ARRAY_SIZE(block->fill); i++) {
		block->fill[i] = (round * 1000003 + index) ^ i;
	}
}

static int open_in(const char *folder, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", folder, name);

	return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
}

/* From here on its state is one that can be checked. */
static void begun_say(const char *folder, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s.begun", folder, name);

	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

static void begun_wait(const char *folder, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s.begun", folder, name);
	int64_t deadline_ms = clock_mono_ms() + BEGIN_MS_MAX;

	while (access(path, F_OK) < 0) {
		assert_true(clock_mono_ms() < deadline_ms);
		usleep(10000);
	}
}

/* Block by block, first in one file and then in the other. */
static void blocks_run(const char *folder)
{
	int first = open_in(folder, "blocks-1"), second = open_in(folder, "blocks-2");
	struct block block;

	for (uint64_t round = 1;; round++) {
		for (uint64_t i = 0; i < BLOCKS; i++) {
			block_fill(&block, round, i);
			if (pwrite(first, &block, sizeof(block), (off_t)(i * BLOCK_SIZE)) < 0 ||
				pwrite(second, &block, sizeof(block), (off_t)(i * BLOCK_SIZE)) <
					0) {
				_exit(1);
			}
		}
	}
}

/* How many blocks were written in all, if it is a state of the writer. */
static uint64_t blocks_check(const char *folder, const char *name)
{
	CLEANUP(close_p) int fd = open_in(folder, name);
	struct block block, wanted;
	uint64_t first = 0, last = 0, count = 0;

	for (uint64_t i = 0; i < BLOCKS; i++) {
		if (pread(fd, &block, sizeof(block), (off_t)(i * BLOCK_SIZE)) !=
			(ssize_t)sizeof(block)) {
			memset(&block, 0, sizeof(block)); /* of the first round */
		} else {
			block_fill(&wanted, block.round, i);
			assert_memory_equal(&block, &wanted, sizeof(block));
		}
		first = i == 0 ? block.round : first;
		assert_true(block.round == first || block.round + 1 == first);
		assert_true(i == 0 || block.round <= last);
		last = block.round;
		count += block.round;
	}
	return count;
}

/* ---- mmap ---- */

static void mapped_run(const char *folder)
{
	int fd = open_in(folder, "mapped");
	volatile uint64_t *words;

	if (ftruncate(fd, MAPPED_BYTES) < 0) {
		_exit(1);
	}
	begun_say(folder, "mapped");
	words = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	for (uint64_t round = 1;; round++) {
		for (size_t i = 0; i < WORDS; i++) {
			words[i * WORD_STRIDE] = round;
		}
	}
}

static void mapped_check(const char *folder)
{
	CLEANUP(close_p) int fd = open_in(folder, "mapped");
	static uint64_t words[WORDS * WORD_STRIDE];
	uint64_t last;

	assert_int_equal(pread(fd, words, sizeof(words), 0), sizeof(words));
	last = words[0];
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t word = words[i * WORD_STRIDE];

		assert_true(word == words[0] || word + 1 == words[0]);
		assert_true(word <= last);
		last = word;
	}
}

/* ---- rename ---- */

static void renamer_run(const char *folder)
{
	CLEANUP(free_p) char *next = xasprintf("%s/current.next", folder);
	CLEANUP(free_p) char *current = xasprintf("%s/current", folder);
	int history = open_in(folder, "history");
	struct block block;

	for (uint64_t round = 1;; round++) {
		int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

		block_fill(&block, round, 0);
		if (pwrite(history, &round, sizeof(round),
			    (off_t)((round - 1) % 100000 * sizeof(round))) < 0 ||
			write(fd, &block, sizeof(block)) < 0 || fsync(fd) < 0 ||
			rename(next, current) < 0) {
			_exit(1);
		}
		close(fd);
	}
}

static void renamer_check(const char *folder)
{
	CLEANUP(close_p) int fd = open_in(folder, "current");
	CLEANUP(close_p) int history = open_in(folder, "history");
	struct block block, wanted;
	uint64_t last = 0, round = 0;

	if (read(fd, &block, sizeof(block)) == 0) {
		return;
	}
	block_fill(&wanted, block.round, 0);
	assert_memory_equal(&block, &wanted, sizeof(block));
	while (read(history, &round, sizeof(round)) == (ssize_t)sizeof(round)) {
		last = round > last ? round : last;
	}
	assert_true(last == block.round || last == block.round + 1);
}

/* ---- folders ---- */

static void mover_run(const char *folder)
{
	CLEANUP(free_p) char *a = xasprintf("%s/box-a", folder);
	CLEANUP(free_p) char *b = xasprintf("%s/box-b", folder);

	if (mkdir(a, 0755) < 0) {
		_exit(1);
	}
	for (int i = 0; i < 30; i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%d", a, i);

		close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	}
	begun_say(folder, "box");
	for (;;) {
		if (rename(a, b) < 0 || rename(b, a) < 0) {
			_exit(1);
		}
	}
}

static void mover_check(const char *folder)
{
	CLEANUP(free_p) char *a = xasprintf("%s/box-a", folder);
	CLEANUP(free_p) char *b = xasprintf("%s/box-b", folder);
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;
	bool is_a = access(a, F_OK) == 0;

	assert_true(is_a != (access(b, F_OK) == 0));
	assert_ok(io_tree_usage(AT_FDCWD, is_a ? a : b, &usage, &err), &err);
	assert_int_equal(usage.files, 31);
}

/* ---- sqlite3, by Python's ---- */

static char database_run[] =
	"import sqlite3, sys\n"
	"c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
	"c.execute('pragma journal_mode=wal')\n"
	"c.execute('create table account(id integer primary key, value int)')\n"
	"c.execute('create table entry(id integer primary key, filler blob)')\n"
	"c.execute('insert into account values (1, 0), (2, 0)')\n"
	"open(sys.argv[1] + '.begun', 'w').close()\n"
	"while True:\n"
	"    c.execute('begin immediate')\n"
	"    c.execute('update account set value = value - 1 where id = 1')\n"
	"    c.execute('insert into entry(filler) values (randomblob(700))')\n"
	"    c.execute('update account set value = value + 1 where id = 2')\n"
	"    c.execute('delete from entry where id < (select max(id) - 500 from entry)')\n"
	"    c.execute('commit')\n";
static char database_check[] =
	"import sqlite3, sys\n"
	"c = sqlite3.connect(sys.argv[1])\n"
	"assert c.execute('pragma integrity_check').fetchall() == [('ok',)]\n"
	"a, b = (r[0] for r in c.execute('select value from account order by id'))\n"
	"n = c.execute('select coalesce(max(id), 0) from entry').fetchone()[0]\n"
	"assert -a == b == n, (a, b, n)\n";

static char python[] = "/usr/bin/python3", option[] = "-c";

static void database_start(struct live_kit *kit, const char *folder)
{
	CLEANUP(free_p) char *path = xasprintf("%s/data.db", folder);
	char *argv[] = {python, option, database_run, path, NULL};

	live_kit_spawn(kit, argv);
}

static void database_verify(const char *folder)
{
	CLEANUP(free_p) char *path = xasprintf("%s/data.db", folder);
	char *argv[] = {python, option, database_check, path, NULL};
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, NULL, &code, &err), &err);
	assert_int_equal(code, 0);
}

/* ---- all at once ---- */

static void writers_start(struct live_kit *kit, const char *folder)
{
	live_kit_start(kit, blocks_run, folder);
	live_kit_start(kit, mapped_run, folder);
	live_kit_start(kit, renamer_run, folder);
	live_kit_start(kit, mover_run, folder);
	database_start(kit, folder);
	begun_wait(folder, "mapped");
	begun_wait(folder, "box");
	begun_wait(folder, "data.db");
	usleep(300000);
}

static void all_check(const char *folder)
{
	uint64_t first = blocks_check(folder, "blocks-1");
	uint64_t second = blocks_check(folder, "blocks-2");

	assert_true(first == second || first == second + 1);
	mapped_check(folder);
	renamer_check(folder);
	mover_check(folder);
	database_verify(folder);
}

static int snapshots_wanted(void)
{
	const char *wanted = getenv("HOB_TEST_SNAPSHOTS");

	return wanted != NULL ? (int)strtol(wanted, NULL, 10) : SNAPSHOTS_DEFAULT;
}

static void test_writers_find_a_state_that_was(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *merged = NULL;
	CLEANUP(free_p) char *lower = NULL;
	CLEANUP(free_p) char *previous = NULL;
	int count = snapshots_wanted();
	int64_t pauses = 0, longest = 0;

	if (kit == NULL) {
		skip();
	}
	lower = live_kit_path(kit, "lower");
	merged = live_kit_path(kit, "merged");
	previous = live_kit_path(kit, "previous");
	/* So that it is copied up, and has the inode number of the lower one. */
	temp_write(lower, "mapped", "");
	live_kit_mount(kit);
	writers_start(kit, merged);
	for (int i = 0; i < count; i++) {
		assert_ok(live_kit_copy(kit), &kit->err);
		live_kit_keep(kit);
		all_check(previous);
		pauses += kit->report.pause_us;
		longest = kit->report.pause_us > longest ? kit->report.pause_us : longest;
		usleep((useconds_t)(i % 7 * 10000));
	}
	print_message("%s: %d snapshots, paused %lld us on average, %lld at most\n",
		kit->xfs ? "xfs" : "ext4", count, (long long)(pauses / count), (long long)longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_writers_find_a_state_that_was, live_kit_setup_ext4, live_kit_teardown),
		{"test_writers_find_a_state_that_was_on_xfs", test_writers_find_a_state_that_was,
			live_kit_setup_xfs, live_kit_teardown, NULL},
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
