/* Settings of what an image is made from: what each is called, may be, is by default and means. */
#include "configs/environment_rows.h"

#include "base/buffer.h"

#include <assert.h>
#include <stdio.h>

/* Each step is a layer, and overlayfs is fast up to 32 of them with base and sources. */
#define STEPS_MAX 24
#define SOURCES_MAX 4
#define STEP(member) .offset = offsetof(struct environment_step, member)
#define SOURCE(member) .offset = offsetof(struct environment_source, member)

static const char *const base_names[BASE_KINDS] = {
	[BASE_HOST] = "host", [BASE_TAR] = "tar", [BASE_SCRATCH] = "scratch"};
static const char *const auth_types[] = {"none", "token", "ssh-key", "github-app", NULL};
static const char *const network_words[] = {"none", "host", NULL};

const char *base_kind_name(enum base_kind kind)
{
	assert(kind < BASE_KINDS);
	return base_names[kind];
}

static int base_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	struct environment *environment = target;
	char found[96];

	if (node->kind == YAML_MAP) {
		environment->base = BASE_TAR;
		return settings_read_section(in, "base.", node, target, err);
	}
	if (node->kind == YAML_TEXT && streq(node->text, "host")) {
		environment->base = BASE_HOST;
		return 0;
	}
	if (node->kind == YAML_TEXT && streq(node->text, "scratch")) {
		environment->base = BASE_SCRATCH;
		return 0;
	}
	yaml_describe(node, found, sizeof(found));
	return setting_refuse(in, row, node, err, "expects %s, not %s", row->expects, found);
}

static void base_write(
	const struct setting *row, const void *target, int indent, struct buffer *out)
{
	const struct environment *environment = target;

	(void)row;
	if (environment->base != BASE_TAR) {
		buffer_addf(out, " %s\n", base_kind_name(environment->base));
		return;
	}
	buffer_addf(out, "\n%*star: ", indent + 2, "");
	yaml_write_text(out, environment->base_location);
	buffer_addf(out, "\n%*ssha256: \"%s\"\n", indent + 2, "", environment->base_sha256);
}

static const struct setting rows[] = {
	{.key = "name",
		.type = SETTING_TEXT,
		FIELD(name),
		.required = true,
		.check = check_environment_name,
		.expects = "a name of a-z, 0-9, \".\", \"_\", \"-\"",
		.about = "what the environment is called, on the command line and in the store"},
	{.key = "source",
		.type = SETTING_LIST,
		FIELD(sources),
		.single = true,
		.highest = SOURCES_MAX,
		.count_offset = offsetof(struct environment, source_count),
		.element_size = sizeof(struct environment_source),
		.about = "the git repository that the agents work on, or several"},
	{.key = "source[].url",
		.type = SETTING_TEXT,
		SOURCE(url),
		.required = true,
		.highest = 2048,
		.check = check_source_url,
		.expects = "a URL or path",
		.about = "http(s)://, git://, file:/// or a path; ./ and ../ count from this file"},
	{.key = "source[].ref",
		.type = SETTING_TEXT,
		SOURCE(ref),
		.highest = 255,
		.check = check_ref,
		.expects = "a branch, tag or commit",
		.fallback = "HEAD",
		.about = "what to check out; HEAD is the remote's default branch"},
	{.key = "source[].path",
		.type = SETTING_INNER_PATH,
		SOURCE(path),
		.fallback = "/workspace",
		.about = "where it stands in the sandbox"},
	{.key = "source[].auth",
		.type = SETTING_SECTION,
		.about = "how it is fetched, by names of secrets (see `secrets` of hob.yaml)"},
	{.key = "source[].auth.type",
		.type = SETTING_CHOICE,
		SOURCE(auth.type),
		.fallback = "none",
		.choices = auth_types,
		.about = "with nothing, a token by https, a key by ssh, or a GitHub App's token"},
	{.key = "source[].auth.secret",
		.type = SETTING_TEXT,
		SOURCE(auth.secret),
		.check = check_name,
		.expects = "the name of a secret",
		.derived = "none",
		.about = "token, ssh-key: which"},
	{.key = "source[].auth.user",
		.type = SETTING_TEXT,
		SOURCE(auth.user),
		.highest = 64,
		.check = check_auth_user,
		.expects = "a user name",
		.derived = "x-access-token with a token, the url's or git with a key",
		.about = "token, ssh-key: whose it is"},
	{.key = "source[].auth.app",
		.type = SETTING_TEXT,
		SOURCE(auth.app),
		.check = check_name,
		.expects = "a name of `github_apps` in hob.yaml",
		.derived = "none",
		.about = "github-app: which"},
	{.key = "source[].auth.known_hosts",
		.type = SETTING_TEXT,
		SOURCE(auth.known_hosts),
		.fallback = "known_hosts",
		.check = check_name,
		.expects = "the name of a secret",
		.about = "ssh-key: keys of hosts, as in ~/.ssh/known_hosts"},
	{.key = "base",
		.type = SETTING_CUSTOM,
		.fallback = "host",
		.read = base_read,
		.write = base_write,
		.expects = "host, scratch or {tar: …, sha256: …}",
		.about = "below the sources: this machine's /usr, nothing, or an archive"},
	{.key = "base.tar",
		.type = SETTING_TEXT,
		FIELD(base_location),
		.required = true,
		.highest = 2048,
		.check = check_tar_location,
		.expects = "a URL or path",
		.about = "the archive: http(s)://, file:/// or a path; ./ and ../ count from this "
			 "file"},
	{.key = "base.sha256",
		.type = SETTING_TEXT,
		FIELD(base_sha256),
		.required = true,
		.check = check_sha256,
		.expects = "64 hex digits",
		.about = "what `sha256sum FILE` prints for the archive"},
	{.key = "env",
		.type = SETTING_CUSTOM,
		FIELD(env),
		.derived = "none",
		.read = env_read,
		.write = env_write,
		.expects = "mapping of KEY: value",
		.about = "environment variables of steps, checks and commands"},
	{.key = "user",
		.type = SETTING_TEXT,
		FIELD(user),
		.highest = 64,
		.check = check_user,
		.expects = "a user name or uid[:gid]",
		.fallback = "root",
		.about = "who runs steps and commands, inside the sandbox"},
	{.key = "workdir",
		.type = SETTING_INNER_PATH,
		FIELD(workdir),
		.derived = "path of the first source, or /",
		.about = "where steps and commands start"},
	{.key = "steps",
		.type = SETTING_LIST,
		FIELD(steps),
		.highest = STEPS_MAX,
		.count_offset = offsetof(struct environment, step_count),
		.element_size = sizeof(struct environment_step),
		.about = "what is run to make the image, in order, each a layer of its own"},
	{.key = "steps[].name",
		.type = SETTING_TEXT,
		STEP(name),
		.required = true,
		.check = check_name,
		.expects = "a name of a-z, 0-9, \".\", \"_\", \"-\"",
		.about = "for logs and layers"},
	{.key = "steps[].run",
		.type = SETTING_TEXT,
		STEP(run),
		.required = true,
		.highest = RUN_BYTES_MAX,
		.check = check_run,
		.expects = "a command line for /bin/sh",
		.about = "the command, given to /bin/sh -c"},
	{.key = "steps[].secrets",
		.type = SETTING_CUSTOM,
		STEP(secrets),
		.derived = "none",
		.read = secrets_read,
		.write = inputs_write,
		.expects = "a list of names of secrets",
		.about = "in /run/secrets while it runs, by name; its layer must not hold them"},
	{.key = "steps[].inputs",
		.type = SETTING_CUSTOM,
		STEP(inputs),
		.derived = "everything",
		.read = inputs_read,
		.write = inputs_write,
		.expects = "a list of patterns",
		.about =
			"what it reads of the sources, as in .gitignore; unchanged: not run again"},
	{.key = "steps[].strict",
		.type = SETTING_BOOL,
		STEP(strict),
		.fallback = "false",
		.about = "hide what is not in its inputs from it"},
	{.key = "steps[].incremental",
		.type = SETTING_BOOL,
		STEP(incremental),
		.fallback = "false",
		.about = "run it over its previous result instead of from nothing"},
	{.key = "steps[].allow_failure",
		.type = SETTING_BOOL,
		STEP(allow_failure),
		.fallback = "false",
		.about = "go on when it fails, and keep what it wrote"},
	{.key = "steps[].timeout",
		.type = SETTING_DURATION,
		STEP(timeout_ms),
		.fallback = "30m",
		.lowest = SECOND,
		.highest = 7 * DAY,
		.about = "killed after this long"},
	{.key = "check",
		.type = SETTING_SECTION,
		.about = "the gate: run in a sandbox of the new image, which is published if it "
			 "succeeds"},
	{.key = "check.run",
		.type = SETTING_TEXT,
		FIELD(check.run),
		.required = true,
		.highest = RUN_BYTES_MAX,
		.check = check_run,
		.expects = "a command line for /bin/sh",
		.about = "the command, given to /bin/sh -c"},
	{.key = "check.timeout",
		.type = SETTING_DURATION,
		FIELD(check.timeout_ms),
		.fallback = "2m",
		.lowest = SECOND,
		.highest = DAY,
		.about = "failed after this long"},
	{.key = "build", .type = SETTING_SECTION, .about = "how the steps are run"},
	{.key = "build.network",
		.type = SETTING_SWITCH,
		FIELD(build_network),
		.fallback = "host",
		.choices = network_words,
		.about = "what steps reach: this machine's network, or nothing"},
	{.key = "build.timeout",
		.type = SETTING_DURATION,
		FIELD(build_timeout_ms),
		.fallback = "2h",
		.lowest = SECOND,
		.highest = 7 * DAY,
		.about = "for a whole build"},
	{.key = "schedule", .type = SETTING_SECTION, .about = "when hobd builds it"},
	{.key = "schedule.every",
		.type = SETTING_DURATION,
		FIELD(schedule.every_ms),
		.zero = true,
		.lowest = SECOND,
		.highest = YEAR,
		.derived = "build_every of hob.yaml, or 0 with a cron expression",
		.about = "how often; 0: by no interval"},
	{.key = "schedule.cron",
		.type = SETTING_TEXT,
		FIELD(schedule.cron_text),
		.highest = 255,
		.check = check_cron,
		.expects = "a cron expression",
		.about = "when: minute hour day month weekday, or @daily and its like"},
	{.key = "schedule.timezone",
		.type = SETTING_TEXT,
		FIELD(schedule.zone),
		.highest = 64,
		.check = check_zone,
		.expects = "a time zone such as Europe/Berlin",
		.derived = "this machine's",
		.about = "of the cron expression"},
	{.key = "schedule.jitter",
		.type = SETTING_DURATION,
		FIELD(schedule.jitter_ms),
		.zero = true,
		.fallback = "0",
		.lowest = SECOND,
		.highest = DAY,
		.about =
			"a time of the cron expression is later by up to this, by the name's hash"},
	{.key = "schedule.clean_every",
		.type = SETTING_DURATION,
		FIELD(clean_every_ms),
		.zero = true,
		.lowest = SECOND,
		.highest = YEAR,
		.fallback = "24h",
		.about = "a build this long after the last one from nothing reuses nothing; 0: "
			 "never"},
};

const struct setting_rows environment_image_rows = {rows, ARRAY_SIZE(rows)};
