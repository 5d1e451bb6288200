/* What an environment's values must be. Addresses are refused without being repeated in the
 * message: they may hold a password. */
#include "configs/environment_checks.h"

#include "base/digest.h"
#include "base/io.h"
#include "base/path.h"
#include "configs/environment.h"
#include "configs/environment_packages.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>

/* Goes to hob-init in one packet of 60 kB together with a command. */
#define ENV_BYTES_MAX 24576
#define ENV_ENTRIES_MAX 256

char *folder_of_file(const char *file)
{
	const char *slash = strrchr(file, '/');
	CLEANUP(free_p)
	char *folder = slash == NULL   ? xstrdup(".")
		       : slash == file ? xstrdup("/")
				       : xstrndup(file, (size_t)(slash - file));
	char *real = realpath(folder, NULL);
	char here[PATH_MAX];

	if (real != NULL) {
		return real;
	}
	return path_resolve(getcwd(here, sizeof(here)) != NULL ? here : "/", folder);
}

int check_name(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	if (name_is_valid(*text)) {
		return 0;
	}
	return setting_refuse(in, row, node, err,
		"is no valid name: 1 to %d of a-z, 0-9, \".\", \"_\" and \"-\", starting with a "
		"letter, "
		"digit or \"_\"",
		NAME_MAX_LENGTH);
}

int check_environment_name(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *digits = str_starts(*text, "img-") ? *text + 4 : *text;

	if (digits[0] != '\0' && digits[strspn(digits, "0123456789")] == '\0') {
		return setting_refuse(in, row, node, err,
			"must not look like an image's id, as \"%.64s\" does", *text);
	}
	return check_name(in, row, node, text, err);
}

/* "user:password@" or "token@" between the scheme and the next slash. */
static bool has_credentials(const char *after_scheme)
{
	return memchr(after_scheme, '@', strcspn(after_scheme, "/?#")) != NULL;
}

/* A user is no secret, a password is. */
static int check_ssh_url(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *url, struct error *err)
{
	const char *scheme = strstr(url, "://");
	const char *start = scheme != NULL ? scheme + 3 : url;
	const char *at = memchr(start, '@', strcspn(start, "/"));

	if (scheme != NULL && at != NULL && memchr(start, ':', (size_t)(at - start)) != NULL) {
		return setting_refuse(in, row, node, err, "holds a password (text before \"@\")");
	}
	return 0;
}

/* scp's form: something with a colon before its first slash, which is no scheme. */
static bool is_scp_form(const char *url)
{
	const char *colon = strchr(url, ':');
	const char *slash = strchr(url, '/');

	return colon != NULL && (slash == NULL || colon < slash) && !str_starts(colon, "://");
}

bool url_is_ssh(const char *url)
{
	return str_starts(url, "ssh://") || str_starts(url, "git+ssh://") ||
	       str_starts(url, "ssh+git://") || is_scp_form(url);
}

static bool is_relative(const char *url)
{
	return streq(url, ".") || streq(url, "..") || str_starts(url, "./") ||
	       str_starts(url, "../");
}

static void replace_text(char **text, char *with)
{
	free(*text);
	*text = with;
}

static int check_remote_url(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *after_scheme, struct error *err)
{
	if (has_credentials(after_scheme)) {
		setting_refuse(in, row, node, err, "holds credentials (text before \"@\")");
		return error_hint(err,
			"leave them out: this file, the catalog and the logs are no place "
			"for secrets");
	}
	if (strcspn(after_scheme, "/?#:") == 0) {
		return setting_refuse(in, row, node, err, "names no host");
	}
	return 0;
}

static int check_location(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, bool git, char **text, struct error *err)
{
	const char *url = *text;

	for (const char *at = url; *at != '\0'; at++) {
		if (isspace((unsigned char)*at) || iscntrl((unsigned char)*at)) {
			return setting_refuse(
				in, row, node, err, "holds a space or control character");
		}
	}
	if (str_starts(url, "http://") || str_starts(url, "https://") ||
		(git && str_starts(url, "git://"))) {
		return check_remote_url(in, row, node, strstr(url, "://") + 3, err);
	}
	if (str_starts(url, "file://")) {
		if (url[7] != '/' || path_has_dotdot(url + 7)) {
			return setting_refuse(in, row, node, err,
				"expects three slashes after \"file:\" and no \"..\", as in "
				"file:///srv/git/x");
		}
		return 0;
	}
	if (url[0] == '/' || is_relative(url)) {
		replace_text(text, path_resolve(in->folder, url));
		return 0;
	}
	if (git && url_is_ssh(url)) {
		return check_ssh_url(in, row, node, url, err);
	}
	return setting_refuse(in, row, node, err,
		"expects %s, file:///…, or a path that starts with /, "
		"./ or ../",
		git ? "http://…, https://…, git://…" : "http://…, https://…");
}

int check_source_url(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	return check_location(in, row, node, true, text, err);
}

int check_tar_location(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	return check_location(in, row, node, false, text, err);
}

/* The rules of git-check-ref-format that a short name can break. */
int check_ref(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *ref = *text;
	size_t length = strlen(ref);
	bool bad = ref[0] == '-' || ref[0] == '/' || ref[0] == '.' || ref[length - 1] == '/' ||
		   ref[length - 1] == '.' || strstr(ref, "..") != NULL ||
		   strstr(ref, "//") != NULL || strstr(ref, "/.") != NULL ||
		   strstr(ref, "@{") != NULL || (length >= 5 && streq(ref + length - 5, ".lock")) ||
		   strpbrk(ref, " ~^:?*[\\") != NULL;

	for (const char *at = ref; *at != '\0'; at++) {
		bad = bad || iscntrl((unsigned char)*at);
	}
	if (!bad) {
		return 0;
	}
	setting_refuse(in, row, node, err, "is no name that git allows for a branch or tag");
	return error_hint(err, "such as main, v1.2.0, refs/heads/main, or a whole commit id");
}

int check_sha256(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	for (char *at = *text; *at != '\0'; at++) {
		*at = (char)tolower((unsigned char)*at);
	}
	if (digest_is_valid(*text)) {
		return 0;
	}
	setting_refuse(in, row, node, err, "expects 64 hex digits");
	return error_hint(
		err, "take the publisher's, or what `sha256sum FILE` prints for a file you trust");
}

static bool is_id(const char *text, size_t length)
{
	if (length == 0 || length > 5 || strspn(text, "0123456789") < length) {
		return false;
	}
	return strtol(text, NULL, 10) < 65536;
}

/* useradd's names, or ids of the 65,536 that a sandbox has. */
int check_user(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *user = *text;
	size_t first = strcspn(user, ":");
	bool ids = is_id(user, first) &&
		   (user[first] == '\0' || is_id(user + first + 1, strlen(user + first + 1)));
	bool name = (islower((unsigned char)user[0]) || user[0] == '_') && strlen(user) <= 32 &&
		    user[strspn(user, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0';

	if (ids || name) {
		return 0;
	}
	return setting_refuse(in, row, node, err,
		"expects a user name such as \"node\", or \"uid\" or \"uid:gid\" below 65536");
}

int check_run(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	if ((*text)[strspn(*text, " \t\r\n")] == '\0') {
		return setting_refuse(in, row, node, err, "is empty");
	}
	return 0;
}

int check_cron(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	char problem[CRON_PROBLEM_SIZE];
	struct cron cron;

	if (cron_parse(*text, &cron, problem)) {
		return 0;
	}
	setting_refuse(in, row, node, err, "%s", problem);
	return error_hint(err, "such as \"*/30 8-18 * * mon-fri\" or @daily");
}

int check_zone(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	if (time_zone_is_known(*text)) {
		return 0;
	}
	setting_refuse(in, row, node, err, "is no time zone that this machine knows");
	return error_hint(err,
		"such as UTC or Europe/Berlin; `timedatectl list-timezones` shows them, and the "
		"package tzdata has them");
}

static bool is_variable_name(const char *name)
{
	if (!isalpha((unsigned char)name[0]) && name[0] != '_') {
		return false;
	}
	for (; *name != '\0'; name++) {
		if (!isalnum((unsigned char)*name) && *name != '_') {
			return false;
		}
	}
	return true;
}

static int env_entry_check(
	const struct settings_input *in, const struct yaml_node *item, struct error *err)
{
	char found[96];

	if (!is_variable_name(item->key)) {
		return yaml_error(err, in->name, item, true,
			"\"%.64s\" is no name for an environment variable", item->key);
	}
	if (item->kind != YAML_TEXT || yaml_is_null(item)) {
		yaml_describe(item, found, sizeof(found));
		yaml_error(err, in->name, item, false, "\"env.%.64s\" expects a text, not %s",
			item->key, found);
		return item->kind == YAML_TEXT ? error_hint(err, "an empty one is written \"\"")
					       : -ERROR_INVALID;
	}
	return 0;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int env_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	char ***env = (char ***)(void *)((char *)target + row->offset);
	size_t bytes = 0;

	if (node->kind != YAML_MAP) {
		return setting_expects(in, row, node, "a mapping of KEY: value", err);
	}
	if (node->count > ENV_ENTRIES_MAX) {
		return setting_refuse(
			in, row, node, err, "has more than %d variables", ENV_ENTRIES_MAX);
	}
	for (size_t i = 0; i < node->count; i++) {
		CLEANUP(free_p) char *entry = NULL;
		int code = env_entry_check(in, &node->items[i], err);

		if (code < 0) {
			return code;
		}
		entry = xasprintf("%s=%s", node->items[i].key, node->items[i].text);
		bytes += strlen(entry) + 1;
		if (bytes > ENV_BYTES_MAX) {
			return setting_refuse(
				in, row, node, err, "has more than %d bytes", ENV_BYTES_MAX);
		}
		strv_add(env, entry);
	}
	/* A mapping has no order; one order makes one fingerprint. */
	if (*env != NULL) {
		qsort(*env, strv_count(*env), sizeof(**env), compare_texts);
	}
	return 0;
}

void env_write(const struct setting *row, const void *target, int indent, struct buffer *out)
{
	char *const *const *env =
		(char *const *const *)(const void *)((const char *)target + row->offset);
	char *const *entry = *env;

	buffer_add_str(out, entry != NULL && entry[0] != NULL ? "\n" : " {}\n");
	for (; entry != NULL && *entry != NULL; entry++) {
		size_t length = strcspn(*entry, "=");

		buffer_addf(out, "%*s\"%.*s\": ", indent + 2, "", (int)length, *entry);
		yaml_write_text(out, *entry + length + 1);
		buffer_add_str(out, "\n");
	}
}

const struct yaml_node *entry_node(
	const struct yaml_node *root, const char *list, size_t index, const char *key)
{
	const struct yaml_node *node = settings_node(root, list);
	const struct yaml_node *entry = node->kind == YAML_LIST ? &node->items[index] : node;
	const struct yaml_node *value = settings_node(entry, key);

	return value != NULL ? value : entry;
}

static int check_source_path(const struct environment *environment, size_t index, const char *name,
	const struct yaml_node *root, struct error *err)
{
	static const char *const taken[] = {"/proc", "/sys", "/dev", "/usr", "/run"};
	const char *path = environment->sources[index].path;
	const struct yaml_node *node = entry_node(root, "source", index, "path");

	if (streq(path, "/")) {
		return yaml_error(err, name, node, false, "\"source.path\" must not be /");
	}
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		if (path_is_below(path, taken[i])) {
			return yaml_error(err, name, node, false,
				"\"source.path\" must not be in %s, which every sandbox has of its "
				"own",
				taken[i]);
		}
	}
	for (size_t i = 0; i < index; i++) {
		if (streq(environment->sources[i].path, path)) {
			yaml_error(err, name, node, false, "two sources with the path \"%.200s\"",
				path);
			return error_hint(err, "give each source a path of its own");
		}
	}
	return 0;
}

static int check_step_inputs(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	for (size_t i = 0; i < environment->step_count; i++) {
		if (environment->steps[i].strict && environment->steps[i].inputs == NULL) {
			yaml_error(err, name, entry_node(root, "steps", i, "strict"), false,
				"\"steps.strict\" of step \"%s\" has no \"inputs\" to show it",
				environment->steps[i].name);
			return error_hint(err, "list what it reads, or [] for nothing");
		}
	}
	return 0;
}

static int check_step_names(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	for (size_t i = 0; i < environment->step_count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (streq(environment->steps[i].name, environment->steps[j].name)) {
				return yaml_error(err, name, entry_node(root, "steps", i, "name"),
					false,
					"two steps with the name \"%s\"; the other is in line %d",
					environment->steps[i].name, environment->steps[j].line);
			}
		}
	}
	return 0;
}

static int check_lifecycle(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	const char *type = environment->lifecycle_type;
	const struct yaml_node *idle = settings_node(root, "lifecycle.idle");
	const struct yaml_node *every = settings_node(root, "lifecycle.snapshot_every");
	const struct yaml_node *pause = settings_node(root, "lifecycle.pause");

	if (environment->lifecycle == LIFECYCLE_EPHEMERAL && environment->snapshot_every_ms > 0) {
		yaml_error(err, name, every, false,
			"\"lifecycle.snapshot_every\" is not for an ephemeral lifecycle, which "
			"does "
			"not come back");
		return error_hint(err, "say type: hybrid or long-running, or snapshot: exit");
	}
	if (environment->lifecycle == LIFECYCLE_LONG_RUNNING && environment->idle_ms > 0) {
		yaml_error(err, name, idle, false,
			"\"lifecycle.idle\" contradicts the type %s, which idle time does not end",
			type);
		return error_hint(err, "leave it out, or say type: hybrid");
	}
	if (environment->lifecycle == LIFECYCLE_HYBRID && environment->idle_ms == 0) {
		yaml_error(err, name, idle, false,
			"\"lifecycle.idle\" is 0, but the type hybrid sleeps after that time");
		return error_hint(err, "say how long, or type: long-running");
	}
	if (environment->idle_ms > 0 && environment->pause_ms >= environment->idle_ms) {
		return yaml_error(err, name, pause != NULL ? pause : idle, false,
			"\"lifecycle.pause\" would never come: \"lifecycle.idle\" is not longer");
	}
	return 0;
}

int environment_check_whole(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	int code;

	for (size_t i = 0; i < environment->source_count; i++) {
		code = check_source_path(environment, i, name, root, err);
		if (code == 0) {
			code = check_source_auth(&environment->sources[i], name,
				entry_node(root, "source", i, "url"), err);
		}
		if (code < 0) {
			return code;
		}
	}
	code = check_step_names(environment, name, root, err);
	if (code == 0) {
		code = environment_check_files(environment, name, root, err);
	}
	if (code == 0) {
		code = check_step_inputs(environment, name, root, err);
	}
	if (code == 0) {
		code = environment_check_services(environment, name, root, err);
	}
	if (code == 0) {
		code = check_lifecycle(environment, name, root, err);
	}
	if (code < 0) {
		return code;
	}
	if (environment->pool_min > environment->pool_max) {
		return yaml_error(err, name, settings_node(root, "pool"), false,
			"\"pool.min\" (%d) is more than \"pool.max\" (%d)",
			(int)environment->pool_min, (int)environment->pool_max);
	}
	return 0;
}
