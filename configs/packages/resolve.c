/* Each manager is a program with a time limit; what it answers is checked to be an exact version
 * before anybody sees it. */
#include "configs/packages/resolve.h"

#include "base/json.h"
#include "base/process.h"

#include <ctype.h>

#define SECONDS_MAX "60"

char *resolve_apt_answer(const char *output)
{
	static const char word[] = "\n  Candidate: ";
	const char *at = strstr(output, word);
	CLEANUP(free_p) char *version = NULL;

	if (at == NULL) {
		return NULL;
	}
	at += strlen(word);
	version = xstrndup(at, strcspn(at, "\n"));
	return deb_version_is_valid(version) ? steal_ptr(version) : NULL;
}

char *resolve_npm_answer(const char *output)
{
	CLEANUP(json_decref_p) json_t *json = json_loads(output, JSON_DECODE_ANY, NULL);
	const json_t *last = json;
	const char *text;

	if (json_is_array(json)) { /* of a range: all that fit, in order */
		last = json_array_get(json, json_array_size(json) - 1);
	}
	text = json_string_value(last);
	return text != NULL && npm_version_is_valid(text) ? xstrdup(text) : NULL;
}

char *resolve_pip_report(const char *output)
{
	CLEANUP(json_decref_p) json_t *json = json_loads(output, 0, NULL);
	const json_t *first = json_array_get(json_object_get(json, "install"), 0);
	const char *text =
		json_string_value(json_object_get(json_object_get(first, "metadata"), "version"));

	return text != NULL && pip_version_is_valid(text) ? xstrdup(text) : NULL;
}

/* "name (1.2.3)" in the first line. */
char *resolve_pip_answer(const char *output)
{
	const char *open = strstr(output, " (");
	CLEANUP(free_p) char *version = NULL;

	if (open == NULL) {
		return NULL;
	}
	version = xstrndup(open + 2, strcspn(open + 2, ")\n"));
	return pip_version_is_valid(version) ? steal_ptr(version) : NULL;
}

/* Runs it with C's words and no colours; *ret_output NULL when it failed. */
static int ask(char *const *argv, char **ret_output, struct error *err)
{
	char *full[32] = {(char *)(uintptr_t) "env", (char *)(uintptr_t) "LC_ALL=C",
		(char *)(uintptr_t) "PIP_DISABLE_PIP_VERSION_CHECK=1",
		(char *)(uintptr_t) "npm_config_update_notifier=false",
		(char *)(uintptr_t) "timeout", (char *)(uintptr_t)SECONDS_MAX,
		(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t) "exec \"$@\" 2>/dev/null", (char *)(uintptr_t) "sh"};
	CLEANUP(free_p) char *output = NULL;
	size_t count = 10;
	int code = 0, status;

	while (*argv != NULL && count + 1 < ARRAY_SIZE(full)) {
		full[count++] = *argv++;
	}
	status = process_run(full, &output, &code, err);
	if (status == 0 && code == 0) {
		*ret_output = steal_ptr(output);
	}
	return status;
}

#define WORD(text) ((char *)(uintptr_t)(text))

static int ask_one(
	char *const *argv, char *(*read)(const char *), char **ret_version, struct error *err)
{
	CLEANUP(free_p) char *output = NULL;
	int status = ask(argv, &output, err);

	if (status == 0 && output != NULL) {
		*ret_version = read(output);
	}
	return status;
}

/* Of a range, the report knows more; where no wheel fits, the list of versions does. */
static int ask_pip(const char *text, const char *name, char **ret_version, struct error *err)
{
	char *const report[] = {WORD("python3"), WORD("-m"), WORD("pip"), WORD("install"),
		WORD("--dry-run"), WORD("--no-deps"), WORD("--ignore-installed"), WORD("--quiet"),
		WORD("--only-binary"), WORD(":all:"), WORD("--no-input"), WORD("--report"),
		WORD("-"), WORD("--"), WORD(text), NULL};
	char *const list[] = {WORD("python3"), WORD("-m"), WORD("pip"), WORD("index"),
		WORD("versions"), WORD(name), NULL};
	int status = ask_one(report, resolve_pip_report, ret_version, err);

	if (status == 0 && *ret_version == NULL && streq(text, name)) {
		status = ask_one(list, resolve_pip_answer, ret_version, err);
	}
	return status;
}

static int ask_manager(enum package_manager manager, const char *text, const char *name,
	char **ret_version, struct error *err)
{
	char *const apt[] = {WORD("apt-cache"), WORD("policy"), WORD(name), NULL};
	char *const npm[] = {WORD("npm"), WORD("view"), WORD("--json"), WORD("--"), WORD(text),
		WORD("version"), NULL};

	switch (manager) {
	case PACKAGE_APT:
		return ask_one(apt, resolve_apt_answer, ret_version, err);
	case PACKAGE_NPM:
		return ask_one(npm, resolve_npm_answer, ret_version, err);
	case PACKAGE_PIP:
		return ask_pip(text, name, ret_version, err);
	case PACKAGE_MANAGERS:
		break;
	}
	return error_set(err, ERROR_INTERNAL, "no such package manager");
}

int package_resolve(
	enum package_manager manager, const char *text, char **ret_version, struct error *err)
{
	static const char *const programs[PACKAGE_MANAGERS] = {
		[PACKAGE_APT] = "apt-cache", [PACKAGE_NPM] = "npm", [PACKAGE_PIP] = "python3"};
	CLEANUP(free_p) char *name = NULL;
	CLEANUP(free_p) char *version = NULL;
	int status;

	if (package_parse(manager, text, &name, NULL) == PACKAGE_NONSENSE) {
		return error_set(err, ERROR_INVALID, "\"%.128s\" names no package of %s", text,
			package_manager_name(manager));
	}
	if (strpbrk(text + strlen(name), ":/@;") != NULL &&
		!(manager == PACKAGE_NPM && strpbrk(text + strlen(name) + 1, ":/@;") == NULL)) {
		return error_set(
			err, ERROR_INVALID, "\"%.128s\" is no version in a registry", text);
	}
	if (!process_exists(programs[manager])) {
		return error_set(err, ERROR_UNAVAILABLE,
			"%s is not on this machine, so %s cannot be looked up", programs[manager],
			name);
	}
	status = ask_manager(manager, text, name, &version, err);
	if (status == 0 && version == NULL) {
		error_set(err, ERROR_NOT_FOUND, "%s of this machine has no version of \"%.128s\"",
			package_manager_name(manager), text);
		return error_hint(
			err, manager == PACKAGE_APT
				     ? "look at the name, and run apt-get update"
				     : "look at the name, and whether the registry can be reached");
	}
	if (status == 0) {
		*ret_version = steal_ptr(version);
	}
	return status;
}
