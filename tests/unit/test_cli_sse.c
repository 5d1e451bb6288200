/* Event streams: the rules of the standard, one byte at a time, and the caps. */
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "pool/cli/sse.h"

#define EVENT_MAX 64

static int on_event(void *context, const char *name, const char *data, size_t length,
	const char *last_id, struct error *err)
{
	struct buffer *seen = context;

	buffer_addf(seen, "[%s %s %.*s]", name, last_id, (int)length, data);
	return strcmp(name, "stop") == 0 ? error_set(err, ERROR_CANCELLED, "enough") : 0;
}

/* What the parser makes of a text fed in pieces. The caller frees it. */
static char *events_of(const char *text, size_t piece)
{
	struct error err = ERROR_INIT;
	struct buffer seen;
	struct sse *sse;
	size_t left = strlen(text);

	buffer_init(&seen, 0);
	sse = sse_new(EVENT_MAX, on_event, &seen);
	while (left > 0) {
		size_t length = left < piece ? left : piece;

		assert_ok(sse_feed(sse, text, length, &err), &err);
		text += length;
		left -= length;
	}
	sse_free(sse);
	return buffer_steal(&seen);
}

static void test_streams(void **state)
{
	static const struct {
		const char *text, *events;
	} cases[] = {
		{"event: stdout\ndata: {}\n\n", "[stdout  {}]"},
		{"data: a\ndata: b\n\ndata: c\n\n", "[message  a\nb][message  c]"},
		{"id: 7\ndata: a\n\ndata: b\n\n", "[message 7 a][message 7 b]"},
		{"data: a\r\ndata: b\r\n\r\n", "[message  a\nb]"},
		{"data: a\r\rdata: b\r\r", "[message  a][message  b]"},
		{"data:  two\ndata:none\ndata\n\n", "[message   two\nnone\n]"},
		{"\xef\xbb\xbf"
		 "data: a\n\n",
			"[message  a]"},
		{": comment\nretry: 5\nother: x\ndata: a\n\n", "[message  a]"},
		{"event: gone\n\ndata: a\n\n", "[message  a]"},
		{"data\n\n", "[message  ]"},
		{"data: without a blank line\n", ""},
		{"\n\n\n", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t piece = 1; piece < 8; piece++) {
			CLEANUP(free_p) char *events = events_of(cases[i].text, piece);

			assert_string_equal(events, cases[i].events);
		}
	}
}

static void assert_too_long(const char *line, size_t repeat)
{
	struct error err = ERROR_INIT;
	struct buffer seen;
	struct sse *sse;
	int status = 0;

	buffer_init(&seen, 0);
	sse = sse_new(EVENT_MAX, on_event, &seen);
	for (size_t i = 0; i < repeat && status >= 0; i++) {
		status = sse_feed(sse, line, strlen(line), &err);
	}
	assert_kind(status, &err, ERROR_LIMIT);
	assert_int_equal(seen.length, 0);
	sse_free(sse);
	buffer_done(&seen);
}

static void test_caps(void **state)
{
	(void)state;
	assert_too_long("data: 0123456789\n", EVENT_MAX); /* many lines of one event */
	assert_too_long("0123456789", EVENT_MAX); /* a line that does not end */
}

static void test_reader_stops(void **state)
{
	static const char text[] = "event: stop\ndata: a\n\ndata: b\n\n";
	struct error err = ERROR_INIT;
	struct buffer seen;
	struct sse *sse;

	(void)state;
	buffer_init(&seen, 0);
	sse = sse_new(EVENT_MAX, on_event, &seen);
	assert_kind(sse_feed(sse, text, strlen(text), &err), &err, ERROR_CANCELLED);
	assert_string_equal(buffer_text(&seen), "[stop  a]");
	sse_free(sse);
	buffer_done(&seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_reader_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
