/* Any bytes as the body of any request, as a line of a state file and as a path: parsing must not
 * crash or leak, and a record that is accepted must survive being written and read again. */
#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/api/http_route.h"
#include "pool/record.h"

#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct route routes[] = {
	{.method = "GET", .pattern = "/v1/sandboxes/*/execs/*"},
	{.method = "GET", .pattern = "/v1/sandboxes/*/files/**"},
	{0},
};

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "fuzz_request: %s\n", what);
		abort();
	}
}

static void try_bodies(const char *text, size_t size)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	struct claim_body claim;
	struct exec_body exec;
	struct terminal_message message;
	int64_t seconds;

	if (json_parse_object(text, size, &json, &err) < 0) {
		return;
	}
	if (claim_body_parse(json, &claim, &err) == 0) {
		must((claim.environment == NULL) != (claim.image == NULL), "a claim of two things");
		claim_body_done(&claim);
	}
	if (exec_body_parse(json, &exec, &err) == 0) {
		must(exec.argv != NULL && exec.argv[0] != NULL, "a command without a word");
		exec_body_done(&exec);
	}
	if (timeout_body_parse(json, &seconds, &err) == 0) {
		must(seconds >= 0, "a negative timeout");
	}
	if (terminal_message_parse(json, &message, &err) == 0) {
		must(!message.resize || (message.rows > 0 && message.cols > 0),
			"an empty terminal");
	}
}

static void try_record(const char *text, size_t size)
{
	struct entry_record record, again;
	struct error err = ERROR_INIT;
	struct buffer line;

	if (entry_record_last(text, size, &record, &err) < 0) {
		return;
	}
	buffer_init(&line, 0);
	must(entry_record_format(&record, &line), "a record that cannot be written");
	must(entry_record_last(line.data, line.length, &again, &err) == 0,
		"a record that got lost");
	must(streq(record.id, again.id) && record.slot == again.slot, "another record");
	entry_record_done(&record);
	entry_record_done(&again);
	buffer_done(&line);
}

static void on_exec(void *context, const struct exec_record *record)
{
	(void)context;
	must(record->id > 0, "a command without a number");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(free_p) char *text = xstrndup((const char *)data, size);
	struct route_match match = route_find(routes, "GET", text);

	must(match.route == NULL || match.args[0][0] != '\0', "an empty name in a path");
	try_bodies((const char *)data, size);
	try_record((const char *)data, size);
	exec_records_parse((const char *)data, size, on_exec, NULL);
	return 0;
}
