/* The account of ended sandboxes: numbered without gaps over restarts and torn lines, bounded, and
 * no sandbox in it twice. */
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "base/io.h"
#include "pool/entry.h"
#include "pool/usage.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct entry sample(int number)
{
	struct entry entry = {.adopt_as = ENTRY_GONE, .release_reason = "idle"};

	snprintf(entry.record.id, sizeof(entry.record.id), "sb-%012d", number);
	snprintf(entry.record.environment, sizeof(entry.record.environment), "webapp");
	entry.record.image_id = 3;
	entry.record.claimed_ms = 1000;
	entry.record.meter = (struct entry_meter){.started_ms = 1000,
		.active_ms = 700,
		.cpu_us = 42,
		.memory_kib_s = 9,
		.sampled_ms = 2000,
		.ended_ms = 2000 + number};
	return entry;
}

static void add(struct usage_log *log, int number)
{
	struct entry entry = sample(number);
	struct error err = ERROR_INIT;

	assert_ok(usage_add(log, &entry, &err), &err);
}

static json_t *list(struct usage_log *log, struct usage_query query)
{
	CLEANUP(buffer_done) struct buffer lines;
	CLEANUP(free_p) char *text = NULL;
	struct error err = ERROR_INIT;
	json_t *json;

	buffer_init(&lines, 0);
	assert_ok(usage_list(log, &query, &lines, &err), &err);
	text = xasprintf("[%s]", buffer_text(&lines));
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	return json;
}

static int64_t number_at(const json_t *all, size_t i, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(all, i), key));
}

static int open_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_adds_and_lists(void **state)
{
	CLEANUP(temp_remove_p) char *folder = temp_folder();
	CLEANUP(close_p) int fd = open_folder(folder);
	struct usage_log *log = NULL;
	struct error err = ERROR_INIT;
	json_t *all;

	(void)state;
	assert_ok(usage_open(fd, &log, &err), &err);
	all = list(log, (struct usage_query){.limit = 10});
	assert_int_equal(json_array_size(all), 0);
	json_decref(all);
	for (int i = 1; i <= 5; i++) {
		add(log, i);
	}
	all = list(log, (struct usage_query){.limit = 10});
	assert_int_equal(json_array_size(all), 5);
	assert_int_equal(number_at(all, 0, "n"), 1);
	assert_int_equal(number_at(all, 4, "ended_ms"), 2005);
	assert_int_equal(number_at(all, 0, "active_ms"), 700);
	assert_int_equal(number_at(all, 0, "paused_ms"), 1001 - 700);
	assert_int_equal(number_at(all, 0, "cpu_us"), 42);
	assert_int_equal(number_at(all, 0, "memory_kib_s"), 9);
	json_decref(all);
	all = list(log, (struct usage_query){.after = 2, .limit = 2});
	assert_int_equal(json_array_size(all), 2);
	assert_int_equal(number_at(all, 0, "n"), 3);
	json_decref(all);
	all = list(log, (struct usage_query){.since_ms = 2005, .limit = 9});
	assert_int_equal(json_array_size(all), 1);
	json_decref(all);
	usage_close(log);
}

static void test_goes_on_after_a_torn_line(void **state)
{
	CLEANUP(temp_remove_p) char *folder = temp_folder();
	CLEANUP(free_p) char *path = xasprintf("%s/usage.jsonl", folder);
	CLEANUP(close_p) int fd = open_folder(folder);
	struct usage_log *log = NULL;
	struct error err = ERROR_INIT;
	struct stat stat_before;
	struct entry entry = sample(2);
	json_t *all;

	(void)state;
	assert_ok(usage_open(fd, &log, &err), &err);
	add(log, 1);
	add(log, 2);
	usage_close(log);
	assert_int_equal(stat(path, &stat_before), 0);
	assert_int_equal(truncate(path, stat_before.st_size - 20), 0);
	assert_ok(usage_open(fd, &log, &err), &err);
	/* The torn one does not count as written. */
	entry.adopt_as = ENTRY_RELEASING;
	entry.record.id[3] = '7';
	assert_ok(usage_add(log, &entry, &err), &err);
	/* The same again is what a killed hobd had written. */
	assert_ok(usage_add(log, &entry, &err), &err);
	all = list(log, (struct usage_query){.limit = 10});
	assert_int_equal(json_array_size(all), 2);
	assert_int_equal(number_at(all, 1, "n"), 2);
	json_decref(all);
	usage_close(log);
}

static void test_is_bounded(void **state)
{
	CLEANUP(temp_remove_p) char *folder = temp_folder();
	CLEANUP(close_p) int fd = open_folder(folder);
	struct usage_log *log = NULL;
	struct error err = ERROR_INIT;
	struct stat about;
	int count = 60000;
	json_t *all;

	(void)state;
	assert_ok(usage_open(fd, &log, &err), &err);
	for (int i = 1; i <= count; i++) {
		add(log, i);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
			fstatat(fd, i == 0 ? "usage.jsonl" : "usage.1.jsonl", &about, 0), 0);
		assert_in_range(about.st_size, 1, USAGE_FILE_BYTES + 1024);
	}
	all = list(log, (struct usage_query){.after = count - 3, .limit = 10});
	assert_int_equal(json_array_size(all), 3);
	json_decref(all);
	usage_close(log);
	assert_ok(usage_open(fd, &log, &err), &err);
	add(log, count + 1);
	all = list(log, (struct usage_query){.after = count, .limit = 10});
	assert_int_equal(number_at(all, 0, "n"), count + 1);
	json_decref(all);
	usage_close(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_adds_and_lists),
		cmocka_unit_test(test_goes_on_after_a_torn_line),
		cmocka_unit_test(test_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
