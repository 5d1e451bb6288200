/* How a source is fetched: what goes with which url, and what is missing. */
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "configs/environment.h"

struct mistake {
	const char *text, *message;
};

static void test_auth(void **state)
{
	static const struct mistake refused[] = {
		{"git@example.com:x/y.git\"", "needs a key"},
		{"git@example.com:x\", auth: {type: token, secret: a}", "https:// url only"},
		{"https://example.com/x\", auth: {type: ssh-key, secret: a}", "ssh remote only"},
		{"http://example.com/x\", auth: {type: token, secret: a}", "others can read"},
		{"http://127.0.0.1.evil.com/x\", auth: {type: token, secret: a}",
			"others can read"},
		{"https://example.com/x\", auth: {type: token}", "needs \"secret\""},
		{"https://example.com/x\", auth: {type: github-app, secret: a}", "needs \"app\""},
		{"https://example.com/x\", auth: {type: github-app, app: a, secret: b}",
			"takes no \"secret\""},
		{"https://example.com/x\", auth: {secret: a}", "has no type"},
		{"https://example.com/x\", auth: {type: token, secret: ../a}", "no valid name"},
		{"https://example.com/x\", auth: {type: token, secret: a, user: \"a:b\"}",
			"no user name"},
		{"ssh://git:hunter2@example.com/x\"", "holds a password"},
	};
	static const char *const accepted[] = {
		"git@example.com:x/y.git\", auth: {type: ssh-key, secret: a}",
		"ssh://example.com:2222/x\", auth: {type: ssh-key, secret: a, known_hosts: b}",
		"https://example.com/x\", auth: {type: token, secret: a, user: oauth2}",
		"http://127.0.0.1:80/x\", auth: {type: github-app, app: acme}",
		"https://example.com/x\", auth: {type: none}"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		CLEANUP(free_p)
		char *text = xasprintf("name: a\nsource: {url: \"%s}\n", refused[i].text);
		struct error err;

		assert_contains(env_refuse(text, &err), refused[i].message);
		assert_null(strstr(err.message, "hunter2"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(accepted); i++) {
		CLEANUP(free_p)
		char *text = xasprintf("name: a\nsource: {url: \"%s}\n", accepted[i]);

		environment_free(env_parse(text));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_auth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
