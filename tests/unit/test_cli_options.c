/* The option parser of all verbs: every way to write an option, commands that stay as they are, and
 * refusals that help. */
#include "tests/lib/test.h"

#include "pool/cli/options.h"

struct values {
	bool flag, other;
	const char *text;
	char **list;
	int64_t span_ms;
};

static const struct option_row rows[] = {
	{"flag", 'f', OPTION_FLAG, NULL, offsetof(struct values, flag), ""},
	{"other", 'o', OPTION_FLAG, NULL, offsetof(struct values, other), ""},
	{"text", 't', OPTION_TEXT, "T", offsetof(struct values, text), ""},
	{"list", 'l', OPTION_LIST, "L", offsetof(struct values, list), ""},
	{"span", '\0', OPTION_DURATION, "DUR", offsetof(struct values, span_ms), ""},
};

struct parsed {
	struct values values;
	char **args;
	size_t count;
	struct error err;
	int status;
};

/* Words are separated by single spaces; "_" stands for an empty one. */
static void parse(struct parsed *parsed, const char *line, size_t command_after)
{
	const struct option_set set = {rows, ARRAY_SIZE(rows), &parsed->values};

	*parsed = (struct parsed){.err = ERROR_INIT};
	strv_add(&parsed->args, "");
	while (*line != '\0') {
		size_t length = strcspn(line, " ");
		CLEANUP(free_p) char *word = xstrndup(line, length);

		strv_add(&parsed->args, streq(word, "_") ? "" : word);
		line += length + (line[length] == ' ' ? 1 : 0);
	}
	/* The parser moves pointers within the list, so it gets one that owns nothing. */
	char **words = xcalloc(strv_count(parsed->args) + 1, sizeof(*words));

	for (size_t i = 1; parsed->args[i] != NULL; i++) {
		words[i - 1] = parsed->args[i];
	}
	parsed->status = options_parse(&set, 1, command_after, words, &parsed->count, &parsed->err);
	strv_free(parsed->values.list != NULL && parsed->status < 0 ? steal_ptr(parsed->values.list)
								    : NULL);
	/* Operands for the assertions: joined by '|'. */
	free(parsed->args[0]);
	parsed->args[0] = xstrdup("");
	for (size_t i = 0; parsed->status >= 0 && i < parsed->count; i++) {
		char *longer = xasprintf("%s%s%s", parsed->args[0], i > 0 ? "|" : "", words[i]);

		free(parsed->args[0]);
		parsed->args[0] = longer;
	}
	free(words);
}

static void parsed_done(struct parsed *parsed)
{
	const struct option_set set = {rows, ARRAY_SIZE(rows), &parsed->values};

	options_done(&set);
	strv_free(parsed->args);
}

static void test_ways_to_write(void **state)
{
	static const char *const lines[] = {"-f -t x --list a --list=b --span 90s",
		"-ft x -la -l b --span=90s", "--flag --text=x -l a -lb --span 1m30s",
		"-ftx --list=a --list b --span 90000ms"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct parsed parsed;

		parse(&parsed, lines[i], OPTIONS_NO_COMMAND);
		assert_ok(parsed.status, &parsed.err);
		assert_true(parsed.values.flag);
		assert_false(parsed.values.other);
		assert_string_equal(parsed.values.text, "x");
		assert_int_equal(strv_count(parsed.values.list), 2);
		assert_string_equal(parsed.values.list[1], "b");
		assert_int_equal(parsed.values.span_ms, 90000);
		assert_int_equal(parsed.count, 0);
		parsed_done(&parsed);
	}
}

static void test_operands(void **state)
{
	static const struct {
		const char *line;
		size_t command_after;
		const char *operands;
		bool flag;
	} cases[] = {
		{"a -f b", OPTIONS_NO_COMMAND, "a|b", true},
		{"a -- -f b", OPTIONS_NO_COMMAND, "a|-f|b", false},
		{"- _ a", OPTIONS_NO_COMMAND, "-||a", false},
		{"id ls -f", 1, "id|ls|-f", false},
		{"-f id ls -o", 1, "id|ls|-o", true},
		{"id -f ls -o", 1, "id|ls|-o", true},
		{"id -- ls -- -f", 1, "id|ls|--|-f", false},
		{"-- id ls -f", 1, "id|ls|-f", false},
		{"verb -f", 0, "verb|-f", false},
		{"-f verb --text", 0, "verb|--text", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parsed parsed;

		parse(&parsed, cases[i].line, cases[i].command_after);
		assert_ok(parsed.status, &parsed.err);
		assert_string_equal(parsed.args[0], cases[i].operands);
		assert_int_equal(parsed.values.flag, cases[i].flag);
		assert_false(parsed.values.other);
		parsed_done(&parsed);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *line, *message, *hint;
	} cases[] = {
		{"--flga", "unknown option --flga", "--flag"},
		{"--txet=x", "unknown option --txet", "--text"},
		{"--frobnicate", "unknown option --frobnicate", ""},
		{"-x", "unknown option -x", ""},
		{"-fx", "unknown option -x", ""},
		{"--flag=1", "--flag takes no value", ""},
		{"--text", "--text needs a value", ""},
		{"-t", "-t needs a value", ""},
		{"--span 90", "--span 90: not a duration", "30m"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parsed parsed;

		parse(&parsed, cases[i].line, OPTIONS_NO_COMMAND);
		assert_kind(parsed.status, &parsed.err, ERROR_USAGE);
		assert_contains(parsed.err.message, cases[i].message);
		assert_contains(parsed.err.hint, cases[i].hint);
		parsed_done(&parsed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ways_to_write),
		cmocka_unit_test(test_operands),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
