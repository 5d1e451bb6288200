/* Environments: what a good file gives, and for every kind of mistake the place and the words. */
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "base/digest.h"
#include "configs/environment.h"
#include "configs/settings.h"
#include "configs/yaml.h"

#include <limits.h>
#include <sys/stat.h>

static void test_defaults(void **state)
{
	CLEANUP(environment_free_p) struct environment *e = env_parse("name: webapp\n");

	(void)state;
	assert_string_equal(e->file, "/srv/envs/webapp.yaml");
	assert_string_equal(e->name, "webapp");
	assert_int_equal(e->source_count, 0);
	assert_int_equal(e->base, BASE_HOST);
	assert_null(e->env[0]);
	assert_string_equal(e->user, "root");
	assert_string_equal(e->workdir, "/");
	assert_int_equal(e->step_count, 0);
	assert_null(e->check.run);
	assert_true(e->build_network);
	assert_int_equal(e->build_timeout_ms, 2 * 3600 * 1000);
	assert_int_equal(e->schedule.every_ms, -1);
	assert_int_equal(e->clean_every_ms, 24 * 3600 * 1000);
	assert_int_equal(schedule_of(e, 1234).every_ms, 1234);
	assert_int_equal(e->pool_min, 1);
	assert_int_equal(e->pool_max, 20);
	assert_int_equal(e->limits.cpu_millis, 2000);
	assert_int_equal(e->limits.memory_bytes, INT64_C(4) << 30);
	assert_int_equal(e->limits.pids, 2048);
	assert_int_equal(e->limits.disk_bytes, INT64_C(10) << 30);
	assert_int_equal(e->idle_ms, 15 * 60 * 1000);
	assert_int_equal(e->max_age_ms, 8 * 3600 * 1000);
	assert_false(e->exit_snapshot);
	assert_int_equal(e->snapshots.keep_last, 0);
	assert_int_equal(e->snapshots.keep_for_ms, 0);
	assert_true(e->snapshots.keep_labelled);
	assert_true(digest_is_valid(e->fingerprint));
}

static const char full[] = "name: webapp\n"
			   "source:\n"
			   "  - {url: \"https://git.example.com/acme/webapp.git\", ref: main}\n"
			   "  - {url: ../lib, path: //opt/./lib/}\n"
			   "base: {tar: ./base.tar.zst, sha256: "
			   "AA000000000000000000000000000000000000000000000000000000000000FF}\n"
			   "env: {B: 'x: \"y\"', A: 1, EMPTY: \"\"}\n"
			   "user: 1000:1000\n"
			   "workdir: /workspace/app\n"
			   "steps:\n"
			   "  - name: deps\n"
			   "    run: |\n"
			   "      set -e\n"
			   "      npm ci\n"
			   "  - {name: test, run: npm test, allow_failure: true, timeout: 1h30m}\n"
			   "  - {name: make, run: make, inputs: [\"src/**\", '!*.md', a\\b], "
			   "strict: true, incremental: true}\n"
			   "  - {name: none, run: ls, inputs: []}\n"
			   "check: {run: npm --version, timeout: 10s}\n"
			   "build: {network: none, timeout: 45m}\n"
			   "schedule: {every: 0, clean_every: 0}\n"
			   "pool: {min: 0, max: 0}\n"
			   "limits: {cpus: 1.5, memory: 512MiB, pids: 0, disk: 1GB}\n"
			   "lifecycle: {idle: 0, max_age: 1d, snapshot: exit}\n"
			   "snapshots: {keep_last: 5, keep_for: 30d, keep_labelled: false}\n";

static void test_everything(void **state)
{
	CLEANUP(environment_free_p) struct environment *e = env_parse(full);

	(void)state;
	assert_int_equal(e->source_count, 2);
	assert_string_equal(e->sources[0].url, "https://git.example.com/acme/webapp.git");
	assert_string_equal(e->sources[0].ref, "main");
	assert_string_equal(e->sources[0].path, "/workspace");
	assert_string_equal(e->sources[1].url, "/srv/lib");
	assert_string_equal(e->sources[1].ref, "HEAD");
	assert_string_equal(e->sources[1].path, "/opt/lib");
	assert_int_equal(e->base, BASE_TAR);
	assert_string_equal(e->base_location, "/srv/envs/base.tar.zst");
	assert_true(digest_is_valid(e->base_sha256));
	assert_string_equal(e->env[0], "A=1");
	assert_string_equal(e->env[1], "B=x: \"y\"");
	assert_string_equal(e->env[2], "EMPTY=");
	assert_null(e->env[3]);
	assert_true(e->exit_snapshot);
	assert_string_equal(e->user, "1000:1000");
	assert_int_equal(e->step_count, 4);
	assert_null(e->steps[0].inputs);
	assert_int_equal(strv_count(e->steps[2].inputs), 3);
	assert_string_equal(e->steps[2].inputs[1], "!*.md");
	assert_true(e->steps[2].strict && e->steps[2].incremental);
	assert_non_null(e->steps[3].inputs);
	assert_null(e->steps[3].inputs[0]);
	assert_int_equal(e->clean_every_ms, 0);
	assert_string_equal(e->steps[0].run, "set -e\nnpm ci\n");
	assert_int_equal(e->steps[0].timeout_ms, 30 * 60 * 1000);
	assert_false(e->steps[0].allow_failure);
	assert_int_equal(e->steps[0].line, 10);
	assert_true(e->steps[1].allow_failure);
	assert_int_equal(e->steps[1].timeout_ms, 90 * 60 * 1000);
	assert_string_equal(e->check.run, "npm --version");
	assert_false(e->build_network);
	assert_int_equal(schedule_of(e, 1234).every_ms, 0);
	assert_int_equal(e->pool_max, 0);
	assert_int_equal(e->limits.cpu_millis, 1500);
	assert_int_equal(e->limits.memory_bytes, INT64_C(512) << 20);
	assert_int_equal(e->limits.disk_bytes, 1000000000);
	assert_int_equal(e->idle_ms, 0);
	assert_int_equal(e->snapshots.keep_last, 5);
	assert_int_equal(e->snapshots.keep_for_ms, INT64_C(30) * 86400 * 1000);
	assert_false(e->snapshots.keep_labelled);
}

/* What --explain prints is the same environment. */
static void test_lifecycles(void **state)
{
	static const struct {
		const char *text;
		int64_t idle_ms, pause_ms, max_age_ms;
	} rows[] = {
		{"", 900000, 0, 28800000},
		{"lifecycle: {pause: 1m}", 900000, 60000, 28800000},
		{"lifecycle: {type: hybrid}", 900000, 300000, 0},
		{"lifecycle: {type: hybrid, idle: 4s}", 4000, 2000, 0},
		{"lifecycle: {type: long-running}", 0, 0, 0},
		{"lifecycle: {type: long-running, pause: 1m, max_age: 1h}", 0, 60000, 3600000},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(free_p) char *text = xasprintf("name: a\n%s\n", rows[i].text);
		CLEANUP(environment_free_p) struct environment *e = env_parse(text);

		assert_int_equal(e->idle_ms, rows[i].idle_ms);
		assert_int_equal(e->pause_ms, rows[i].pause_ms);
		assert_int_equal(e->max_age_ms, rows[i].max_age_ms);
	}
}

static void test_explain_reads_back(void **state)
{
	static const char *const texts[] = {full, "name: webapp\n",
		"name: x\nenv: {A: \" a\", B: \"#b\", C: \"c \", D: \"\\e\\t\\\"\\\\\", E: \"- "
		"e\", "
		"F: \"null\", G: \"é: \"}\nsource: {url: /srv/x}\nsteps: [{name: a, run: \"a: "
		"b\\n\"}]"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CLEANUP(environment_free_p) struct environment *e = env_parse(texts[i]);
		CLEANUP(free_p) char *explained = environment_explain(e);
		CLEANUP(environment_free_p) struct environment *again = env_parse(explained);
		CLEANUP(free_p) char *explained_again = environment_explain(again);

		assert_string_equal(e->fingerprint, again->fingerprint);
		assert_string_equal(explained, explained_again);
	}
}

struct mistake {
	const char *text, *message;
};

static const struct mistake mistakes[] = {
	/* keys */
	{"name: a\nsource:\n  url: /x\nstpes:\n  - {}\n",
		"webapp.yaml:4:1: unknown key \"stpes\"; did you mean \"steps\"?"},
	{"name: a\nsteps:\n  - nmae: x\n    run: y\n",
		"webapp.yaml:3:5: unknown key \"nmae\"; did you mean \"name\"?"},
	{"name: a\nlimits: {memroy: 1GiB}\n", "unknown key \"memroy\"; did you mean \"memory\"?"},
	{"name: a\nbase: {tar: /x, sha: 1}\n", "unknown key \"sha\""},
	{"name: a\n\"k\\e[31m\": 1\n", "unknown key \"k?[31m\""},
	{"name: a\npool: {min: \"\\u009b31m\"}\n", "not \"??31m\""},
	{"name: a\nbanana: 1\n", "webapp.yaml:2:1: unknown key \"banana\""},
	{"name: a\nsteps: [{name: s, run: x, inputs: x}]\n", "expects a list of patterns"},
	{"name: a\nsteps: [{name: s, run: x, inputs: [../x]}]\n", "holds \"../x\""},
	{"name: a\nsteps: [{name: s, run: x, inputs: ['a[']}]\n", "without its \"]\""},
	{"name: a\nsteps: [{name: s, run: x, inputs: [{a: 1}]}]\n", "expects patterns, not"},
	{"name: a\nsteps: [{name: s, run: x, strict: true}]\n",
		"webapp.yaml:2:35: \"steps.strict\" of step \"s\" has no \"inputs\""},
	{"name: a\ngems: {}\n", "unknown key \"gems\""},
	{"name: a\nname: b\n", "webapp.yaml:2:1: duplicate key \"name\"; it is also in line 1"},
	{"source: {url: /x}\n", "webapp.yaml:1:1: \"name\" is missing"},
	{"", "webapp.yaml:1:1: \"name\" is missing"},
	{"# nothing\n", "\"name\" is missing"},
	{"name: a\nsource: {ref: main}\n", "webapp.yaml:2:9: \"source.url\" is missing"},
	{"name: a\nsteps: [{name: x}]\n", "\"steps.run\" is missing"},
	{"name: a\ncheck: {timeout: 5s}\n", "\"check.run\" is missing"},
	/* names */
	{"name: a/b\n", "webapp.yaml:1:7: \"name\" is no valid name"},
	{"name: ..\n", "\"name\" is no valid name"},
	{"name: img-12\n", "must not look like an image's id"},
	{"name: \"12\"\n", "must not look like an image's id"},
	{"name: a\nsteps: [{name: \"a b\", run: x}]\n", "\"steps.name\" is no valid name"},
	{"name: a\nsteps:\n  - {name: x, run: y}\n  - {name: x, run: z}\n",
		"webapp.yaml:4:12: two steps with the name \"x\"; the other is in line 3"},
	{"name: a\nsource:\n - url: /x\n - url: /y\n", "two sources with the path \"/workspace\""},
	{"name: a\nsource: [{url: /x, path: /w/}, {url: /y, path: //w}]\n",
		"two sources with the path"},
	/* types */
	{"name: [a]\n", "\"name\" expects a name"},
	{"name:\n", "\"name\" expects a name of a-z, 0-9, \".\", \"_\", \"-\", not nothing"},
	{"name: \"\"\n", "\"name\" is empty"},
	{"- a\n", "webapp.yaml:1:1: expects a mapping of keys to values, not a list"},
	{"just text", "expects a mapping of keys to values, not \"just text\""},
	{"name: a\nsteps: {name: x, run: y}\n",
		"\"steps\" expects a list of mappings, not a mapping"},
	{"name: a\nsteps: [make]\n", "an entry of \"steps\" expects a mapping"},
	{"name: a\nsource: /x\n", "\"source\" expects a mapping or a list of mappings, not \"/x\""},
	{"name: a\npool: 3\n",
		"webapp.yaml:2:7: \"pool\" expects a mapping of keys to values, not \"3\""},
	{"name: a\npool: {min: many}\n", "\"pool.min\" expects a whole number, not \"many\""},
	{"name: a\npool: {min: -1}\n", "\"pool.min\" expects a whole number, not \"-1\""},
	{"name: a\npool: {min: 1.5}\n", "\"pool.min\" expects a whole number"},
	{"name: a\nsteps: [{name: x, run: y, allow_failure: yes}]\n",
		"\"steps.allow_failure\" expects true or false, not \"yes\""},
	{"name: a\nschedule: {every: 30}\n",
		"webapp.yaml:2:19: \"schedule.every\" expects a duration such as \"30m\""},
	{"name: a\nlimits: {memory: 4096}\n",
		"\"limits.memory\" expects a size such as \"512MiB\""},
	{"name: a\nlimits: {memory: 4Gi}\n", "expects a size"},
	{"name: a\nlimits: {memory: 99999999999999999999TiB}\n", "expects a size"},
	{"name: a\nlimits: {cpus: two}\n", "expects a number of CPUs"},
	{"name: a\nlimits: {cpus: 0.0001}\n", "expects a number of CPUs"},
	{"name: a\nbuild: {network: hots}\n", "\"build.network\" expects one of none, host, not "
					      "\"hots\"; did you mean \"host\"?"},
	{"name: a\nbase: debian\n", "\"base\" expects host, scratch, oci:NAME"},
	/* ranges */
	{"name: a\npool: {min: 10001}\n", "\"pool.min\" is 10001; allowed is 0 to 10000"},
	{"name: a\npool:\n  min: 5\n  max: 4\n", "webapp.yaml:3:3: \"pool.min\" (5) is more than"},
	{"name: a\nlimits: {memory: 1MiB}\n",
		"\"limits.memory\" is 1MiB; allowed is 4MiB to 64TiB, or 0"},
	{"name: a\nsteps: [{name: x, run: y, timeout: 0}]\n",
		"\"steps.timeout\" is 0; allowed is 1s to 7d"},
	{"name: a\nsteps: [{name: x, run: \"  \"}]\n", "\"steps.run\" is empty"},
	/* lifecycles that contradict themselves */
	{"name: a\nlifecycle: {type: eternal}\n", "\"lifecycle.type\" expects one of ephemeral,"},
	{"name: a\nlifecycle:\n  snapshot_every: 1h\n",
		"webapp.yaml:3:19: \"lifecycle.snapshot_every\" is not for an ephemeral"},
	{"name: a\nlifecycle:\n  type: long-running\n  idle: 5m\n",
		"webapp.yaml:4:9: \"lifecycle.idle\" contradicts the type long-running"},
	{"name: a\nlifecycle:\n  type: hybrid\n  idle: 0\n",
		"webapp.yaml:4:9: \"lifecycle.idle\" is 0, but the type hybrid"},
	{"name: a\nlifecycle:\n  idle: 5m\n  pause: 5m\n",
		"webapp.yaml:4:10: \"lifecycle.pause\" would never come"},
	/* values */
	{"name: a\nbase: {tar: /x}\n", "\"base.sha256\" is missing"},
	{"name: a\nbase: deb:book/worm\n", "has no name of a suite"},
	{"name: a\nbase: deb:bookworm@2024\n", "has a date that is none"},
	{"name: a\nbase: {deb: bookworm, user: x}\n", "\"base.user\" does not go with"},
	{"name: a\nbase: {deb: bookworm, mirror: \"file:///x\"}\n", "expects http://"},
	{"name: a\nbase: {mirror: \"http://x\"}\n", "has none of \"tar\", \"oci\" and"},
	{"name: a\nbase: {tar: /x, sha256: abc}\n", "\"base.sha256\" expects 64 hex digits"},
	{"name: a\nbase: {tar: \"git://x/y\", sha256: abc}\n", "\"base.tar\" expects http"},
	{"name: a\nsource: {url: /x, path: workspace}\n",
		"\"source.path\" expects an absolute path"},
	{"name: a\nsource: {url: /x, path: /a/../b}\n", "expects a path without \"..\""},
	{"name: a\nsource: {url: /x, path: \"/a\\nb\"}\n", "control character"},
	{"name: a\nsource: {url: /x, path: /}\n", "\"source.path\" must not be /"},
	{"name: a\nsource: {url: /x, path: /usr/src}\n", "must not be in /usr"},
	{"name: a\nsource: {url: /x, ref: \"a b\"}\n", "\"source.ref\" is no name that git allows"},
	{"name: a\nsource: {url: /x, ref: --upload-pack=x}\n", "is no name that git allows"},
	{"name: a\nenv: {A-B: x}\n",
		"webapp.yaml:2:7: \"A-B\" is no name for an environment variable"},
	{"name: a\nenv: {\"A=\": x}\n", "is no name for an environment variable"},
	{"name: a\nenv: {A: }\n", "\"env.A\" expects a text, not nothing"},
	{"name: a\nenv: {A: [x]}\n", "\"env.A\" expects a text, not a list"},
	{"name: a\nenv: [A=x]\n", "\"env\" expects a mapping"},
	{"name: a\nuser: \"root:\"\n", "\"user\" expects a user name"},
	{"name: a\nuser: 65536\n", "below 65536"},
	/* YAML */
	{"name: a\nsteps:\n\t- x\n", "webapp.yaml:3:1: "},
	{"name: &x a\n", "webapp.yaml:1:7: anchors (&x) are not allowed"},
	{"name: a\nuser: *x\n", "webapp.yaml:2:7: aliases (*x) are not allowed"},
	{"name: !!str a\n", "webapp.yaml:1:7: tags"},
	{"name: a\n---\nname: b\n", "webapp.yaml:2:1: a second document"},
	{"name: \xff\n", "webapp.yaml:1:7: not a text in UTF-8"},
	{"\xff\xfe"
	 "n\0a",
		"not a text in UTF-8"},
	{"name: \"a\\0b\"\n", "a NUL character"},
	{"name: \"a\n", "webapp.yaml:"},
	{"? [a]\n: b\n", "a key must be a word"},
	{"name: a\nenv: {A: [[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]]}\n", "nested deeper than"},
};

static void test_mistakes(void **state)
{
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
		assert_contains(env_refuse(mistakes[i].text, &err), mistakes[i].message);
		assert_contains(err.message, "webapp.yaml:");
	}
}

static void test_hints(void **state)
{
	struct error err;

	(void)state;
	env_refuse("name: a\nbase: {tar: /x}\n", &err);
	assert_contains(err.hint, "sha256sum");
	env_refuse("name: a\nsteps:\n\t- x\n", &err);
	assert_contains(err.hint, "tab");
	env_refuse("name: a\nlimits: {foo: 1}\n", &err);
	assert_contains(err.hint, "cpus, memory, pids, disk");
}

/* A password never gets into a message, a log or the catalog. */
static void test_addresses(void **state)
{
	static const struct mistake refused[] = {
		{"https://bob:hunter2@example.com/x.git", "holds credentials"},
		{"http://hunter2@example.com", "holds credentials"},
		{"git://hunter2@example.com/x", "holds credentials"},
		{"ssh://hunter2@example.com/x.git", "an ssh remote needs a key"},
		{"hunter2@example.com:acme/x.git", "an ssh remote needs a key"},
		{"ftp://hunter2/x", "expects http://"},
		{"hunter2", "expects http://"},
		{"https:///hunter2", "names no host"},
		{"file://hunter2/x", "three slashes"},
		{"file:///srv/../hunter2", "no \"..\""},
		{"https://example.com/hunter2 x", "holds a space"},
	};
	static const struct mistake accepted[] = {
		{"https://example.com/a@b.git", "https://example.com/a@b.git"},
		{"git://example.com:9418/x", "git://example.com:9418/x"},
		{"file:///srv/git/x.git", "file:///srv/git/x.git"},
		{"/srv//git/./x/", "/srv/git/x"},
		{"..", "/srv"},
		{"./x/../../..", "/"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		CLEANUP(free_p)
		char *text = xasprintf("name: a\nsource: {url: \"%s\"}\n", refused[i].text);
		struct error err;

		assert_contains(env_refuse(text, &err), refused[i].message);
		assert_null(strstr(err.message, "hunter2"));
		assert_null(strstr(err.hint, "hunter2"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(accepted); i++) {
		CLEANUP(free_p)
		char *text = xasprintf("name: a\nsource: {url: \"%s\"}\n", accepted[i].text);
		CLEANUP(environment_free_p) struct environment *e = env_parse(text);

		assert_string_equal(e->sources[0].url, accepted[i].message);
	}
}

static void test_debian(void **state)
{
	CLEANUP(environment_free_p)
	struct environment *e = env_parse("name: a\nbase: deb:bookworm@20240601T000000Z\n");
	CLEANUP(environment_free_p)
	struct environment *full_form = env_parse("name: a\nbase:\n  components: main contrib\n"
						  "  deb: bookworm\n  keyring: ./k.gpg\n"
						  "  security: http://s/{date}\n"
						  "  mirror: http://m/{date}\n");
	CLEANUP(free_p) char *text = environment_explain(full_form);
	CLEANUP(environment_free_p) struct environment *again = env_parse(text);
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(e->base, BASE_DEB);
	assert_string_equal(e->base_location, "bookworm");
	assert_string_equal(e->base_date, "20240601T000000Z");
	assert_string_equal(e->base_mirror, "http://snapshot.debian.org/archive/debian/{date}");
	assert_string_equal(e->base_components, "main");
	assert_null(e->base_keyring);
	assert_ok(environment_check_pinned(e, &err), &err);
	assert_string_equal(again->base_components, "main contrib");
	assert_string_equal(again->base_mirror, "http://m/{date}");
	assert_string_equal(again->base_security, "http://s/{date}");
	assert_string_equal(again->base_keyring, "/srv/envs/k.gpg");
	assert_null(again->base_date);
	assert_int_equal(environment_check_pinned(full_form, &err), -ERROR_INVALID);
	assert_contains(err.message, ":4: \"base\" has no date");
	assert_contains(err.hint, "deb:bookworm@2");
}

static void fingerprint_of(const char *text, char *fingerprint)
{
	CLEANUP(environment_free_p) struct environment *e = env_parse(text);

	memcpy(fingerprint, e->fingerprint, SHA256_TEXT_SIZE);
}

static void test_fingerprint(void **state)
{
	static const char *const shaping[] = {"base: scratch\n", "env: {A: b}\n", "user: node\n",
		"workdir: /x\n", "build: {network: none}\n", "check: {run: x}\n",
		"steps: [{name: a, run: b}]\n", "steps: [{name: a, run: c}]\n",
		"steps: [{name: b, run: b}]\n", "steps: [{name: a, run: b, allow_failure: true}]\n",
		"source: {url: /x}\n", "source: {url: /y}\n", "source: {url: /x, ref: a}\n",
		"source: {url: /x, path: /y}\n", "base: deb:a@20240601T000000Z\n",
		"base: deb:a@20240602T000000Z\n",
		"base: {deb: a@20240601T000000Z, components: x}\n",
		"base: {deb: a@20240601T000000Z, security: \"http://x\"}\n",
		"base: {deb: a@20240601T000000Z, mirror: \"http://x\"}\n",
		"steps: [{name: a, run: b, inputs: []}]\n",
		"steps: [{name: a, run: b, inputs: [x]}]\n",
		"steps: [{name: a, run: b, inputs: [x], strict: true}]\n",
		"steps: [{name: a, run: b, incremental: true}]\n"};
	static const char *const others[] = {"pool: {min: 3}\n", "schedule: {every: 1h}\n",
		"limits: {memory: 1GiB}\n", "lifecycle: {idle: 1h}\n", "build: {timeout: 1h}\n",
		"schedule: {clean_every: 1h}\n"};
	char seen[ARRAY_SIZE(shaping) + 1][SHA256_TEXT_SIZE];

	(void)state;
	fingerprint_of("name: a\n", seen[ARRAY_SIZE(shaping)]);
	for (size_t i = 0; i < ARRAY_SIZE(shaping); i++) {
		CLEANUP(free_p) char *text = xasprintf("name: a\n%s", shaping[i]);

		fingerprint_of(text, seen[i]);
		for (size_t j = 0; j < i; j++) {
			assert_string_not_equal(seen[i], seen[j]);
		}
		assert_string_not_equal(seen[i], seen[ARRAY_SIZE(shaping)]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		CLEANUP(free_p) char *text = xasprintf("name: a\n%s", others[i]);
		char fingerprint[SHA256_TEXT_SIZE];

		fingerprint_of(text, fingerprint);
		assert_string_equal(fingerprint, seen[ARRAY_SIZE(shaping)]);
	}
	fingerprint_of("name: a\nenv: {A: 1, B: 2}\n", seen[0]);
	fingerprint_of("name: a\nenv: {B: 2, A: 1}\n", seen[1]);
	assert_string_equal(seen[0], seen[1]);
}

static void test_caps(void **state)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err;

	(void)state;
	buffer_init(&text, 0);
	buffer_add_str(&text, "name: a\nenv: {A: x");
	for (int i = 0; i < 300; i++) {
		buffer_addf(&text, ", A%d: x", i);
	}
	buffer_add_str(&text, "}\n");
	assert_contains(env_refuse(text.data, &err), "has more than 256 variables");

	buffer_clear(&text);
	buffer_add_str(&text, "name: a\nsteps: [");
	for (int i = 0; i < YAML_NODES_MAX; i++) {
		buffer_add_str(&text, "a,");
	}
	buffer_add_str(&text, "]\n");
	assert_contains(env_refuse(text.data, &err), "more than 10000 values");

	buffer_clear(&text);
	buffer_add_str(&text, "name: a\nsteps: [");
	for (int i = 0; i < 25; i++) {
		buffer_addf(&text, "{name: s%d, run: x},", i);
	}
	buffer_add_str(&text, "]\n");
	assert_contains(env_refuse(text.data, &err), "\"steps\" has 25 entries; at most 24");

	buffer_clear(&text);
	while (text.length <= YAML_BYTES_MAX) {
		buffer_add_str(&text, "# a line that only fills the file\n");
	}
	assert_contains(env_refuse(text.data, &err), "larger than 1048576 bytes");
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} cases[] = {{"0", 0}, {"1B", 1}, {"1kB", 1000}, {"1KiB", 1024}, {"1.5GiB", 1610612736},
		{"2 MiB", 2097152}, {"0.001kB", 1}, {"1", -1}, {"1.0001kB", -1}, {"0.0005MB", -1},
		{"GiB", -1}, {"1gib", -1}, {"-1MiB", -1}, {"1.GiB", -1}, {"9999999999TiB", -1},
		{"", -1}};
	char text[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t bytes = -1;

		assert_int_equal(size_parse(cases[i].text, &bytes), cases[i].bytes >= 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
	size_format(text, INT64_C(5) << 30);
	assert_string_equal(text, "5GiB");
	size_format(text, INT64_C(1500000000000));
	assert_string_equal(text, "1500GB");
	size_format(text, 1025);
	assert_string_equal(text, "1025B");
	size_format(text, 0);
	assert_string_equal(text, "0");
	cpus_format(text, 1500);
	assert_string_equal(text, "1.5");
	cpus_format(text, 10);
	assert_string_equal(text, "0.01");
	cpus_format(text, 20000);
	assert_string_equal(text, "20");
}

static void test_load(void **state)
{
	const char *folder = *state;
	CLEANUP(environment_free_p) struct environment *e = NULL;
	CLEANUP(free_p) char *good = xasprintf("%s/good.yaml", folder);
	CLEANUP(free_p) char *fifo = xasprintf("%s/fifo.yaml", folder);
	CLEANUP(free_p) char *missing = xasprintf("%s/missing.yaml", folder);
	CLEANUP(free_p) char *real = realpath(folder, NULL);
	struct error err = ERROR_INIT;

	temp_write(folder, "good.yaml", "name: good\nsource: {url: .}\n");
	assert_ok(environment_load(good, &e, &err), &err);
	assert_string_equal(e->file, good);
	assert_string_equal(e->sources[0].url, real);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	environment_free(steal_ptr(e));
	assert_kind(environment_load(fifo, &e, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "not a regular file");
	assert_kind(environment_load(missing, &e, &err), &err, ERROR_NOT_FOUND);
	assert_contains(err.message, "missing.yaml");
}

static void test_list(void **state)
{
	const char *folder = *state;
	struct environment_list list = {0};
	CLEANUP(free_p) char *none = xasprintf("%s/none", folder);
	struct error err = ERROR_INIT;

	temp_write(folder, "1.yaml", "name: zebra\n");
	temp_write(folder, "2.yaml", "name: ape\n");
	temp_write(folder, "3.yaml", "name: zebra\n");
	temp_write(folder, "4.yaml", "nmae: cat\n");
	temp_write(folder, "5.yml", "name: dog\n");
	temp_write(folder, ".6.yaml", "name: eel\n");
	assert_ok(environment_list_load(folder, &list, &err), &err);
	assert_int_equal(list.count, 2);
	assert_string_equal(list.items[0]->name, "ape");
	assert_string_equal(list.items[1]->name, "zebra");
	assert_contains(list.items[1]->file, "/1.yaml");
	assert_int_equal(list.failure_count, 2);
	assert_contains(list.failures[0].file, "/3.yaml");
	assert_contains(list.failures[0].error.message, "taken by");
	assert_contains(list.failures[1].error.message, "did you mean \"name\"");
	assert_ptr_equal(environment_list_find(&list, "ape"), list.items[0]);
	assert_null(environment_list_find(&list, "dog"));
	environment_list_done(&list);
	assert_kind(environment_list_load(none, &list, &err), &err, ERROR_NOT_FOUND);
}

/* The environments that come with hob. */
static void test_shipped(void **state)
{
	struct environment_list list = {0};
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(environment_list_load("configs/environments", &list, &err), &err);
	assert_int_equal(list.failure_count, 0);
	assert_non_null(environment_list_find(&list, "hob"));
	environment_list_done(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_lifecycles),
		cmocka_unit_test(test_explain_reads_back),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_debian),
		cmocka_unit_test(test_fingerprint),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test_setup_teardown(test_load, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_list, setup_folder, teardown_folder),
		cmocka_unit_test(test_shipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
