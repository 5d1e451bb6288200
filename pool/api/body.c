/* Reading bodies. Each parser fills a local struct and hands it over only when all of it is right.
 */
#include "pool/api/body.h"

#include "base/io.h"
#include "base/memory.h"
#include "pool/hints/caller.h"
#include "pool/sandbox/sandbox.h"

#include <inttypes.h>
#include <signal.h>

/* {"KEY": "value"} to KEY=value. */
static int read_env(const json_t *json, char ***ret_env, struct error *err)
{
	CLEANUP(strv_free_p) char **list = NULL;
	json_t *env = json_object_get(json, "env");
	const char *key;
	json_t *value;

	if (env == NULL || json_is_null(env)) {
		return 0;
	}
	if (!json_is_object(env) || json_object_size(env) > ENV_VARIABLES_MAX) {
		return error_set(err, ERROR_INVALID,
			"\"env\" must be an object of at most %d names with text",
			ENV_VARIABLES_MAX);
	}
	json_object_foreach (env, key, value) {
		CLEANUP(free_p) char *pair = NULL;

		if (*key == '\0' || strchr(key, '=') != NULL) {
			return error_set(
				err, ERROR_INVALID, "\"env\" has the impossible name \"%s\"", key);
		}
		if (!json_is_string(value) ||
			strlen(json_string_value(value)) != json_string_length(value)) {
			return error_set(err, ERROR_INVALID, "\"env.%s\" must be a string", key);
		}
		pair = xasprintf("%s=%s", key, json_string_value(value));
		strv_add(&list, pair);
	}
	*ret_env = steal_ptr(list);
	return 0;
}

static int read_metadata(const json_t *json, json_t **ret_metadata, struct error *err)
{
	json_t *metadata = json_object_get(json, "metadata");
	size_t bytes = 0;
	const char *key;
	json_t *value;

	if (metadata == NULL || json_is_null(metadata)) {
		return 0;
	}
	if (!json_is_object(metadata) || json_object_size(metadata) > METADATA_MAX) {
		return error_set(err, ERROR_INVALID,
			"\"metadata\" must be an object of at most %d names with text",
			METADATA_MAX);
	}
	json_object_foreach (metadata, key, value) {
		if (!json_is_string(value)) {
			return error_set(
				err, ERROR_INVALID, "\"metadata.%s\" must be a string", key);
		}
		bytes += strlen(key) + json_string_length(value);
	}
	if (bytes > METADATA_BYTES_MAX) {
		return error_set(
			err, ERROR_LIMIT, "\"metadata\" is over %d bytes", METADATA_BYTES_MAX);
	}
	*ret_metadata = metadata;
	return 0;
}

void claim_body_done(struct claim_body *body)
{
	strv_free(body->env);
	body->env = NULL;
}

int key_check(const char *key, struct error *err)
{
	if (hint_key_is_valid(key)) {
		return 0;
	}
	error_set(err, ERROR_INVALID, "\"key\" must be 1 to %d of A-Z a-z 0-9 . _ : @ = + ~ -",
		HINT_KEY_SIZE - 1);
	return error_hint(err, "it is any name of yours for one person's next sandbox");
}

static int check_name(const char *member, const char *name, struct error *err)
{
	return name == NULL || name_is_valid(name)
		       ? 0
		       : error_set(
				 err, ERROR_INVALID, "\"%s\" is not a name: \"%s\"", member, name);
}

int warm_body_parse(const json_t *json, struct warm_body *ret_body, struct error *err)
{
	static const char *const keys[] = {"environment", "snapshot", "key", "ttl_s", NULL};
	struct warm_body body = {0};
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "environment", &body.environment, err)) < 0 ||
		(status = json_get_str(json, "snapshot", &body.snapshot, err)) < 0 ||
		(status = json_get_str(json, "key", &body.key, err)) < 0 ||
		(status = json_get_int(json, "ttl_s", 1, SECONDS_MAX, &body.ttl_s, err)) < 0 ||
		(status = check_name("environment", body.environment, err)) < 0 ||
		(status = check_name("snapshot", body.snapshot, err)) < 0) {
		return status;
	}
	if ((body.environment != NULL) == (body.snapshot != NULL)) {
		return error_set(err, ERROR_INVALID, "give either \"environment\" or \"snapshot\"");
	}
	if ((status = key_check(body.key != NULL ? body.key : "", err)) < 0) {
		return status;
	}
	*ret_body = body;
	return 0;
}

/* What a claim asks of the age of what it gets. */
static int read_terms(const json_t *json, struct claim_body *body, struct error *err)
{
	const char *commit;
	int status;

	if ((status = json_get_str(json, "key", &body->key, err)) < 0 ||
		(status = json_get_int(json, "max_age_s", 0, SECONDS_MAX, &body->max_age_s, err)) <
			0 ||
		(status = json_get_str(json, "min_commit", &body->min_commit, err)) < 0) {
		return status;
	}
	if (body->key != NULL && (status = key_check(body->key, err)) < 0) {
		return status;
	}
	commit = body->min_commit;
	if (commit != NULL &&
		(strlen(commit) < COMMIT_DIGITS_MIN || strlen(commit) >= COMMIT_TEXT_SIZE ||
			strspn(commit, "0123456789abcdefABCDEF") != strlen(commit))) {
		return error_set(err, ERROR_INVALID,
			"\"min_commit\" must be %d to %d hex digits of a commit", COMMIT_DIGITS_MIN,
			COMMIT_TEXT_SIZE - 1);
	}
	if (body->environment == NULL && (commit != NULL || body->max_age_s >= 0)) {
		return error_set(err, ERROR_INVALID,
			"\"max_age_s\" and \"min_commit\" go with \"environment\" only: an image "
			"or snapshot is as old as it is");
	}
	return 0;
}

static int read_claim(const json_t *json, struct claim_body *body, struct error *err)
{
	static const char *const keys[] = {"environment", "image", "snapshot", "env", "timeout_s",
		"idle_s", "metadata", "key", "max_age_s", "min_commit", NULL};
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "environment", &body->environment, err)) < 0 ||
		(status = json_get_str(json, "image", &body->image, err)) < 0 ||
		(status = json_get_str(json, "snapshot", &body->snapshot, err)) < 0 ||
		(status = json_get_int(json, "timeout_s", 0, SECONDS_MAX, &body->timeout_s, err)) <
			0 ||
		(status = json_get_int(json, "idle_s", 0, SECONDS_MAX, &body->idle_s, err)) < 0 ||
		(status = read_metadata(json, &body->metadata, err)) < 0 ||
		(status = read_terms(json, body, err)) < 0) {
		return status;
	}
	if ((body->environment != NULL) + (body->image != NULL) + (body->snapshot != NULL) != 1) {
		return error_set(err, ERROR_INVALID,
			"give either \"environment\" or \"image\" or \"snapshot\"");
	}
	if (body->snapshot != NULL && !name_is_valid(body->snapshot)) {
		return error_set(err, ERROR_INVALID,
			"\"snapshot\" must be an id like \"snap-4\" or a tag, not \"%s\"",
			body->snapshot);
	}
	if (body->environment != NULL && !name_is_valid(body->environment)) {
		return error_set(err, ERROR_INVALID, "\"environment\" is not a name: \"%s\"",
			body->environment);
	}
	if (body->image != NULL &&
		(!str_starts(body->image, "img-") || !name_is_valid(body->image))) {
		return error_set(err, ERROR_INVALID,
			"\"image\" must be an id like \"img-3\", not \"%s\"", body->image);
	}
	return read_env(json, &body->env, err);
}

int claim_body_parse(const json_t *json, struct claim_body *ret_body, struct error *err)
{
	struct claim_body body = {.idle_s = -1, .max_age_s = -1};
	int status = read_claim(json, &body, err);

	if (status < 0) {
		claim_body_done(&body);
		return status;
	}
	*ret_body = body;
	return 0;
}

void exec_body_done(struct exec_body *body)
{
	strv_free(body->argv);
	strv_free(body->env);
	body->argv = NULL;
	body->env = NULL;
}

static int read_argv(const json_t *array, char ***ret_argv, struct error *err)
{
	CLEANUP(strv_free_p) char **argv = NULL;
	size_t count = json_array_size(array);

	if (!json_is_array(array) || count == 0 || count > ARGUMENTS_MAX) {
		return error_set(err, ERROR_INVALID, "\"argv\" must be a list of 1 to %d strings",
			ARGUMENTS_MAX);
	}
	argv = xcalloc(count + 1, sizeof(*argv));
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(array, i);

		if (!json_is_string(item) ||
			strlen(json_string_value(item)) != json_string_length(item)) {
			return error_set(err, ERROR_INVALID, "\"argv[%zu]\" must be a string", i);
		}
		argv[i] = xstrdup(json_string_value(item));
	}
	if (*argv[0] == '\0') {
		return error_set(err, ERROR_INVALID, "\"argv[0]\" is empty");
	}
	*ret_argv = steal_ptr(argv);
	return 0;
}

static int read_command(const json_t *json, struct exec_body *body, struct error *err)
{
	const json_t *argv = json_object_get(json, "argv");
	const char *shell = NULL;
	int status = json_get_str(json, "shell", &shell, err);

	if (status < 0) {
		return status;
	}
	if (json_is_null(argv)) {
		argv = NULL;
	}
	if ((argv == NULL) == (shell == NULL)) {
		return error_set(err, ERROR_INVALID, "give either \"argv\" or \"shell\"");
	}
	if (argv != NULL) {
		return read_argv(argv, &body->argv, err);
	}
	strv_add(&body->argv, "/bin/sh");
	strv_add(&body->argv, "-c");
	strv_add(&body->argv, shell);
	return 0;
}

static int read_exec(const json_t *json, struct exec_body *body, struct error *err)
{
	static const char *const keys[] = {"argv", "shell", "cwd", "env", "stdin", "timeout_ms",
		"user", "tty", "rows", "cols", "detach", NULL};
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "cwd", &body->cwd, err)) < 0 ||
		(status = json_get_str(json, "user", &body->user, err)) < 0 ||
		(status = json_get_str(json, "stdin", &body->stdin_text, err)) < 0 ||
		(status = json_get_int(
			 json, "timeout_ms", 0, SECONDS_MAX * 1000, &body->timeout_ms, err)) < 0 ||
		(status = json_get_bool(json, "tty", &body->tty, err)) < 0 ||
		(status = json_get_bool(json, "detach", &body->detach, err)) < 0 ||
		(status = json_get_int(json, "rows", 1, TERMINAL_SIDE_MAX, &body->rows, err)) < 0 ||
		(status = json_get_int(json, "cols", 1, TERMINAL_SIDE_MAX, &body->cols, err)) < 0 ||
		(status = read_command(json, body, err)) < 0) {
		return status;
	}
	if (body->cwd != NULL && *body->cwd != '/') {
		return error_set(
			err, ERROR_INVALID, "\"cwd\" must be absolute, not \"%s\"", body->cwd);
	}
	return read_env(json, &body->env, err);
}

int exec_body_parse(const json_t *json, struct exec_body *ret_body, struct error *err)
{
	struct exec_body body = {.rows = 24, .cols = 80};
	int status = read_exec(json, &body, err);

	if (status < 0) {
		exec_body_done(&body);
		return status;
	}
	*ret_body = body;
	return 0;
}

int timeout_body_parse(const json_t *json, int64_t *ret_seconds, struct error *err)
{
	static const char *const keys[] = {"seconds", NULL};
	int64_t seconds = -1;
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_int(json, "seconds", 0, SECONDS_MAX, &seconds, err)) < 0) {
		return status;
	}
	if (seconds < 0) {
		return error_set(err, ERROR_INVALID, "\"seconds\" is missing (0: never)");
	}
	*ret_seconds = seconds;
	return 0;
}

int rollback_body_parse(const json_t *json, const char **ret_image, struct error *err)
{
	static const char *const keys[] = {"image", NULL};
	int status = json_check_keys(json, keys, err);

	*ret_image = NULL;
	return status < 0 ? status : json_get_str(json, "image", ret_image, err);
}

static int check_label(const char *label, struct error *err)
{
	if (label != NULL && strlen(label) >= SNAPSHOT_LABEL_SIZE) {
		return error_set(
			err, ERROR_LIMIT, "\"label\" is over %d bytes", SNAPSHOT_LABEL_SIZE - 1);
	}
	return 0;
}

int snapshot_body_parse(const json_t *json, struct snapshot_body *ret_body, struct error *err)
{
	static const char *const keys[] = {"label", "reason", "metadata", "max_pause_ms", NULL};
	struct snapshot_body body = {.reason = SNAPSHOT_MANUAL};
	const char *reason = snapshot_reason_name(SNAPSHOT_MANUAL);
	json_t *metadata = NULL;
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "label", &body.label, err)) < 0 ||
		(status = check_label(body.label, err)) < 0 ||
		(status = json_get_str(json, "reason", &reason, err)) < 0 ||
		(status = json_get_int(json, "max_pause_ms", 1, SNAPSHOT_PAUSE_MS_MAX,
			 &body.max_pause_ms, err)) < 0 ||
		(status = read_metadata(json, &metadata, err)) < 0) {
		return status;
	}
	if (!snapshot_reason_parse(reason, &body.reason) ||
		(body.reason != SNAPSHOT_MANUAL && body.reason != SNAPSHOT_SESSION)) {
		return error_set(err, ERROR_INVALID,
			"\"reason\" must be \"manual\" or \"session\", not \"%s\"", reason);
	}
	body.metadata = metadata;
	*ret_body = body;
	return 0;
}

int fork_body_parse(const json_t *json, struct fork_body *ret_body, struct error *err)
{
	static const char *const keys[] = {"count", "label", "metadata", "max_pause_ms", NULL};
	struct fork_body body = {.count = 1};
	json_t *metadata = NULL;
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_int(json, "count", 1, FORK_CHILDREN_MAX, &body.count, err)) <
			0 ||
		(status = json_get_str(json, "label", &body.label, err)) < 0 ||
		(status = check_label(body.label, err)) < 0 ||
		(status = json_get_int(json, "max_pause_ms", 1, SNAPSHOT_PAUSE_MS_MAX,
			 &body.max_pause_ms, err)) < 0 ||
		(status = read_metadata(json, &metadata, err)) < 0) {
		return status;
	}
	body.metadata = metadata;
	*ret_body = body;
	return 0;
}

static int signal_from_name(const char *name, int *ret_signal, struct error *err)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {{"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"KILL", SIGKILL},
		{"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"TERM", SIGTERM}, {"CONT", SIGCONT},
		{"STOP", SIGSTOP}, {"TSTP", SIGTSTP}, {"WINCH", SIGWINCH}};

	if (str_starts(name, "SIG")) {
		name += 3;
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (streq(signals[i].name, name)) {
			*ret_signal = signals[i].number;
			return 0;
		}
	}
	return error_set(err, ERROR_INVALID, "unknown signal \"%s\"", name);
}

static int read_size(const json_t *json, struct terminal_message *message, struct error *err)
{
	static const char *const keys[] = {"rows", "cols", NULL};
	int status;

	if (!json_is_object(json)) {
		return error_set(err, ERROR_INVALID, "\"resize\" must be an object");
	}
	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_int(json, "rows", 1, TERMINAL_SIDE_MAX, &message->rows, err)) <
			0 ||
		(status = json_get_int(json, "cols", 1, TERMINAL_SIDE_MAX, &message->cols, err)) <
			0) {
		return status;
	}
	if (message->rows == 0 || message->cols == 0) {
		return error_set(err, ERROR_INVALID, "\"resize\" needs rows and cols");
	}
	message->resize = true;
	return 0;
}

int terminal_message_parse(
	const json_t *json, struct terminal_message *ret_message, struct error *err)
{
	static const char *const keys[] = {"resize", "signal", "stdin_end", NULL};
	struct terminal_message message = {0};
	const json_t *resize = json_object_get(json, "resize");
	const char *name = NULL;
	int status;

	if ((status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "signal", &name, err)) < 0 ||
		(status = json_get_bool(json, "stdin_end", &message.stdin_end, err)) < 0 ||
		(resize != NULL && (status = read_size(resize, &message, err)) < 0) ||
		(name != NULL && (status = signal_from_name(name, &message.signal, err)) < 0)) {
		return status;
	}
	*ret_message = message;
	return 0;
}
