/* What brings a workspace to another commit, given streams that nobody sane would send: whatever
 * they say, nothing outside the workspace and nothing of git's own changes, and what was not whole
 * changes nothing at all. */
#include "tests/lib/init_kit.h"
#include "tests/lib/test.h"

#include "base/memory.h"
#include "pool/sandbox/init_protocol.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ROUNDS 60
#define FILE_MODE 0100644

struct bench {
	struct init_kit *kit;
	char *script_begin; /* sets $w, the workspace, and $f, the folder around it */
	uint8_t head[APPLY_ID_SIZE];
	struct buffer stream;
};

static char *shell(struct bench *bench, const char *script)
{
	CLEANUP(free_p) char *whole = xasprintf("%s\n%s", bench->script_begin, script);
	struct kit_run run = {0};
	char *out;

	kit_run_shell(bench->kit, &run, whole);
	out = xstrdup(buffer_text(&run.out));
	assert_int_equal(run.error.kind, ERROR_NONE);
	if (run.result.code != 0) {
		fail_msg("%s: %d: %s", script, run.result.code, buffer_text(&run.err));
	}
	kit_run_done(&run);
	return out;
}

/* Everything below the folder, with content, but for git's own times. */
static char *look(struct bench *bench)
{
	return shell(bench,
		"cd \"$f\" && find . -path ./sandboxes -prune -o -type f -print0 | LC_ALL=C sort "
		"-z | xargs -0 sha256sum && find . -path ./sandboxes -prune -o ! -type f "
		"-printf '%p %y %l\\n' | LC_ALL=C sort");
}

static void workspace_make(struct bench *bench)
{
	free(shell(bench,
		"rm -rf \"$w\" && mkdir -p \"$w/src\" && cd \"$w\" && git init -q -b main . && "
		"echo one > one.txt && echo two > src/two.txt && ln -s /etc out && "
		"export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' "
		"&& git add -A && git -c user.name=a -c user.email=a commit -q -m first"));
}

static int bench_open(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));
	CLEANUP(free_p) char *head = NULL;

	if (init_kit_setup(state) != 0) {
		free(bench);
		return -1;
	}
	bench->kit = *state;
	bench->script_begin =
		xasprintf("f=%s; w=%s/w; export HOME=$f", bench->kit->folder, bench->kit->folder);
	buffer_init(&bench->stream, 0);
	workspace_make(bench);
	head = shell(bench, "git -C \"$w\" rev-parse HEAD");
	for (size_t i = 0; i < APPLY_ID_SIZE; i++) {
		unsigned byte = 0;

		assert_int_equal(sscanf(head + 2 * i, "%2x", &byte), 1);
		bench->head[i] = (uint8_t)byte;
	}
	*state = bench;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *bench = *state;

	free(shell(bench, "rm -rf \"$w\""));
	*state = bench->kit;
	buffer_done(&bench->stream);
	free(bench->script_begin);
	free(bench);
	return init_kit_teardown(state);
}

/* ---- streams ---- */

static void put(
	struct bench *bench, const struct apply_record *record, const char *path, const char *data)
{
	struct apply_record whole = *record;

	whole.path_length = (uint32_t)strlen(path);
	if (whole.data_length == 0) {
		whole.data_length = strlen(data);
	}
	buffer_add(&bench->stream, &whole, sizeof(whole));
	buffer_add(&bench->stream, path, strlen(path));
	buffer_add(&bench->stream, data, strlen(data));
}

static void put_begin(struct bench *bench)
{
	struct apply_record begin = {
		.type = APPLY_BEGIN, .version = APPLY_VERSION, .time = 1700000000};

	buffer_clear(&bench->stream);
	memcpy(begin.old_id, bench->head, sizeof(begin.old_id));
	memcpy(begin.new_id, bench->head, sizeof(begin.new_id));
	put(bench, &begin, "refs/heads/main", "");
}

static void put_file(struct bench *bench, const char *path, const char *data)
{
	put(bench, &(struct apply_record){.type = APPLY_CHANGE, .new_mode = FILE_MODE}, path, data);
}

static void put_end(struct bench *bench)
{
	put(bench, &(struct apply_record){.type = APPLY_END}, "", "");
}

/* The exit code of what applied the stream. */
static int apply(struct bench *bench)
{
	CLEANUP(free_p) char *workspace = xasprintf("%s/w", bench->kit->folder);
	char *argv[] = {workspace, NULL};
	struct exec_spec spec = {.argv = argv, .apply = true, .stdin_open = true};
	struct error err = ERROR_INIT;
	struct kit_run run = {0};
	int code;

	kit_run_start(bench->kit, &run, &spec);
	while (run.room < bench->stream.length && !run.ended) {
		init_kit_pause(bench->kit, 1);
	}
	if (!run.ended) {
		assert_ok(init_exec_write(run.exec, bench->stream.data, bench->stream.length, &err),
			&err);
		init_exec_write_end(run.exec);
	}
	init_kit_until(bench->kit, &run.ended);
	assert_int_equal(run.error.kind, ERROR_NONE);
	assert_int_equal(run.result.signal, 0);
	code = run.result.code;
	kit_run_done(&run);
	return code;
}

static void assert_refused(struct bench *bench, int code, const char *what)
{
	CLEANUP(free_p) char *before = look(bench);
	int got = apply(bench);
	CLEANUP(free_p) char *after = look(bench);

	if (got != code) {
		fail_msg("%s: ended with %d, not %d", what, got, code);
	}
	assert_string_equal(before, after);
}

/* ---- tests ---- */

/* That the streams below are refused for what is wrong with them, and for nothing else. */
static void test_a_good_one(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *text = NULL;

	put_begin(bench);
	put_file(bench, "src/new/deep.txt", "deep\n");
	put(bench, &(struct apply_record){.type = APPLY_CHANGE, .new_mode = 0120000}, "link",
		"../../etc/passwd");
	put_end(bench);
	assert_int_equal(apply(bench), APPLY_DONE);
	text = shell(bench, "cd \"$w\" && cat src/new/deep.txt && readlink link && ls .git");
	assert_non_null(strstr(text, "deep\n../../etc/passwd\n"));
	assert_null(strstr(text, "hob-sync"));
}

static void test_paths(void **state)
{
	static const char *const paths[] = {"../out.txt", "src/../../out.txt", "..", ".", "./x",
		"/tmp/hob-test-apply-absolute", "/", "", "a//b", "a/", ".git/config", ".GIT/config",
		".git", "src/.git/hooks/post-checkout", ".Git/hooks/x", "a/./b"};
	struct bench *bench = *state;
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		put_begin(bench);
		put_file(bench, "good.txt", "good\n");
		put_file(bench, paths[i], "bad\n");
		put_end(bench);
		assert_refused(bench, APPLY_UNTOUCHED, paths[i]);
	}
	assert_int_equal(stat("/tmp/hob-test-apply-absolute", &st), -1);
	/* With a zero byte in it. */
	put_begin(bench);
	buffer_add(&bench->stream,
		&(struct apply_record){
			.type = APPLY_CHANGE, .new_mode = FILE_MODE, .path_length = 4},
		sizeof(struct apply_record));
	buffer_add(&bench->stream, "a\0/b", 4);
	put_end(bench);
	assert_refused(bench, APPLY_UNTOUCHED, "a zero byte");
}

/* "out" is a symbolic link to /etc. */
static void test_through_links(void **state)
{
	struct bench *bench = *state;
	struct stat st;

	put_begin(bench);
	put_file(bench, "out/hob-test-apply", "bad\n");
	put_end(bench);
	assert_refused(bench, APPLY_CONFLICT, "through a link");
	assert_int_equal(stat("/etc/hob-test-apply", &st), -1);
	/* One that the stream itself brings. */
	put_begin(bench);
	put(bench, &(struct apply_record){.type = APPLY_CHANGE, .new_mode = 0120000}, "way",
		"/etc");
	put_file(bench, "way/hob-test-apply", "bad\n");
	put_end(bench);
	(void)apply(bench);
	assert_int_equal(stat("/etc/hob-test-apply", &st), -1);
}

static void test_names_of_packs_and_refs(void **state)
{
	static const char *const packs[] = {
		"pack-../../config", "../pack-x", "config", "pack-a/b", "", "/pack-x"};
	static const char *const refs[] = {"config", "refs/../config", "refs/heads/../../config",
		"hooks/post-checkout", "HEAD/..", "/refs/heads/x", "refs/", "refs//x", "", "index"};
	struct bench *bench = *state;

	for (size_t i = 0; i < ARRAY_SIZE(packs); i++) {
		put_begin(bench);
		put(bench, &(struct apply_record){.type = APPLY_OBJECTS}, packs[i], "bad\n");
		put_end(bench);
		assert_refused(bench, APPLY_UNTOUCHED, packs[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		put_begin(bench);
		put(bench, &(struct apply_record){.type = APPLY_REF}, refs[i], "bad\n");
		put_end(bench);
		assert_refused(bench, APPLY_UNTOUCHED, refs[i]);
	}
}

static void test_lengths_that_are_not_there(void **state)
{
	struct bench *bench = *state;
	struct apply_record record = {.type = APPLY_CHANGE, .new_mode = FILE_MODE};

	record.data_length = UINT64_C(1) << 30;
	put_begin(bench);
	put(bench, &record, "huge", "only this\n");
	assert_refused(bench, APPLY_CUT_OFF, "1 GiB that never comes");
	record.data_length = UINT64_MAX;
	put_begin(bench);
	put(bench, &record, "huge", "only this\n");
	assert_refused(bench, APPLY_UNTOUCHED, "2^64 bytes");
	record = (struct apply_record){
		.type = APPLY_CHANGE, .new_mode = 0120000, .data_length = 1 << 20};
	put_begin(bench);
	put(bench, &record, "link", "x");
	assert_refused(bench, APPLY_UNTOUCHED, "a link of 1 MiB");
	record = (struct apply_record){.type = APPLY_CHANGE, .path_length = UINT32_MAX};
	put_begin(bench);
	buffer_add(&bench->stream, &record, sizeof(record));
	assert_refused(bench, APPLY_UNTOUCHED, "a path of 4 GiB");
	record = (struct apply_record){.type = 77};
	put_begin(bench);
	put(bench, &record, "", "");
	put_end(bench);
	assert_refused(bench, APPLY_UNTOUCHED, "a record of no kind");
	record = (struct apply_record){.type = APPLY_BEGIN, .version = APPLY_VERSION};
	put_begin(bench);
	put(bench, &record, "refs/heads/main", "");
	put_end(bench);
	assert_refused(bench, APPLY_UNTOUCHED, "two beginnings");
}

static void test_cut_off_anywhere(void **state)
{
	struct bench *bench = *state;
	size_t whole;

	put_begin(bench);
	put_file(bench, "one.txt", "changed\n");
	put_file(bench, "new.txt", "new\n");
	put(bench, &(struct apply_record){.type = APPLY_REF}, "refs/heads/main", "bad\n");
	put_end(bench);
	whole = bench->stream.length;
	for (size_t length = 0; length < whole; length += 97) {
		bench->stream.length = length;
		assert_refused(bench, APPLY_CUT_OFF, "cut off");
	}
	bench->stream.length = whole;
}

/* Bytes changed at random: it ends by itself, and what is outside stays as it was. */
static void test_any_bytes(void **state)
{
	struct bench *bench = *state;
	uint32_t random = 12345;
	static const char outside[] = "cd \"$f\" && find . -maxdepth 1 | sort && "
				      "cat \"$w/.git/config\" && ls \"$w/.git/hooks\"";
	CLEANUP(free_p) char *before = shell(bench, outside);

	for (int round = 0; round < ROUNDS; round++) {
		CLEANUP(free_p) char *after = NULL;
		int code;

		put_begin(bench);
		put_file(bench, "src/three.txt", "three\n");
		put(bench, &(struct apply_record){.type = APPLY_CHANGE, .new_mode = 0120000}, "l",
			"one.txt");
		put(bench, &(struct apply_record){.type = APPLY_OBJECTS}, "pack-1.idx", "x");
		put_end(bench);
		for (int i = 0; i < 1 + round % 4; i++) {
			random = random * 1664525 + 1013904223;
			bench->stream.data[(random >> 8) % bench->stream.length] =
				(char)(random >> 24);
		}
		code = apply(bench);
		assert_true(code == APPLY_DONE || code == APPLY_CONFLICT ||
			    code == APPLY_UNTOUCHED || code == APPLY_CUT_OFF || code == APPLY_TORN);
		if (code == APPLY_DONE || code == APPLY_TORN) {
			workspace_make(bench);
		}
		after = shell(bench, outside);
		assert_string_equal(before, after);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_open, bench_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_good_one),
		TEST(test_paths),
		TEST(test_through_links),
		TEST(test_names_of_packs_and_refs),
		TEST(test_lengths_that_are_not_there),
		TEST(test_cut_off_anywhere),
		TEST(test_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
