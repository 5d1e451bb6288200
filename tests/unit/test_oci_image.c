/* What images and registries say: references, challenges, indexes, manifests and configs, right
 * ones and wrong ones. */
#include "tests/lib/test.h"

#include "base/memory.h"
#include "builder/bases/oci_image.h"
#include "base/buffer.h"
#include "configs/oci_reference.h"

#include <stdio.h>
#include <string.h>

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B64 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void test_references(void **state)
{
	static const struct {
		const char *text, *name; /* NULL: refused */
	} rows[] = {
		{"debian", "docker.io/library/debian"},
		{"debian:12@sha256:" A64, "docker.io/library/debian:12"},
		{"team/app", "docker.io/team/app"},
		{"localhost/app", "localhost/app"},
		{"127.0.0.1:5000/a/b-c/d__e@sha256:" B64, "127.0.0.1:5000/a/b-c/d__e"},
		{"[::1]:5000/a", "[::1]:5000/a"},
		{"/srv/layout@sha256:" A64, "/srv/layout"},
		{"/srv/a@b@sha256:" A64, "/srv/a@b"},
		{"./a@b", "./a@b"},
		{"./a@sha256:" A64 "@sha256:" A64, NULL},
		{"a@sha256:" A64 "@sha256:" A64, NULL},
		{"", NULL},
		{"Debian", NULL},
		{"a..b", NULL},
		{"a/../b", NULL},
		{"-a.b/c", NULL},
		{"host.x:port/a", NULL},
		{"a:", NULL},
		{"a@sha256:abc", NULL},
		{"a@sha512:" A64, NULL},
		{"user@host.x/a", NULL},
		{"host.x/a?b", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct oci_reference reference = {0};
		const char *problem = NULL;
		bool good = oci_reference_parse(rows[i].text, &reference, &problem);
		CLEANUP(free_p) char *name = good ? oci_reference_name(&reference) : NULL;

		if (rows[i].name == NULL) {
			assert_false(good);
			assert_non_null(problem);
			continue;
		}
		assert_true(good);
		assert_string_equal(name, rows[i].name);
		assert_int_equal(
			reference.digest[0] != '\0', strstr(rows[i].text, "@sha256:") != NULL);
		oci_reference_done(&reference);
	}
}

static void test_loopback(void **state)
{
	(void)state;
	assert_true(oci_host_is_loopback("127.0.0.1:5000"));
	assert_true(oci_host_is_loopback("localhost"));
	assert_true(oci_host_is_loopback("[::1]:5000"));
	assert_false(oci_host_is_loopback("127.evil.example"));
	assert_false(oci_host_is_loopback("localhost.evil.example"));
	assert_false(oci_host_is_loopback("10.0.0.1:5000"));
}

static void test_challenges(void **state)
{
	struct oci_challenge challenge;

	(void)state;
	assert_true(oci_challenge_parse(" Bearer realm=\"https://auth.example/token\",service="
					"\"a \\\"b\\\"\", scope=\"repository:a/b:pull,push\"",
		&challenge));
	assert_false(challenge.basic);
	assert_string_equal(challenge.realm, "https://auth.example/token");
	assert_string_equal(challenge.service, "a \"b\"");
	assert_string_equal(challenge.scope, "repository:a/b:pull,push");
	assert_true(oci_challenge_parse("basic realm=x", &challenge));
	assert_true(challenge.basic);
	assert_false(oci_challenge_parse("Bearer service=\"x\"", &challenge));
	assert_false(oci_challenge_parse("Bearer realm=\"file:///etc/passwd\"", &challenge));
	assert_false(oci_challenge_parse("Bearer realm=\"https://unended", &challenge));
	assert_false(oci_challenge_parse("Digest realm=\"x\"", &challenge));
	assert_false(oci_challenge_parse("", &challenge));
}

static struct oci_image image;

static int manifest(const char *text, struct oci_blob *next, struct error *err)
{
	memset(&image, 0, sizeof(image));
	*err = ERROR_INIT;
	return oci_manifest_parse(text, strlen(text), "amd64", &image, next, err);
}

#define PLATFORM(digest, os, arch)                                                                 \
	"{\"digest\":\"sha256:" digest "\",\"size\":7,\"platform\":{\"os\":\"" os                  \
	"\",\"architecture\":\"" arch "\"}}"

static void test_indexes(void **state)
{
	struct error err = ERROR_INIT;
	struct oci_blob next = {0};

	(void)state;
	assert_ok(manifest("{\"manifests\":[" PLATFORM(A64, "windows", "amd64") "," PLATFORM(
				   B64, "linux", "amd64") "]}",
			  &next, &err),
		&err);
	assert_string_equal(next.sha256, B64);
	assert_int_equal(next.bytes, 7);
	assert_kind(manifest("{\"manifests\":[" PLATFORM(A64, "linux", "arm64") "]}", &next, &err),
		&err, ERROR_UNSUPPORTED);
	assert_non_null(strstr(err.message, "linux/arm64"));
	assert_kind(manifest("{\"manifests\":[]}", &next, &err), &err, ERROR_UNSUPPORTED);
}

#define CONFIG                                                                                     \
	"\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":"       \
	"\"sha256:" A64 "\",\"size\":2}"

static void test_manifests(void **state)
{
	struct error err = ERROR_INIT;
	struct oci_blob next = {0};

	(void)state;
	assert_ok(manifest("{" CONFIG ",\"layers\":[{\"digest\":\"sha256:" B64 "\",\"size\":9}]}",
			  &next, &err),
		&err);
	assert_string_equal(next.sha256, "");
	assert_int_equal(image.layer_count, 1);
	assert_string_equal(image.layers[0].sha256, B64);
	assert_string_equal(image.config.sha256, A64);
	assert_true(oci_image_is_sound(&image));
	image.layers[0].sha256[3] = '/';
	assert_false(oci_image_is_sound(&image));
	assert_kind(manifest("{" CONFIG ",\"layers\":[{\"digest\":\"sha256:../../x\",\"size\":9}]}",
			    &next, &err),
		&err, ERROR_CORRUPT);
	assert_kind(
		manifest("{" CONFIG ",\"layers\":[{\"digest\":\"sha256:" B64 "\",\"size\":-1}]}",
			&next, &err),
		&err, ERROR_CORRUPT);
	assert_kind(manifest("{\"layers\":[{}]}", &next, &err), &err, ERROR_UNSUPPORTED);
	assert_kind(manifest("{\"schemaVersion\":1}", &next, &err), &err, ERROR_UNSUPPORTED);
	assert_kind(manifest("[]", &next, &err), &err, ERROR_CORRUPT);
	assert_kind(manifest("{", &next, &err), &err, ERROR_CORRUPT);
}

static int config(const char *text, struct error *err)
{
	memset(&image, 0, sizeof(image));
	*err = ERROR_INIT;
	return oci_config_parse(text, strlen(text), "amd64", &image, err);
}

static void test_configs(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(
		config("{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Env\":[\"A=1\","
		       "\"nonsense\",\"=x\",3,\"B=\"],\"User\":\"7:8\",\"WorkingDir\":\"/srv\"}}",
			&err),
		&err);
	assert_string_equal(image.user, "7:8");
	assert_string_equal(image.workdir, "/srv");
	assert_int_equal(image.env_bytes, 7);
	assert_memory_equal(image.env, "A=1\0B=", 7);
	assert_ok(config("{\"os\":\"linux\",\"architecture\":\"amd64\"}", &err), &err);
	assert_int_equal(image.env_bytes, 0);
	assert_kind(config("{\"os\":\"linux\",\"architecture\":\"arm64\"}", &err), &err,
		ERROR_UNSUPPORTED);
	assert_kind(config("{}", &err), &err, ERROR_UNSUPPORTED);
}

static void test_layouts(void **state)
{
	static const struct {
		const char *text;
		enum error_kind kind;
		const char *says;
	} bad[] = {{"[]", ERROR_CORRUPT, "no JSON object"}, {"{}", ERROR_CORRUPT, "names no image"},
		{"{\"manifests\": []}", ERROR_CORRUPT, "names no image"},
		{"{\"manifests\": [{\"digest\": \"sha256:1\"}]}", ERROR_CORRUPT, "no sha256"},
		{"{\"manifests\": [{\"digest\": \"one\"}, {\"digest\": \"two\"}]}", ERROR_CONFLICT,
			"holds 2 images"}};
	CLEANUP(free_p)
	char *text = xasprintf("{\"manifests\": [{\"digest\": \"sha256:%064d\", \"size\": 3}]}", 5);
	CLEANUP(buffer_done) struct buffer many = {0};
	char sha256[SHA256_TEXT_SIZE] = "";
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(oci_layout_parse(text, strlen(text), sha256, &err), &err);
	assert_int_equal(strlen(sha256), 64);
	assert_int_equal(sha256[63], '5');
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_kind(oci_layout_parse(bad[i].text, strlen(bad[i].text), sha256, &err), &err,
			bad[i].kind);
		assert_contains(err.message, bad[i].says);
	}
	assert_contains(err.hint, "one (), two ()");
	buffer_add_str(&many, "{\"manifests\": [{}");
	for (int i = 0; i < 1000; i++) {
		buffer_addf(&many, ", {\"digest\": \"%080d\"}", i);
	}
	buffer_add_str(&many, "]}");
	assert_kind(oci_layout_parse(buffer_text(&many), many.length, sha256, &err), &err,
		ERROR_CONFLICT);
}

static void test_tokens(void **state)
{
	static const char *const good[] = {
		"{\"token\": \"a.b-c\"}", "{\"access_token\": \"a.b-c\", \"expires_in\": 3}"};
	static const char *const bad[] = {"", "x", "[]", "{}", "{\"token\": \"\"}",
		"{\"token\": 3}", "{\"token\": \"a b\"}", "{\"token\": \"a\\r\\nX: y\"}",
		"{\"token\": \"\\u00e4\"}"};
	struct error err = ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CLEANUP(free_p) char *token = NULL;

		assert_ok(oci_token_parse(good[i], strlen(good[i]), &token, &err), &err);
		assert_string_equal(token, "a.b-c");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *token = NULL;

		assert_kind(
			oci_token_parse(bad[i], strlen(bad[i]), &token, &err), &err, ERROR_REMOTE);
		assert_null(token);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_challenges),
		cmocka_unit_test(test_indexes),
		cmocka_unit_test(test_manifests),
		cmocka_unit_test(test_configs),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
