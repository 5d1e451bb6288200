/* hob build: by hob-build itself for root, otherwise asked of hobd with its log followed here. */
#include "base/io.h"
#include "base/memory.h"
#include "pool/cli/build_follow.h"
#include "pool/cli/cli.h"
#include "pool/cli/help.h"
#include "pool/cli/http.h"
#include "pool/cli/human.h"

#include <stdio.h>
#include <time.h>

/* Between two looks whether a queued build has begun. */
#define LOOK_EVERY_MS 100
/* So many looks later the one who waits is told why. */
#define LOOKS_BEFORE_WORD 10

static int on_log(void *context, const void *data, size_t length, struct error *err)
{
	(void)context;
	return io_write_full(STDOUT_FILENO, data, length, err);
}

int build_log_print(struct cli *cli, const char *id, bool follow, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(id);
	CLEANUP(free_p)
	char *path = xasprintf("/v1/builds/%s/log%s", escaped, follow ? "?follow=1" : "");
	const struct http_request request = {.method = "GET", .path = path, .data = on_log};
	struct http_reply reply = {0};
	struct http *http = NULL;
	int status = cli_http(cli, &http, err);

	if (status >= 0) {
		fflush(stdout);
		status = http_run(http, &request, &reply, err);
		json_decref(reply.json);
	}
	return status;
}

int build_newest(struct cli *cli, const char *environment, json_t **ret_build, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(environment);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = cli_call(
		cli, "GET", NULL, &reply, err, "/v1/builds?environment=%s&limit=1", escaped);

	if (status >= 0) {
		*ret_build = json_incref(json_array_get(json_object_get(reply, "builds"), 0));
	}
	return status;
}

static const char *id_of(const json_t *build)
{
	const char *id = json_string_value(json_object_get(build, "id"));

	return id != NULL ? id : "";
}

/* Is there a build of this environment that hobd means to start, or has started? */
static int build_is_coming(
	struct cli *cli, const char *environment, bool *ret_coming, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(environment);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = cli_call(cli, "GET", NULL, &reply, err, "/v1/environments/%s", escaped);

	if (status >= 0) {
		*ret_coming = json_is_true(json_object_get(reply, "building"));
	}
	return status;
}

static bool has_begun(const json_t *build, const json_t *before)
{
	return build != NULL && (!streq(id_of(build), id_of(before)) ||
					json_is_null(json_object_get(build, "ended_at")));
}

/* The build that was asked for: the first that is not `before`, or `before` while it still runs. */
static int wait_begun(struct cli *cli, const char *environment, const json_t *before,
	json_t **ret_build, struct error *err)
{
	const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000L};
	bool coming = true;

	for (int looks = 0;; looks++) {
		CLEANUP(json_decref_p) json_t *build = NULL;
		int status = build_newest(cli, environment, &build, err);

		if (status < 0) {
			return status;
		}
		if (has_begun(build, before)) {
			*ret_build = steal_ptr(build);
			return 0;
		}
		if (!coming) {
			error_set(err, ERROR_FAILED, "the build of %s ended before it began",
				environment);
			return error_hint(err, "hobd's log says why");
		}
		if (looks == LOOKS_BEFORE_WORD) {
			fprintf(stderr, "%s: queued\n", environment);
		}
		nanosleep(&pause, NULL);
		status = build_is_coming(cli, environment, &coming, err);
		if (status < 0) {
			return status;
		}
	}
}

static int build_verdict(struct cli *cli, const char *id, struct error *err)
{
	CLEANUP(json_decref_p) json_t *build = NULL;
	CLEANUP(free_p) char *state = NULL;
	CLEANUP(free_p) char *message = NULL;
	CLEANUP(free_p) char *image = NULL;
	int status = cli_call(cli, "GET", NULL, &build, err, "/v1/builds/%s", id);

	if (status < 0) {
		return status;
	}
	state = human_member(build, "state");
	message = human_member(build, "message");
	image = human_member(build, "image");
	if (cli->json) {
		human_print_json(build);
	} else {
		fprintf(stderr, "%s: %s%s%s\n", id, state, streq(image, "-") ? "" : " ",
			streq(image, "-") ? "" : image);
	}
	if (streq(state, "failed")) {
		error_set(err, ERROR_FAILED, "%s failed: %s", id, message);
		return error_hint(err, "`hob builds log %s` shows its output again", id);
	}
	return 0;
}

static int build_by_hobd(struct cli *cli, const char *environment, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(environment);
	CLEANUP(json_decref_p) json_t *before = NULL;
	CLEANUP(json_decref_p) json_t *build = NULL;
	int status = build_newest(cli, environment, &before, err);

	if (status >= 0) {
		status = cli_call(
			cli, "POST", NULL, NULL, err, "/v1/environments/%s/build", escaped);
	}
	if (status >= 0) {
		status = wait_begun(cli, environment, before, &build, err);
	}
	if (status >= 0 && !cli->json) {
		status = build_log_print(cli, id_of(build), true, err);
	}
	while (status >= 0 && cli->json && json_is_null(json_object_get(build, "ended_at"))) {
		const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000L};
		CLEANUP(free_p) char *id = xstrdup(id_of(build));

		nanosleep(&pause, NULL);
		json_decref(steal_ptr(build));
		status = cli_call(cli, "GET", NULL, &build, err, "/v1/builds/%s", id);
	}
	return status < 0 ? status : build_verdict(cli, id_of(build), err);
}

static int build_run(struct call *call, struct error *err)
{
	struct cli *cli = call->cli;
	const struct option_set set = {cli_option_rows, cli_option_count, cli};
	size_t count = 0;
	int status;

	if (geteuid() == 0) {
		return cli_become(cli, "hob-build", NULL, call->operands, err);
	}
	status = options_parse(&set, 1, OPTIONS_NO_COMMAND, call->operands, &count, err);
	if (status < 0) {
		return err->hint[0] != '\0'
			       ? status
			       : error_hint(err, "as root, hob build takes what hob-build takes");
	}
	if (cli->help) {
		help_print_verb("hob", call->verb);
		return 0;
	}
	if (count == 0) {
		return error_set(err, ERROR_USAGE, "hob build needs an environment");
	}
	for (size_t i = 0; i < count && status >= 0; i++) {
		status = build_by_hobd(cli, call->operands[i], err);
	}
	return status;
}

const struct verb verb_build = {
	.name = "build",
	.group = "Environments and images",
	.operands = "ENV…",
	.summary = "Build the image of environments, when something has changed",
	.details =
		"As root it is hob-build, with all its options. For others hobd starts the build,\n"
		"and its log is shown here; Ctrl-C leaves the build running.",
	.raw = true,
	.run = build_run,
};
