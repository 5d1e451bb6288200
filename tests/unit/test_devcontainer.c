/* devcontainer.json: comments, what becomes what, and that nothing is dropped in silence. */
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "configs/environment.h"
#include "configs/import/devcontainer.h"

static const struct devcontainer_place place = {
	.file = "x/devcontainer.json", .url = "https://example.com/acme/app.git", .folder = "app"};

static char *import(const char *text)
{
	struct error err = ERROR_INIT;
	char *yaml = NULL;

	assert_ok(devcontainer_import(&place, text, strlen(text), &yaml, &err), &err);
	return yaml;
}

static void test_comments(void **state)
{
	static const char *const pairs[][2] = {
		{"{}", "{}"},
		{"{//x\n}", "{   \n}"},
		{"{/*\n*/}", "{  \n  }"},
		{"{\"a\":\"//\"}", "{\"a\":\"//\"}"},
		{"{\"a\":\"\\\"/*\"}", "{\"a\":\"\\\"/*\"}"},
		{"[1,]", "[1 ]"},
		{"[1, // x\n ]", "[1      \n ]"},
		{"[1,2]", "[1,2]"},
		{"{\"a\":\",]\",}", "{\"a\":\",]\" }"},
		{"/* never closed", "               "},
		{"// at the end", "             "},
		{"/**/{}", "    {}"},
		{"\"open", "\"open"},
		{"/", "/"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		CLEANUP(free_p) char *text = xstrdup(pairs[i][0]);

		json_comments_blank(text, strlen(text));
		assert_string_equal(text, pairs[i][1]);
	}
}

static void test_what_becomes_what(void **state)
{
	CLEANUP(free_p)
	char *yaml = import("{\"name\":\"My App (Node)!\",\"workspaceFolder\":\"/work\","
			    "\"containerEnv\":{\"A\":\"1\"},\"remoteEnv\":{\"A\":\"2\"},"
			    "\"onCreateCommand\":\"make 'deps'\",\"updateContentCommand\":[\"a b\","
			    "\"it's\"],\"postCreateCommand\":{\"x y\":\"one\",\"z\":[\"two\"]},"
			    "\"postStartCommand\":\"warm ${containerWorkspaceFolder}\","
			    "\"hostRequirements\":{\"cpus\":3,\"memory\":\"6gb\"}}");
	CLEANUP(environment_free_p) struct environment *e = env_parse(yaml);

	(void)state;
	assert_string_equal(e->name, "my-app-node");
	assert_string_equal(e->sources[0].path, "/work");
	assert_string_equal(e->workdir, "/work");
	assert_string_equal(e->env[0], "A=2");
	assert_int_equal(e->step_count, 4);
	assert_string_equal(e->steps[0].run, "make 'deps'");
	assert_string_equal(e->steps[1].run, "'a b' 'it'\\''s'");
	assert_true(e->steps[1].incremental);
	assert_string_equal(e->steps[2].name, "post-create-x-y");
	assert_string_equal(e->steps[3].run, "'two'");
	assert_int_equal(e->limits.cpu_millis, 3000);
	assert_int_equal(e->limits.memory_bytes, INT64_C(6) << 30);
	assert_contains(yaml, "run: \"warm /work\"");
}

static void test_nothing_is_dropped_in_silence(void **state)
{
	CLEANUP(free_p)
	char *yaml =
		import("{\"image\":\"debian:12\",\"features\":{\"ghcr.io/x/go:1\":{\"v\":1}},"
		       "\"forwardPorts\":[3000],\"remoteUser\":\"node\",\"mounts\":[\"a\\nb\"],"
		       "\"remoteEnv\":{\"P\":\"${containerEnv:PATH}\",\"N\":null},"
		       "\"privileged\":true,\"postStartCommand\":{\"a\":\"b\"}}");
	static const char *const wanted[] = {"debian:12", "ghcr.io/x/go:1", "3000", "node",
		"mounts", "${containerEnv:PATH}", "remoteEnv.N", "privileged: true",
		"postStartCommand"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		assert_contains(yaml, wanted[i]);
	}
	environment_free(env_parse(yaml));
}

static void test_an_image_by_digest(void **state)
{
	CLEANUP(free_p)
	char *yaml = import("{\"image\":\"ghcr.io/acme/dev:1@sha256:"
			    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\","
			    "\"remoteUser\":\"node\"}");
	CLEANUP(environment_free_p) struct environment *e = env_parse(yaml);

	(void)state;
	assert_contains(yaml, "oci:ghcr.io/acme/dev:1@sha256:e3b0");
	assert_string_equal(e->user, "node");
	assert_int_equal(e->base, BASE_OCI);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"", "[]", "{", "{\"name\"}", "nonsense"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = ERROR_INIT;
		char *yaml = NULL;

		assert_kind(devcontainer_import(&place, bad[i], strlen(bad[i]), &yaml, &err), &err,
			ERROR_INVALID);
		assert_contains(err.message, "x/devcontainer.json");
		assert_null(yaml);
	}
}

/* Odd types where a text is expected: nothing of them is taken, and nothing breaks. */
static void test_odd_types(void **state)
{
	CLEANUP(free_p)
	char *yaml = import("{\"name\":7,\"image\":[],\"features\":[],\"forwardPorts\":{},"
			    "\"remoteEnv\":[],\"onCreateCommand\":7,\"hostRequirements\":[],"
			    "\"workspaceFolder\":{},\"remoteUser\":1}");

	(void)state;
	environment_free(env_parse(yaml));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comments),
		cmocka_unit_test(test_what_becomes_what),
		cmocka_unit_test(test_nothing_is_dropped_in_silence),
		cmocka_unit_test(test_an_image_by_digest),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_odd_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
