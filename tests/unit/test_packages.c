/* Packages: what an exact version is for each manager, and what their reports say. */
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "builder/packages/packages.h"
#include "configs/environment.h"

#include "base/json.h"

static void test_deb_versions(void **state)
{
	static const char *const good[] = {"13.0.0-4+b2", "1:2.39.2-1.1", "2.10-3", "0~git20200101",
		"1.6-2.1+deb12u1", "20230311", "1-2-3", "5.0.0+really4.9"};
	static const char *const bad[] = {"", "a1", "1.*", "1.0-", "-1", "x:1.0", ":1", "1 2",
		"1_0", "1.0/bookworm", "latest", "1.0-1-", "1:"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(deb_version_is_valid(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (deb_version_is_valid(bad[i])) {
			fail_msg("\"%s\" is taken", bad[i]);
		}
	}
}

static void test_npm_versions(void **state)
{
	static const char *const good[] = {"5.4.5", "0.0.0", "1.0.0-rc.1", "1.0.0-0.3.7",
		"1.0.0+build.01", "1.0.0-x-y.z--", "10.20.30-beta+exp.sha.5114f85"};
	static const char *const bad[] = {"", "5", "5.4", "^5.4.5", "~5.4.5", "v5.4.5", "=5.4.5",
		"5.4.x", "*", "latest", "1.0.0-", "1.0.0-01", "01.0.0", "1.0.0+", "1.0.0 || 2.0.0",
		"1.0.0-a..b", "1.0.0.0", ">=1.0.0", "1.0.0-rc.1+a+b"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (!npm_version_is_valid(good[i])) {
			fail_msg("\"%s\" is refused", good[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (npm_version_is_valid(bad[i])) {
			fail_msg("\"%s\" is taken", bad[i]);
		}
	}
}

static void test_pip_versions(void **state)
{
	static const char *const good[] = {"2.2.0", "1", "1!2.0", "1.0a1", "1.0b2", "1.0rc3",
		"1.0.post1", "1.0.dev4", "1.0rc1.post2.dev3", "2.0+cpu.1", "2024.1", "0.0.0.0.1"};
	static const char *const bad[] = {"", "2.*", "2.2.0.*", "1.0-1", "v1.0", "1.0.0rc", "1.0.",
		"1.0alpha1", "1.0+", "1.0+A", "1.0+a-b", "01.0", "1.0.post", ">=1", "1.0 ",
		"latest", "1.0;python_version>'3'"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (!pip_version_is_valid(good[i])) {
			fail_msg("\"%s\" is refused", good[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (pip_version_is_valid(bad[i])) {
			fail_msg("\"%s\" is taken", bad[i]);
		}
	}
}

static void test_names(void **state)
{
	static const struct {
		enum package_manager manager;
		const char *text;
		enum package_state state;
		const char *name, *version;
	} rows[] = {
		{PACKAGE_APT, "ripgrep=13.0.0-4+b2", PACKAGE_EXACT, "ripgrep", "13.0.0-4+b2"},
		{PACKAGE_APT, "libc6:i386=2.36-9", PACKAGE_EXACT, "libc6:i386", "2.36-9"},
		{PACKAGE_APT, "g++=4:12.2.0-3", PACKAGE_EXACT, "g++", "4:12.2.0-3"},
		{PACKAGE_APT, "ripgrep", PACKAGE_LOOSE, "ripgrep", NULL},
		{PACKAGE_APT, "ripgrep=13*", PACKAGE_LOOSE, "ripgrep", NULL},
		{PACKAGE_APT, "ripgrep/bookworm", PACKAGE_LOOSE, "ripgrep", NULL},
		{PACKAGE_APT, "ripgrep-", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_APT, "-o=1", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_APT, "./a.deb", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_APT, "$(id)=1", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_NPM, "typescript@5.4.5", PACKAGE_EXACT, "typescript", "5.4.5"},
		{PACKAGE_NPM, "@types/node@20.12.7", PACKAGE_EXACT, "@types/node", "20.12.7"},
		{PACKAGE_NPM, "@types/node", PACKAGE_LOOSE, "@types/node", NULL},
		{PACKAGE_NPM, "typescript@latest", PACKAGE_LOOSE, "typescript", NULL},
		{PACKAGE_NPM, "typescript@^5.0.0", PACKAGE_LOOSE, "typescript", NULL},
		{PACKAGE_NPM, "a@npm:b@1.0.0", PACKAGE_LOOSE, "a", NULL},
		{PACKAGE_NPM, "../a", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_NPM, "--force", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_NPM, "a'b@1.0.0", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_PIP, "pandas==2.2.0", PACKAGE_EXACT, "pandas", "2.2.0"},
		{PACKAGE_PIP, "black[d,jupyter]==24.4.0", PACKAGE_EXACT, "black", "24.4.0"},
		{PACKAGE_PIP, "pandas>=2", PACKAGE_LOOSE, "pandas", NULL},
		{PACKAGE_PIP, "pandas==2.*", PACKAGE_LOOSE, "pandas", NULL},
		{PACKAGE_PIP, "pandas", PACKAGE_LOOSE, "pandas", NULL},
		{PACKAGE_PIP, "pandas===2.2.0", PACKAGE_LOOSE, "pandas", NULL},
		{PACKAGE_PIP, "-r req.txt", PACKAGE_NONSENSE, NULL, NULL},
		{PACKAGE_PIP, "a==1\n", PACKAGE_NONSENSE, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(free_p) char *name = NULL;
		CLEANUP(free_p) char *version = NULL;

		if (package_parse(rows[i].manager, rows[i].text, &name, &version) !=
			rows[i].state) {
			fail_msg("\"%s\" is something else", rows[i].text);
		}
		if (rows[i].name != NULL) {
			assert_string_equal(name, rows[i].name);
		}
		if (rows[i].version != NULL) {
			assert_string_equal(version, rows[i].version);
		}
	}
	assert_true(package_name_equal(PACKAGE_PIP, "Foo-_.Bar", "foo_bar"));
	assert_false(package_name_equal(PACKAGE_PIP, "foobar", "foo-bar"));
	assert_false(package_name_equal(PACKAGE_NPM, "foo-bar", "foo_bar"));
}

/* ---- refusals ---- */

static void refuse(const char *text, const char *message, const char *hint)
{
	struct error err;

	(void)env_refuse(text, &err);
	if (strstr(err.message, message) == NULL || strstr(err.hint, hint) == NULL) {
		fail_msg("\"%s\" (%s)", err.message, err.hint);
	}
}

static void test_refusals(void **state)
{
	(void)state;
	refuse("name: a\npackages:\n  apt:\n    - ripgrep\n",
		"webapp.yaml:4:7: \"packages.apt\" names no exact version of ripgrep",
		"`hob env pin webapp.yaml` writes in what it is now; `apt-cache policy ripgrep`");
	refuse("name: a\npackages: {npm: [typescript@latest]}\n",
		"webapp.yaml:2:18: \"packages.npm\" names no exact version of typescript",
		"npm view typescript");
	refuse("name: a\npackages: {pip: ['pandas>=2']}\n", "\"pandas>=2\" is not of the form",
		"pip index versions pandas");
	refuse("name: a\npackages: {pip: ['a-b==1', A.B==2]}\n", "names A.B twice", "");
	refuse("name: a\npackages: {apt: [\"--help\"]}\n", "names no package of apt", "ripgrep=");
	refuse("name: a\npackages: {gem: [rake]}\n", "gem", "");
	refuse("name: a\nfiles: [{url: 'http://h/a', path: /a}]\n", "sha256", "");
#define SUM "sha256: 'aa000000000000000000000000000000000000000000000000000000000000ff'"
	refuse("name: a\nfiles: [{url: 'http://h/a', " SUM "}]\n", "either \"path\" or", "unpack");
	refuse("name: a\nfiles: [{url: 'http://h/a', path: /a, unpack: /b, " SUM "}]\n",
		"either \"path\" or", "");
	refuse("name: a\nfiles: [{url: 'file:///a', path: /a, " SUM "}]\n", "http", "");
	refuse("name: a\nfiles: [{url: 'http://u:p@h/a', path: /a, " SUM "}]\n", "password", "");
	refuse("name: a\nfiles: [{url: 'http://h/a', path: /usr/bin/a, " SUM "}]\n", "read-only",
		"/opt");
	refuse("name: a\nbase: scratch\nfiles: [{url: 'http://h/a', path: /bin/a, " SUM "}]\n",
		"link", "/usr/bin/a");
	refuse("name: a\nfiles: [{url: 'http://h/a', path: /a, mode: 4755, " SUM "}]\n", "mode",
		"set-user-id");
	refuse("name: a\nfiles: [{url: 'http://h/a', path: /tmp/a, " SUM "}]\n", "own", "");
}

static void test_environment(void **state)
{
	CLEANUP(environment_free_p)
	struct environment *plain = env_parse("name: a\n");
	CLEANUP(environment_free_p)
	struct environment *e = env_parse("name: a\nenv: {A: b, Z: z}\npackages: {npm: "
					  "[\"a@1.0.0\"], pip: [\"b==1\"], apt: [\"cc=1\"]}\n");
	CLEANUP(environment_free_p)
	struct environment *own =
		env_parse("name: a\nenv: {PATH: /x}\npackages: {npm: [\"a@1.0.0\"]}\n");
	CLEANUP(free_p) char *text = environment_explain(e);
	CLEANUP(environment_free_p) struct environment *again = env_parse(text);

	(void)state;
	assert_null(plain->env[0]);
	assert_string_equal(e->env[0], "A=b");
	assert_true(str_starts(e->env[1], "LD_LIBRARY_PATH=/opt/hob/packages/apt/"));
	assert_true(str_starts(e->env[2],
		"PATH=/opt/hob/packages/pip/bin:/opt/hob/packages/npm/node_modules/.bin:"));
	assert_string_equal(e->env[3], "Z=z");
	assert_string_equal(own->env[0], "PATH=/x");
	assert_string_equal(e->fingerprint, again->fingerprint);
	assert_string_not_equal(plain->fingerprint, own->fingerprint);
}

/* ---- reports ---- */

static const char *member(const json_t *list, size_t index, const char *key)
{
	const char *text = json_string_value(json_object_get(json_array_get(list, index), key));

	return text != NULL ? text : "";
}

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_apt_report(void **state)
{
	char a[] = "hello=2.10-3", b[] = "base-files=12.4";
	char *const asked[] = {a, b, NULL};
	struct error err = ERROR_INIT;
	json_t *list = NULL;

	(void)state;
	assert_ok(installed_parse(PACKAGE_APT,
			  "hello\tamd64\t2.10-3\t" HEX "\nlibx\tall\t1\t" HEX "\n", asked, &list,
			  &err),
		&err);
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(member(list, 0, "name"), "hello");
	assert_string_equal(member(list, 0, "digest"), "sha256:" HEX);
	assert_true(json_is_true(json_object_get(json_array_get(list, 0), "requested")));
	assert_true(json_is_false(json_object_get(json_array_get(list, 1), "requested")));
	assert_string_equal(member(list, 2, "name"), "base-files");
	assert_true(json_is_null(json_object_get(json_array_get(list, 2), "digest")));
	json_decref(list);
	assert_kind(installed_parse(PACKAGE_APT, "hello\tamd64\t1\n", asked, &list, &err), &err,
		ERROR_CORRUPT);
	assert_kind(
		installed_parse(PACKAGE_APT, "he\033llo\tamd64\t1\t" HEX "\n", asked, &list, &err),
		&err, ERROR_CORRUPT);
	assert_kind(installed_parse(PACKAGE_APT, "hello\tamd64\t1\tnohex\n", asked, &list, &err),
		&err, ERROR_CORRUPT);
}

static void test_npm_report(void **state)
{
	static const char report[] =
		"{\"lockfileVersion\":3,\"packages\":{\"\":{\"name\":\"packages\"},"
		"\"node_modules/@a/b\":{\"version\":\"1.0.0\",\"integrity\":\"sha512-x==\"},"
		"\"node_modules/@a/b/node_modules/c\":{\"version\":\"2.0.0\"},"
		"\"node_modules/"
		"d-linux\":{\"version\":\"1.0.0\",\"optional\":true,\"os\":[\"win32\"]},"
		"\"node_modules/e\":{\"link\":true}}}";
	char a[] = "@a/b@1.0.0";
	char *const asked[] = {a, NULL};
	struct error err = ERROR_INIT;
	json_t *list = NULL;

	(void)state;
	assert_ok(installed_parse(PACKAGE_NPM, report, asked, &list, &err), &err);
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(member(list, 0, "name"), "@a/b");
	assert_string_equal(member(list, 0, "digest"), "sha512-x==");
	assert_string_equal(member(list, 1, "name"), "c");
	json_decref(list);
	assert_kind(installed_parse(PACKAGE_NPM, "[]", asked, &list, &err), &err, ERROR_CORRUPT);
	assert_kind(installed_parse(PACKAGE_NPM, "{}", asked, &list, &err), &err, ERROR_CORRUPT);
	assert_kind(
		installed_parse(PACKAGE_NPM, "{\"packages\":{\"node_modules/x\":{\"version\":7}}}",
			asked, &list, &err),
		&err, ERROR_CORRUPT);
}

static void test_pip_report(void **state)
{
	static const char report[] =
		"{\"version\":\"1\",\"install\":[{\"metadata\":{\"name\":\"Foo_Bar\",\"version\":"
		"\"1.0\"},\"download_info\":{\"url\":\"u\",\"archive_info\":{\"hash\":\"sha256=" HEX
		"\"}}},{\"metadata\":{\"name\":\"b\",\"version\":\"2\"},\"download_info\":{}}]}";
	char a[] = "foo-bar[x]==1.0";
	char *const asked[] = {a, NULL};
	struct error err = ERROR_INIT;
	json_t *list = NULL;

	(void)state;
	assert_ok(installed_parse(PACKAGE_PIP, report, asked, &list, &err), &err);
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(member(list, 0, "digest"), "sha256:" HEX);
	assert_true(json_is_true(json_object_get(json_array_get(list, 0), "requested")));
	assert_true(json_is_null(json_object_get(json_array_get(list, 1), "digest")));
	json_decref(list);
	assert_kind(installed_parse(PACKAGE_PIP, "{\"install\":[7]}", asked, &list, &err), &err,
		ERROR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deb_versions),
		cmocka_unit_test(test_npm_versions),
		cmocka_unit_test(test_pip_versions),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_apt_report),
		cmocka_unit_test(test_npm_report),
		cmocka_unit_test(test_pip_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
