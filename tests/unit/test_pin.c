/* Pinning: what the managers answer, and that only the right bytes of a file change. */
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "configs/deb_reference.h"
#include "configs/environment.h"
#include "configs/packages/pin.h"
#include "configs/packages/resolve.h"

static void assert_answer(char *answer, const char *wanted)
{
	if (wanted == NULL) {
		assert_null(answer);
	} else {
		assert_non_null(answer);
		assert_string_equal(answer, wanted);
	}
	free(answer);
}

static void test_answers(void **state)
{
	(void)state;
	assert_answer(resolve_apt_answer("ripgrep:\n  Installed: (none)\n  Candidate: 13.0.0-4+b2\n"
					 "  Version table:\n     14 500\n"),
		"13.0.0-4+b2");
	assert_answer(resolve_apt_answer("x:\n  Installed: 1\n  Candidate: (none)\n"), NULL);
	assert_answer(resolve_apt_answer(""), NULL);
	assert_answer(resolve_npm_answer("\"5.4.5\"\n"), "5.4.5");
	assert_answer(resolve_npm_answer("[\"5.4.4\", \"5.4.5\"]"), "5.4.5");
	assert_answer(resolve_npm_answer("{\"error\": {}}"), NULL);
	assert_answer(resolve_npm_answer("[]"), NULL);
	assert_answer(resolve_npm_answer("\"next'; rm -rf\""), NULL);
	assert_answer(resolve_pip_report("{\"install\":[{\"metadata\":{\"version\":\"2.2.0\"}}]}"),
		"2.2.0");
	assert_answer(resolve_pip_report("{\"install\":[]}"), NULL);
	assert_answer(
		resolve_pip_answer("pandas (2.2.0)\nAvailable versions: 2.2.0, 1.0\n"), "2.2.0");
	assert_answer(resolve_pip_answer("ERROR: nothing\n"), NULL);
}

static int asked; /* how often */

static int resolve(
	enum package_manager manager, const char *text, char **ret_version, struct error *err)
{
	asked++;
	if (strstr(text, "missing") != NULL) {
		return error_set(err, ERROR_NOT_FOUND, "no %s", text);
	}
	*ret_version = xstrdup(manager == PACKAGE_APT ? "1:2.0-3+b1" : "10.20.30");
	return 0;
}

static int digest(
	void *context, const struct pin_image *image, char **ret_digest, struct error *err)
{
	CLEANUP(free_p)
	char *said =
		xasprintf("%s %s %s", image->reference, image->user != NULL ? image->user : "-",
			image->secret != NULL ? image->secret : "-");

	asked++;
	if (strstr(said, "missing") != NULL) {
		return error_set(err, ERROR_NOT_FOUND, "no %s", said);
	}
	assert_string_equal(said, *(const char **)context);
	*ret_digest = xasprintf("sha256:%064d", 7);
	return 0;
}

static const char *expected; /* what is asked of a registry */
static const struct pin_asking asking = {resolve, digest, &expected};

static void pin(const char *before, const char *after)
{
	struct pin_result result = {0};
	struct error err = ERROR_INIT;

	assert_ok(pin_text("app.yaml", before, strlen(before), &asking, &result, &err), &err);
	assert_string_equal(result.before, before);
	assert_string_equal(result.after, after);
	pin_result_done(&result);
}

static void test_only_what_is_loose_changes(void **state)
{
	(void)state;
	pin("name: a\n", "name: a\n");
	pin("name: a\npackages: {}\n", "name: a\npackages: {}\n");
	asked = 0;
	pin("name: a\npackages: {apt: [x1=1.0], pip: [\"y==2\"]}\n",
		"name: a\npackages: {apt: [x1=1.0], pip: [\"y==2\"]}\n");
	assert_int_equal(asked, 0);
	pin("# ripgrep\nname: a   # ripgrep\npackages:\n  apt:   # all\n  - ripgrep  # fast\n"
	    "  - 'jq'\n\n  - \"tree=1.0\"\n  npm: [ typescript@^5 ,\t\"@types/node\" ]\n  pip:\n"
	    "    - \"black[d]>=1\"\nsteps: [{name: ripgrep, run: ripgrep}]\n",
		"# ripgrep\nname: a   # ripgrep\npackages:\n  apt:   # all\n"
		"  - ripgrep=1:2.0-3+b1  # fast\n  - 'jq=1:2.0-3+b1'\n\n  - \"tree=1.0\"\n"
		"  npm: [ typescript@10.20.30 ,\t\"@types/node@10.20.30\" ]\n  pip:\n"
		"    - \"black[d]==10.20.30\"\nsteps: [{name: ripgrep, run: ripgrep}]\n");
}

static void test_marks_and_line_ends(void **state)
{
	(void)state;
	/* Columns are of characters: two bytes, three, four. */
	pin("name: a\nenv: {\"Ä€😀\": \"x\"}\n\"packages\": {\"npm\": [\"x@1.0.0\", b]}\n",
		"name: a\nenv: {\"Ä€😀\": \"x\"}\n\"packages\": {\"npm\": [\"x@1.0.0\", "
		"b@10.20.30]}\n");
	pin("{name: a, about: \"Ä€😀\", packages: {npm: [b]}}",
		"{name: a, about: \"Ä€😀\", packages: {npm: [b@10.20.30]}}");
	pin("name: a\r\npackages:\r\n  npm:\r\n  - b\r\n",
		"name: a\r\npackages:\r\n  npm:\r\n  - b@10.20.30\r\n");
	pin("packages:\n  pip: [b]\n  npm:\n  - c\nname: a", "packages:\n  pip: [b==10.20.30]\n"
							     "  npm:\n  - c@10.20.30\nname: a");
}

static void refuse(const char *text, enum error_kind kind, const char *message)
{
	struct pin_result result = {0};
	struct error err = ERROR_INIT;

	assert_kind(pin_text("app.yaml", text, strlen(text), &asking, &result, &err), &err, kind);
	assert_non_null(strstr(err.message, message));
	assert_null(result.after);
}

static void test_what_cannot_be_pinned(void **state)
{
	(void)state;
	refuse("name: a\npackages: {npm: [\"\\x62\"]}\n", ERROR_INVALID, "app.yaml:2:18");
	refuse("name: a\npackages: {npm: [b, missing]}\n", ERROR_NOT_FOUND, "app.yaml:2:21");
	refuse("name: a\npackages:\n  npm:\n  - |-\n    b\n", ERROR_INVALID, "in place");
	refuse("name: [\n", ERROR_INVALID, "app.yaml");
}

#define DIGEST "sha256:0000000000000000000000000000000000000000000000000000000000000007"

static void test_images(void **state)
{
	(void)state;
	expected = "debian:12 - -";
	pin("name: a\npackages: {npm: [b]}\nbase: oci:debian:12 # now\n",
		"name: a\npackages: {npm: [b@10.20.30]}\nbase: oci:debian:12@" DIGEST " # now\n");
	expected = "host:5000/team/image robot token";
	pin("base:\n  user: robot\n  oci: \"host:5000/team/image\"\n  secret: token\nname: a\n",
		"base:\n  user: robot\n  oci: \"host:5000/team/image@" DIGEST "\"\n"
		"  secret: token\nname: a\n");
	expected = "/srv/envs/layout - -";
	{
		static const char text[] = "name: a\nbase: oci:./layout\n";
		struct pin_result result = {0};
		struct error err = ERROR_INIT;

		assert_ok(pin_text("/srv/envs/a.yaml", text, strlen(text), &asking, &result, &err),
			&err);
		assert_string_equal(result.after, "name: a\nbase: oci:./layout@" DIGEST "\n");
		assert_string_equal(result.changes[0].key, "base");
		pin_result_done(&result);
	}
	asked = 0;
	pin("name: a\nbase: oci:debian@" DIGEST "\n", "name: a\nbase: oci:debian@" DIGEST "\n");
	pin("name: a\nbase: host\n", "name: a\nbase: host\n");
	pin("name: a\nbase: oci:NOT/AN IMAGE\n", "name: a\nbase: oci:NOT/AN IMAGE\n");
	assert_int_equal(asked, 0);
	refuse("name: a\nbase: oci:missing:1\n", ERROR_NOT_FOUND, "app.yaml:2:7: no missing:1");
	refuse("name: a\nbase: \"oci:\\x6dissing\"\n", ERROR_NOT_FOUND, "app.yaml:2:7");
}

/* As the date is that of now, the rest is compared. */
static void pin_debian(const char *text, const char *start, const char *end)
{
	struct pin_result result = {0};
	struct error err = ERROR_INIT;
	int64_t date_ms = 0;
	char date[17] = "";

	assert_ok(pin_text("app.yaml", text, strlen(text), &asking, &result, &err), &err);
	assert_int_equal(result.count, 1);
	assert_true(str_starts(result.after, start));
	memcpy(date, result.after + strlen(start), 16);
	assert_true(deb_date_parse(date, &date_ms));
	assert_true(date_ms <= clock_real_ms());
	assert_string_equal(result.after + strlen(start) + 16, end);
	pin_result_done(&result);
}

static void test_debians(void **state)
{
	(void)state;
	pin_debian("base: deb:bookworm # x\nname: a\n", "base: deb:bookworm@", " # x\nname: a\n");
	pin_debian("name: a\nbase: {mirror: \"http://m\", deb: 'sid'}\n",
		"name: a\nbase: {mirror: \"http://m\", deb: 'sid@", "'}\n");
	pin("base: deb:sid@20240601T000000Z\n", "base: deb:sid@20240601T000000Z\n");
}

static void test_diff(void **state)
{
	static const char text[] = "name: a\npackages:\n  npm: [b, c]\n  pip:\n  - d\n";
	struct pin_result result = {0};
	struct error err = ERROR_INIT;
	CLEANUP(buffer_done) struct buffer diff = {0};

	(void)state;
	assert_ok(pin_text("app.yaml", text, strlen(text), &asking, &result, &err), &err);
	pin_diff("app.yaml", &result, &diff);
	assert_string_equal(buffer_text(&diff),
		"--- app.yaml\n+++ app.yaml\n@@ -3 +3 @@\n-  npm: [b, c]\n"
		"+  npm: [b@10.20.30, c@10.20.30]\n@@ -5 +5 @@\n-  - d\n+  - d==10.20.30\n");
	assert_int_equal(result.count, 3);
	assert_string_equal(result.changes[1].key, "packages.npm");
	assert_int_equal(result.changes[1].column, 12);
	pin_result_done(&result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_only_what_is_loose_changes),
		cmocka_unit_test(test_marks_and_line_ends),
		cmocka_unit_test(test_what_cannot_be_pinned),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_debians),
		cmocka_unit_test(test_diff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
