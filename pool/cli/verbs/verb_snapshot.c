/* hob snapshot, restore, fork: keeping what a sandbox has become, and going on from there. */
#include "base/memory.h"
#include "pool/cli/claim.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <inttypes.h>
#include <stdio.h>

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "-";
}

/* ---- snapshot ---- */

struct snapshot_values {
	const char *label;
	char **metadata;
	int64_t max_pause_ms;
	bool session, quiet;
};

#define MAX_PAUSE_HELP                                                                             \
	"give up rather than let it stand still longer, as 200ms (default and most: 5s)"

static void add_max_pause(json_t *body, int64_t max_pause_ms)
{
	if (max_pause_ms > 0) {
		json_object_set_new(body, "max_pause_ms", json_integer((json_int_t)max_pause_ms));
	}
}

static const struct option_row snapshot_rows[] = {
	{"label", 'l', OPTION_TEXT, "TEXT", offsetof(struct snapshot_values, label),
		"a line that says what it is, shown in lists"},
	{"metadata", 'm', OPTION_LIST, "K=V", offsetof(struct snapshot_values, metadata),
		"remember this with it"},
	{"max-pause", '\0', OPTION_DURATION, "DUR", offsetof(struct snapshot_values, max_pause_ms),
		MAX_PAUSE_HELP},
	{"session", '\0', OPTION_FLAG, NULL, offsetof(struct snapshot_values, session),
		"record it as one that a harness takes in passing, not as asked for by a person"},
	{"quiet", 'q', OPTION_FLAG, NULL, offsetof(struct snapshot_values, quiet),
		"print only the id"},
};

static void explain_snapshot(const json_t *reply)
{
	char took[HUMAN_SIZE], pause[HUMAN_SIZE], bytes[HUMAN_SIZE];

	human_span(took, json_integer_value(json_object_get(reply, "took_us")));
	human_span(pause, json_integer_value(json_object_get(reply, "pause_us")));
	human_bytes(bytes, json_integer_value(json_object_get(reply, "exclusive_bytes")));
	fflush(stdout);
	fprintf(stderr, "taken in %s, the sandbox stood still for %s; %s of its own\n", took, pause,
		bytes);
}

static int snapshot_run(struct call *call, struct error *err)
{
	const struct snapshot_values *values = call->values;
	CLEANUP(json_decref_p) json_t *body = json_object();
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	json_t *metadata = NULL;
	int status = cli_pairs(values->metadata, "metadata", false, &metadata, err);

	if (status < 0) {
		return status;
	}
	json_object_set_new(body, "metadata", metadata);
	json_object_set_new(body, "label", json_str_or_null(values->label));
	add_max_pause(body, values->max_pause_ms);
	json_object_set_new(body, "reason", json_string(values->session ? "session" : "manual"));
	if ((status = cli_sandbox_id(call->cli, call->operands[0], &id, err)) < 0 ||
		(status = cli_call(call->cli, "POST", body, &reply, err,
			 "/v1/sandboxes/%s/snapshots", id)) < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	puts(text_of(reply, "id"));
	if (!values->quiet) {
		explain_snapshot(reply);
	}
	return 0;
}

const struct verb verb_snapshot = {
	.name = "snapshot",
	.group = "Sandboxes",
	.operands = "ID",
	.summary = "Keep what a running sandbox has become, as of one instant",
	.details =
		"Prints the id of the snapshot on standard output. The sandbox goes on; it stands\n"
		"still only for what changed while the rest was copied. `hob snapshots ls` lists\n"
		"them, `hob restore` makes a sandbox of one.",
	VERB_OPTIONS(snapshot_rows, struct snapshot_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = snapshot_run,
};

/* ---- restore ---- */

static const struct option_row restore_rows[] = {
	{"key", 'k', OPTION_TEXT, "K", offsetof(struct claim_options, key),
		"take the one that `hob warm --snapshot ID --key K` restored ahead"},
	CLAIM_OPTION_ROWS,
};

static int restore_run(struct call *call, struct error *err)
{
	struct claim_options *options = call->values;

	options->snapshot = call->operands[0];
	return claim_and_print(call->cli, NULL, options, err);
}

const struct verb verb_restore = {
	.name = "restore",
	.group = "Sandboxes",
	.operands = "SNAPSHOT",
	.summary = "Make a sandbox of a snapshot; any number may stand on the same one",
	.details = "A SNAPSHOT is an id as snap-4, or a tag. Prints the id of the sandbox on "
		   "standard\n"
		   "output. Files are as they were; what was running was not kept.\n\n"
		   "  id=$(hob restore -q snap-4)",
	VERB_OPTIONS(restore_rows, struct claim_options),
	.defaults = &claim_defaults,
	.operands_min = 1,
	.operands_max = 1,
	.run = restore_run,
};

/* ---- fork ---- */

struct fork_values {
	const char *count;
	const char *label;
	int64_t max_pause_ms;
	bool quiet;
};

static const struct option_row fork_rows[] = {
	{"number", 'n', OPTION_TEXT, "N", offsetof(struct fork_values, count),
		"how many, 1 to 100 (default 1)"},
	{"label", 'l', OPTION_TEXT, "TEXT", offsetof(struct fork_values, label),
		"of the snapshot that they stand on"},
	{"max-pause", '\0', OPTION_DURATION, "DUR", offsetof(struct fork_values, max_pause_ms),
		MAX_PAUSE_HELP},
	{"quiet", 'q', OPTION_FLAG, NULL, offsetof(struct fork_values, quiet),
		"print only the ids"},
};

#define FORK_MAX 100

static int read_count(const char *text, json_int_t *ret_count, struct error *err)
{
	char *end = NULL;
	long count = text != NULL ? strtol(text, &end, 10) : 1;

	if (text != NULL && (end == text || *end != '\0' || count < 1 || count > FORK_MAX)) {
		return error_set(err, ERROR_USAGE, "-n needs a number from 1 to %d, not \"%s\"",
			FORK_MAX, text);
	}
	*ret_count = count;
	return 0;
}

/* Prints the ids; the number of those that failed, the first of them in *ret_error. */
static size_t print_children(const json_t *children, const json_t **ret_error)
{
	size_t failed = 0, i;
	json_t *child;

	json_array_foreach ((json_t *)(uintptr_t)children, i, child) {
		const json_t *error = json_object_get(child, "error");

		if (error == NULL) {
			puts(text_of(child, "id"));
		} else if (failed++ == 0) {
			*ret_error = error;
		}
	}
	return failed;
}

static void explain_fork(const json_t *reply, size_t made)
{
	const json_t *snapshot = json_object_get(reply, "snapshot");
	char took[HUMAN_SIZE], pause[HUMAN_SIZE];

	human_span(took, json_integer_value(json_object_get(reply, "took_us")));
	human_span(pause, json_integer_value(json_object_get(snapshot, "pause_us")));
	fflush(stdout);
	fprintf(stderr, "%zu in %s, over %s; the parent stood still for %s\n", made, took,
		text_of(snapshot, "id"), pause);
}

static int fork_run(struct call *call, struct error *err)
{
	const struct fork_values *values = call->values;
	CLEANUP(json_decref_p) json_t *body = NULL;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	const json_t *children, *error = NULL;
	size_t failed;
	json_int_t count = 1;
	int status = read_count(values->count, &count, err);

	if (status < 0 || (status = cli_sandbox_id(call->cli, call->operands[0], &id, err)) < 0) {
		return status;
	}
	body = json_pack("{s:I, s:o}", "count", count, "label", json_str_or_null(values->label));
	add_max_pause(body, values->max_pause_ms);
	status = cli_call(call->cli, "POST", body, &reply, err, "/v1/sandboxes/%s/fork", id);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	children = json_object_get(reply, "children");
	failed = print_children(children, &error);
	if (!values->quiet) {
		explain_fork(reply, json_array_size(children) - failed);
	}
	if (failed > 0) {
		return error_set(err, error_kind_from_name(text_of(error, "kind")),
			"%zu of %zu could not be made: %s", failed, json_array_size(children),
			text_of(error, "message"));
	}
	return 0;
}

const struct verb verb_fork = {
	.name = "fork",
	.group = "Sandboxes",
	.operands = "ID",
	.summary = "Make sandboxes that go on from where a running one is",
	.details = "Takes one snapshot and makes N sandboxes of it, each on its own from then on. "
		   "Prints\n"
		   "their ids on standard output. The parent goes on.",
	VERB_OPTIONS(fork_rows, struct fork_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = fork_run,
};
