/* hob create: claims a warm sandbox, or has one made, and says which. */
#include "base/memory.h"
#include "pool/cli/claim.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

struct create_values {
	struct claim_options options;
	bool quiet;
};

static const struct option_row create_rows[] = {
	{"image", '\0', OPTION_TEXT, "ID", offsetof(struct create_values, options.image),
		"take this image instead of the newest (`hob images ls`)"},
	{"key", 'k', OPTION_TEXT, "K", offsetof(struct create_values, options.key),
		"take the one that `hob warm --key K` reserved"},
	{"max-age", '\0', OPTION_DURATION, "DUR",
		offsetof(struct create_values, options.max_age_ms),
		"only of an image that was the newest this long ago; an earlier one will do"},
	{"min-commit", '\0', OPTION_TEXT, "COMMIT",
		offsetof(struct create_values, options.min_commit),
		"only at this commit, or of an image that was built after it"},
	{"env", 'e', OPTION_LIST, "K=V", offsetof(struct create_values, options.env),
		"set a variable for all its commands; K alone passes on the value it has here"},
	{"timeout", '\0', OPTION_DURATION, "DUR",
		offsetof(struct create_values, options.timeout_ms),
		"end it after this long, 0 never (default: the environment's max_age)"},
	{"idle", '\0', OPTION_DURATION, "DUR", offsetof(struct create_values, options.idle_ms),
		"end it when unused this long, 0 never (default: the environment's idle)"},
	{"metadata", 'm', OPTION_LIST, "K=V", offsetof(struct create_values, options.metadata),
		"remember this with it"},
	{"quiet", 'q', OPTION_FLAG, NULL, offsetof(struct create_values, quiet),
		"print only the id"},
};

static const struct create_values create_defaults = {
	.options = {.timeout_ms = -1, .idle_ms = -1, .max_age_ms = -1}};

/* hobd counts in seconds; a part of one counts whole, so that "500ms" is not "never". */
static void set_seconds(json_t *body, const char *key, int64_t ms)
{
	if (ms >= 0) {
		json_object_set_new(body, key, json_integer((ms + 999) / 1000));
	}
}

static void set_text(json_t *body, const char *key, const char *text)
{
	if (text != NULL) {
		json_object_set_new(body, key, json_string(text));
	}
}

int claim_sandbox(struct cli *cli, const char *environment, const struct claim_options *options,
	json_t **ret_reply, struct error *err)
{
	CLEANUP(json_decref_p) json_t *body = json_object();
	json_t *env = NULL, *metadata = NULL;
	int status;

	set_text(body, "environment", environment);
	set_text(body, "image", options->image);
	set_text(body, "snapshot", options->snapshot);
	status = cli_pairs(options->env, "env", true, &env, err);
	if (status < 0) {
		return status;
	}
	json_object_set_new(body, "env", env);
	status = cli_pairs(options->metadata, "metadata", false, &metadata, err);
	if (status < 0) {
		return status;
	}
	json_object_set_new(body, "metadata", metadata);
	set_seconds(body, "timeout_s", options->timeout_ms);
	set_seconds(body, "idle_s", options->idle_ms);
	set_seconds(body, "max_age_s", options->max_age_ms);
	set_text(body, "key", options->key);
	set_text(body, "min_commit", options->min_commit);
	return cli_call(cli, "POST", body, ret_reply, err, "/v1/sandboxes");
}

static const char *explain_reason(const char *reason)
{
	static const char *const reasons[][2] = {
		{"empty", "no sandbox was ready"},
		{"stale", "the ready ones are of an older image"},
		{"mismatch", "the pool holds another image"},
		{"draining", "the pool is being emptied"},
		{"over_limit", "the pool is at its limit"},
		{"failed", "the ready one had failed"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (streq(reasons[i][0], reason)) {
			return reasons[i][1];
		}
	}
	return reason;
}

void claim_explain(const json_t *reply)
{
	CLEANUP(free_p) char *source = human_member(reply, "source");
	CLEANUP(free_p) char *environment = human_member(reply, "environment");
	CLEANUP(free_p) char *image = human_member(reply, "image");
	CLEANUP(free_p) char *commit = human_commit(reply);
	const char *reason = json_string_value(json_object_get(reply, "reason"));
	json_int_t behind_s = json_integer_value(json_object_get(reply, "behind_s"));
	char took[HUMAN_SIZE];

	human_span(took, json_integer_value(json_object_get(reply, "took_us")));
	fflush(stdout);
	fprintf(stderr, "%s in %s%s%s%s: %s, %s", source, took, reason != NULL ? " (" : "",
		reason != NULL ? explain_reason(reason) : "", reason != NULL ? ")" : "",
		environment, image);
	if (!streq(commit, "-")) {
		fprintf(stderr, " at %s", commit);
	}
	if (behind_s > 0) {
		human_span(took, behind_s * 1000000);
		fprintf(stderr, ", %s behind", took);
	}
	fputc('\n', stderr);
}

static int create_run(struct call *call, struct error *err)
{
	struct create_values *values = call->values;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status;

	if (call->operand_count == 0 && values->options.image == NULL) {
		error_set(err, ERROR_USAGE, "hob create needs an environment, or --image ID");
		return error_hint(err, "`hob env ls` lists the environments");
	}
	if (call->operand_count > 0 && values->options.image != NULL) {
		return error_set(err, ERROR_USAGE, "give an environment or --image, not both");
	}
	status = claim_sandbox(call->cli, call->operands[0], &values->options, &reply, err);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	puts(json_string_value(json_object_get(reply, "id")));
	if (!values->quiet) {
		claim_explain(reply);
	}
	return 0;
}

const struct verb verb_create = {
	.name = "create",
	.group = "Sandboxes",
	.operands = "ENV | --image ID",
	.summary = "Take a sandbox of an environment: a warm one, or a new one when none is ready",
	.details =
		"Prints its id on standard output, and on standard error whether it was warm, if\n"
		"not why, and how long it took.\n\n"
		"  id=$(hob create -q webapp)",
	VERB_OPTIONS(create_rows, struct create_values),
	.defaults = &create_defaults,
	.operands_max = 1,
	.run = create_run,
};
