/* State lines and exec lines: what was written comes back, and nothing torn or foreign is believed.
 */
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "pool/record.h"

static struct entry_record sample(void)
{
	struct entry_record record = {.id = "sb-0123456789ab",
		.state = ENTRY_CLAIMED,
		.environment = "webapp",
		.image_id = 7,
		.snapshot_id = 11,
		.slot = 3,
		.pid = 4242,
		.pid_start = 998877,
		.created_ms = 1000,
		.claimed_ms = 2000,
		.expires_ms = 9000,
		.age_limit_ms = 8000,
		.idle_ms = 500,
		.last_active_ms = 2500,
		.pause_ms = 300,
		.paused_at_ms = 2600,
		.keep = true};

	strv_add(&record.env, "TOKEN=a \"b\"\n");
	record.metadata = json_pack("{s:s}", "who", "ada");
	return record;
}

static void test_round_trip(void **state)
{
	struct entry_record record = sample(), back;
	struct error err = ERROR_INIT;
	struct buffer line;

	(void)state;
	buffer_init(&line, 0);
	assert_true(entry_record_format(&record, &line));
	assert_int_equal(line.data[line.length - 1], '\n');
	assert_null(memchr(line.data, '\n', line.length - 1));
	assert_int_equal(entry_record_last(line.data, line.length, &back, &err), 0);
	assert_string_equal(back.id, record.id);
	assert_int_equal(back.state, ENTRY_CLAIMED);
	assert_string_equal(back.environment, "webapp");
	assert_int_equal(back.image_id, 7);
	assert_int_equal(back.snapshot_id, 11);
	assert_int_equal(back.slot, 3);
	assert_int_equal(back.pid, 4242);
	assert_int_equal(back.pid_start, 998877);
	assert_int_equal(back.expires_ms, 9000);
	assert_int_equal(back.age_limit_ms, 8000);
	assert_int_equal(back.idle_ms, 500);
	assert_int_equal(back.last_active_ms, 2500);
	assert_int_equal(back.pause_ms, 300);
	assert_int_equal(back.paused_at_ms, 2600);
	assert_true(back.keep);
	assert_string_equal(back.env[0], record.env[0]);
	assert_null(back.env[1]);
	assert_true(json_equal(back.metadata, record.metadata));
	entry_record_done(&back);
	entry_record_done(&record);
	buffer_done(&line);
}

/* Every cut of a file of two lines gives the first, until the second is whole. */
static void test_torn(void **state)
{
	struct entry_record record = sample(), back;
	struct error err = ERROR_INIT;
	struct buffer text;
	size_t first;

	(void)state;
	buffer_init(&text, 0);
	record.state = ENTRY_READY;
	assert_true(entry_record_format(&record, &text));
	first = text.length;
	record.state = ENTRY_CLAIMED;
	assert_true(entry_record_format(&record, &text));
	for (size_t length = 0; length <= text.length; length++) {
		int status = entry_record_last(text.data, length, &back, &err);

		if (length < first) {
			assert_int_equal(status, -ERROR_CORRUPT);
			continue;
		}
		assert_int_equal(status, 0);
		assert_int_equal(back.state, length < text.length ? ENTRY_READY : ENTRY_CLAIMED);
		entry_record_done(&back);
	}
	entry_record_done(&record);
	buffer_done(&text);
}

static void test_after_torn(void **state)
{
	struct entry_record record = sample(), back;
	struct error err = ERROR_INIT;
	struct buffer text;

	(void)state;
	buffer_init(&text, 0);
	buffer_add_str(&text, "{\"v\":1,\"id\":\"sb-");
	/* What entry_write does after a short write. */
	buffer_add_str(&text, "\n");
	assert_true(entry_record_format(&record, &text));
	buffer_add_str(&text, "\n");
	assert_int_equal(entry_record_last(text.data, text.length, &back, &err), 0);
	assert_int_equal(back.state, ENTRY_CLAIMED);
	entry_record_done(&back);
	entry_record_done(&record);
	buffer_done(&text);
}

static void test_hint(void **state)
{
	struct entry_record record = sample(), back;
	struct error err = ERROR_INIT;
	struct buffer line;

	(void)state;
	buffer_init(&line, 0);
	assert_true(entry_record_format(&record, &line));
	assert_int_equal(entry_record_last(line.data, line.length, &back, &err), 0);
	assert_string_equal(back.hint.key, "");
	entry_record_done(&back);
	record.state = ENTRY_READY;
	record.hint = (struct hint_record){.owner = "uid:1000", .key = "ada@C1", .ttl_ms = 60000};
	assert_true(entry_record_format(&record, &line));
	assert_int_equal(entry_record_last(line.data, line.length, &back, &err), 0);
	assert_string_equal(back.hint.owner, "uid:1000");
	assert_string_equal(back.hint.key, "ada@C1");
	assert_int_equal(back.hint.ttl_ms, 60000);
	entry_record_done(&back);
	/* A key that no caller could have given, or half a hint, is not believed. */
	record.hint.key[3] = '/';
	line.length = 0;
	assert_true(entry_record_format(&record, &line));
	assert_int_equal(entry_record_last(line.data, line.length, &back, &err), -ERROR_CORRUPT);
	record.hint = (struct hint_record){.key = "ada", .ttl_ms = 60000};
	line.length = 0;
	assert_true(entry_record_format(&record, &line));
	assert_int_equal(entry_record_last(line.data, line.length, &back, &err), -ERROR_CORRUPT);
	entry_record_done(&record);
	buffer_done(&line);
}

static void test_refused(void **state)
{
	static const char *const lines[] = {
		"",
		"[]",
		"{}",
		"{\"v\":2}",
		"{\"v\":1,\"id\":\"../"
		"x\",\"state\":\"ready\",\"environment\":\"a\",\"image\":1,\"slot\":0,"
		"\"created_ms\":1}",
		"{\"v\":1,\"id\":\"sb-1\",\"state\":\"happy\",\"environment\":\"a\",\"image\":1,"
		"\"slot\":0,"
		"\"created_ms\":1}",
		"{\"v\":1,\"id\":\"sb-1\",\"state\":\"ready\",\"environment\":\"a\",\"image\":1,"
		"\"created_ms\":1}",
		"{\"v\":1,\"id\":\"sb-1\",\"state\":\"ready\",\"environment\":\"a\",\"image\":1,"
		"\"slot\":-1,"
		"\"created_ms\":1}",
		"{\"v\":1,\"id\":\"sb-1\",\"state\":\"ready\",\"environment\":\"a\",\"image\":1,"
		"\"slot\":0,"
		"\"created_ms\":1,\"env\":{}}",
		"{\"v\":1,\"id\":\"sb-1\",\"state\":\"ready\",\"environment\":\"a\",\"image\":1,"
		"\"slot\":0,"
		"\"created_ms\":1,\"env\":[1]}",
	};
	struct entry_record record;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct error err = ERROR_INIT;

		assert_int_equal(entry_record_parse(lines[i], strlen(lines[i]), &record, &err),
			-ERROR_CORRUPT);
		assert_int_equal(err.kind, ERROR_CORRUPT);
	}
}

static void test_transitions(void **state)
{
	(void)state;
	assert_true(entry_state_may_follow(ENTRY_READY, ENTRY_CLAIMED));
	assert_true(entry_state_may_follow(ENTRY_RELEASING, ENTRY_GONE));
	for (int i = 0; i < ENTRY_STATES; i++) {
		enum entry_state back;

		/* A claimed sandbox never goes back to the pool, a gone one nowhere. */
		assert_int_equal(entry_state_may_follow(ENTRY_CLAIMED, (enum entry_state)i),
			i == ENTRY_RELEASING || i == ENTRY_PAUSED);
		assert_int_equal(entry_state_may_follow(ENTRY_PAUSED, (enum entry_state)i),
			i == ENTRY_RELEASING || i == ENTRY_CLAIMED);
		assert_false(entry_state_may_follow(ENTRY_GONE, (enum entry_state)i));
		assert_true(entry_state_from_name(entry_state_name((enum entry_state)i), &back));
		assert_int_equal(back, i);
	}
}

static void test_deadlines(void **state)
{
	struct entry_record record = {.last_active_ms = 1000};

	(void)state;
	assert_true(entry_record_deadline(&record, false) == INT64_MAX);
	record.idle_ms = 500;
	assert_int_equal(entry_record_deadline(&record, false), 1500);
	assert_string_equal(entry_record_deadline_name(&record, false), "idle");
	/* While a command runs the idle clock stands still. */
	assert_true(entry_record_deadline(&record, true) == INT64_MAX);
	record.expires_ms = 4000;
	record.age_limit_ms = 3000;
	assert_int_equal(entry_record_deadline(&record, true), 3000);
	assert_string_equal(entry_record_deadline_name(&record, true), "max_age");
	record.expires_ms = 2000;
	assert_string_equal(entry_record_deadline_name(&record, true), "timeout");
	assert_string_equal(entry_record_deadline_name(&record, false), "idle");
}

static void test_pause_clocks(void **state)
{
	struct entry_record record = {.last_active_ms = 1000, .idle_ms = 500};

	(void)state;
	assert_true(entry_record_pause_at(&record, false) == INT64_MAX);
	record.pause_ms = 200;
	assert_int_equal(entry_record_pause_at(&record, false), 1200);
	assert_true(entry_record_pause_at(&record, true) == INT64_MAX);
	/* A pause never hastens the end, nor does one from before the last activity matter. */
	record.paused_at_ms = 1400;
	assert_int_equal(entry_record_deadline(&record, false), 1900);
	record.paused_at_ms = 900;
	assert_int_equal(entry_record_deadline(&record, false), 1500);
	record.age_limit_ms = 1100;
	assert_int_equal(entry_record_deadline(&record, false), 1100);
}

struct seen {
	size_t count;
	uint32_t id;
	char first[32];
};

static void note(void *context, const struct exec_record *record)
{
	struct seen *seen = context;

	seen->count++;
	seen->id = record->id;
	snprintf(seen->first, sizeof(seen->first), "%s", record->argv[0]);
}

static void test_execs(void **state)
{
	char *argv[] = {(char *)(uintptr_t) "sh\n", (char *)(uintptr_t) "-c", NULL};
	struct exec_record record = {.id = 9, .started_ms = 5, .argv = argv};
	struct seen seen = {0};
	struct buffer text;

	(void)state;
	buffer_init(&text, 0);
	buffer_add_str(&text, "rubbish\n0 1 []\n5 x\n6 7 {}\n99999999999 1 []\n");
	exec_records_parse(text.data, text.length, note, &seen);
	assert_int_equal(seen.count, 0);
	exec_record_format(&record, &text);
	buffer_add_str(&text, "10 11 [\"torn");
	exec_records_parse(text.data, text.length, note, &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.id, 9);
	assert_string_equal(seen.first, "sh\n");
	buffer_done(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_after_torn),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hint),
		cmocka_unit_test(test_transitions),
		cmocka_unit_test(test_deadlines),
		cmocka_unit_test(test_pause_clocks),
		cmocka_unit_test(test_execs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
