/* The request of a claim, and what a person is told of its reply. */
#include "pool/cli/claim.h"

#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

const struct claim_options claim_defaults = {.timeout_ms = -1, .idle_ms = -1, .max_age_ms = -1};

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

int claim_and_print(struct cli *cli, const char *environment, const struct claim_options *options,
	struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = claim_sandbox(cli, environment, options, &reply, err);

	if (status < 0) {
		return status;
	}
	if (cli->json) {
		human_print_json(reply);
		return 0;
	}
	puts(json_string_value(json_object_get(reply, "id")));
	if (!options->quiet) {
		claim_explain(reply);
	}
	return 0;
}
