/* Webhooks: signatures, what bodies say, and which environments they concern. */
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "configs/environment.h"
#include "pool/api/hook.h"

/* GitHub's own example of its documentation. */
#define SECRET "It's a Secret to Everybody"
#define BODY "Hello, World!"
#define SIGNATURE "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

static void test_githubs_signature(void **state)
{
	static const char *const wrong[] = {NULL, "", "sha256=", SIGNATURE "0",
		"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
		"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e18"};
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(hook_check_github(SECRET, SIGNATURE, BODY, strlen(BODY), &err), &err);
	assert_kind(hook_check_github(SECRET, SIGNATURE, BODY, strlen(BODY) - 1, &err), &err,
		ERROR_DENIED);
	assert_kind(hook_check_github("other", SIGNATURE, BODY, strlen(BODY), &err), &err,
		ERROR_DENIED);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_kind(hook_check_github(SECRET, wrong[i], BODY, strlen(BODY), &err), &err,
			ERROR_DENIED);
	}
}

/* printf '1700000000.{}' | openssl dgst -sha256 -hmac key */
#define GENERIC "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"

static void test_an_old_signature_is_worth_nothing(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	assert_kind(hook_check_generic("key", GENERIC, NULL, 1700000000, "{}", 2, &err), &err,
		ERROR_DENIED);
	assert_kind(hook_check_generic("key", GENERIC, "1700000000x", 1700000000, "{}", 2, &err),
		&err, ERROR_DENIED);
	assert_kind(hook_check_generic("key", GENERIC, "1700000001", 1700000000, "{}", 2, &err),
		&err, ERROR_DENIED);
	assert_ok(
		hook_check_generic("key", GENERIC, "1700000000", 1700000300, "{}", 2, &err), &err);
	assert_kind(hook_check_generic("key", GENERIC, "1700000000", 1700000301, "{}", 2, &err),
		&err, ERROR_DENIED);
	assert_contains(err.message, "300 s");
	assert_kind(hook_check_generic("key", GENERIC, "1700000000", 1699999699, "{}", 2, &err),
		&err, ERROR_DENIED);
}

static void test_same_repository(void **state)
{
	static const char *const same[][2] = {
		{"https://github.com/acme/webapp.git", "git@github.com:acme/webapp.git"},
		{"https://github.com/acme/webapp", "ssh://git@GitHub.com:22/acme/webapp.git/"},
		{"http://token@git.example.com:8080/acme/webapp",
			"git://git.example.com/acme/webapp"},
		{"https://github.com/acme/webapp/", "https://github.com/acme/webapp"},
		{"file:///srv/git/x.git", "file:///srv/git/x"}};
	static const char *const other[][2] = {
		{"https://github.com/acme/webapp", "https://github.com/acme/webapp2"},
		{"https://github.com/acme/webapp", "https://github.com/acme/Webapp"},
		{"https://github.com/acme/webapp", "https://gitlab.com/acme/webapp"},
		{"https://evil.com/github.com/acme/webapp", "https://github.com/acme/webapp"},
		{"https://github.com@evil.com/acme/webapp", "https://github.com/acme/webapp"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		if (!hook_same_repository(same[i][0], same[i][1])) {
			fail_msg("%s is %s", same[i][0], same[i][1]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(other); i++) {
		if (hook_same_repository(other[i][0], other[i][1])) {
			fail_msg("%s is not %s", other[i][0], other[i][1]);
		}
	}
}

static struct environment *environment_of(const char *url, const char *ref)
{
	CLEANUP(free_p)
	char *text = xasprintf("name: webapp\nsource: {url: \"%s\", ref: \"%s\"}\n", url, ref);

	return env_parse(text);
}

static bool concerns(const char *event, const char *body, const char *url, const char *ref)
{
	CLEANUP(environment_free_p) struct environment *environment = environment_of(url, ref);
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct hook_push push = {0};
	struct error err = ERROR_INIT;

	assert_ok(json_parse_object(body, strlen(body), &json, &err), &err);
	if (event != NULL) {
		assert_ok(hook_parse_github(json, event, &push, &err), &err);
	} else {
		assert_ok(hook_parse_generic(json, &push, &err), &err);
	}
	return hook_concerns(&push, environment);
}

#define PUSH(ref, after)                                                                           \
	"{\"ref\":\"" ref "\",\"after\":\"" after "\",\"repository\":{\"clone_url\":"              \
	"\"https://github.com/acme/webapp.git\",\"ssh_url\":\"git@github.com:acme/webapp.git\","   \
	"\"default_branch\":\"trunk\"},\"pusher\":{}}"
#define URL "https://github.com/acme/webapp"

static void test_what_githubs_push_concerns(void **state)
{
	(void)state;
	assert_true(concerns("push", PUSH("refs/heads/trunk", "ab12"), URL, "HEAD"));
	assert_true(concerns("push", PUSH("refs/heads/trunk", "ab12"), URL, "trunk"));
	assert_true(concerns("push", PUSH("refs/heads/a/b", "ab12"), URL, "refs/heads/a/b"));
	assert_true(concerns("push", PUSH("refs/tags/v1", "ab12"), URL, "v1"));
	assert_false(concerns("push", PUSH("refs/heads/side", "ab12"), URL, "HEAD"));
	assert_false(concerns("push", PUSH("refs/heads/trunk", "ab12"), URL, "main"));
	assert_false(concerns("push", PUSH("refs/heads/trunk", "ab12"), URL "2", "HEAD"));
	assert_false(concerns("push", PUSH("refs/heads/trunk", "0000000000"), URL, "HEAD"));
	assert_false(concerns("ping", "{\"zen\":\"x\"}", URL, "HEAD"));
}

static void test_what_the_generic_one_concerns(void **state)
{
	(void)state;
	assert_true(concerns(NULL, "{\"environment\":\"webapp\"}", URL, "HEAD"));
	assert_false(concerns(NULL, "{\"environment\":\"other\"}", URL, "HEAD"));
	assert_true(concerns(NULL, "{\"url\":\"" URL "\"}", URL, "main"));
	assert_true(concerns(NULL, "{\"url\":\"" URL "\",\"ref\":\"main\"}", URL, "main"));
	assert_false(concerns(NULL, "{\"url\":\"" URL "\",\"ref\":\"main\"}", URL, "side"));
}

static void test_nonsense_is_refused(void **state)
{
	static const char *const github[] = {"{}", "{\"repository\":7}", "{\"repository\":{}}",
		"{\"repository\":{\"url\":7},\"ref\":\"x\"}", "{\"repository\":{\"url\":\"x\"}}",
		"{\"repository\":{\"url\":\"x\"},\"ref\":[]}"};
	static const char *const generic[] = {"{}", "{\"env\":\"x\"}", "{\"environment\":7}",
		"{\"environment\":\"x\",\"url\":\"y\"}"};
	struct hook_push push;
	struct error err = ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(github); i++) {
		CLEANUP(json_decref_p) json_t *json = json_loads(github[i], 0, NULL);

		assert_kind(hook_parse_github(json, "push", &push, &err), &err, ERROR_INVALID);
	}
	for (size_t i = 0; i < ARRAY_SIZE(generic); i++) {
		CLEANUP(json_decref_p) json_t *json = json_loads(generic[i], 0, NULL);

		assert_kind(hook_parse_generic(json, &push, &err), &err, ERROR_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_githubs_signature),
		cmocka_unit_test(test_an_old_signature_is_worth_nothing),
		cmocka_unit_test(test_same_repository),
		cmocka_unit_test(test_what_githubs_push_concerns),
		cmocka_unit_test(test_what_the_generic_one_concerns),
		cmocka_unit_test(test_nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
