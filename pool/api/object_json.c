/* Sandboxes and commands as JSON, and the small pieces that all objects share. */
#include "pool/api/object_json.h"

#include "base/base64.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/run.h"
#include "pool/sync/sync.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

json_t *json_time(int64_t real_ms)
{
	char text[CLOCK_TEXT_SIZE];

	if (real_ms <= 0) {
		return json_null();
	}
	clock_format(text, real_ms);
	return json_string(text);
}

void json_set_bytes(
	json_t *object, const char *key, const char *encoding_key, const void *data, size_t length)
{
	json_t *text = length > 0 ? json_stringn(data, length) : json_string("");

	if (text == NULL) {
		CLEANUP(free_p) char *encoded = base64_encode(data, length);

		text = json_string(encoded);
		json_object_set_new(object, encoding_key, json_string("base64"));
	}
	json_object_set_new(object, key, text);
}

json_t *json_numbered(const char *prefix, int64_t id)
{
	char text[32];

	if (id == 0) {
		return json_null();
	}
	snprintf(text, sizeof(text), "%s%" PRId64, prefix, id);
	return json_string(text);
}

json_t *entry_to_json(const struct entry *entry)
{
	const struct entry_record *record = &entry->record;
	const struct pool_image *image = entry->image;
	json_t *json;

	json = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:s, s:s, "
			 "s:I, s:b, s:o}",
		"id", record->id, "environment", record->environment, "image",
		json_numbered("img-", image != NULL ? image->id : record->image_id), "snapshot",
		json_numbered("snap-", record->snapshot_id), "commit", entry_commit(entry), "state",
		entry_state_name(record->state), "created_at", json_time(record->created_ms),
		"claimed_at", json_time(record->claimed_ms), "expires_at",
		json_time(entry_expires_ms(entry)), "idle_s",
		(json_int_t)((record->idle_ms + 999) / 1000), "last_active_at",
		json_time(record->last_active_ms), "metadata",
		record->metadata != NULL ? json_incref(record->metadata) : json_object(), "cwd",
		image != NULL ? image->cwd : "/", "user", image != NULL ? image->user : "root",
		"pid", (json_int_t)record->pid, "frozen", entry->frozen, "paused_at",
		json_time(record->paused_at_ms));
	if (entry->stands_on != NULL) {
		json_object_set_new(json, "stands_on", json_numbered("img-", entry->stands_on->id));
	}
	json_object_set_new(json, "behind_s", json_integer((json_int_t)sync_behind_s(entry)));
	json_object_set_new(json, "sync", sync_to_json(entry));
	return json;
}

static json_t *argv_to_json(char *const *argv)
{
	json_t *array = json_array();

	for (; argv != NULL && *argv != NULL; argv++) {
		json_array_append_new(array, json_str_or_null(*argv));
	}
	return array;
}

json_t *run_to_json(const struct run *run)
{
	bool ended = run->ended_ms > 0;

	return json_pack("{s:I, s:o, s:b, s:I, s:o, s:o}", "exec", (json_int_t)run->id, "argv",
		argv_to_json(run->argv), "running", !ended, "pid", (json_int_t)run->pid,
		"started_at", json_time(run->started_ms), "exit_code",
		ended && run->error.kind == ERROR_NONE ? json_integer(run->result.code)
						       : json_null());
}

json_t *runs_to_json(const struct entry *entry)
{
	json_t *array = json_array();

	/* The list has the newest first; people read the other way. */
	for (const struct run *run = entry->runs; run != NULL; run = run->next) {
		json_array_insert_new(array, 0, run_to_json(run));
	}
	return array;
}

static void add_output(json_t *json, const struct run *run)
{
	struct buffer text;

	for (int i = 0; i < 2; i++) {
		buffer_init(&text, 0);
		output_collect(&run->output, i == 0 ? EXEC_STDOUT : EXEC_STDERR, &text);
		json_set_bytes(json, i == 0 ? "stdout" : "stderr",
			i == 0 ? "stdout_encoding" : "stderr_encoding", buffer_text(&text),
			text.length);
		buffer_done(&text);
		if (run->output.truncated[i]) {
			json_object_set_new(json, i == 0 ? "stdout_truncated" : "stderr_truncated",
				json_true());
		}
	}
}

json_t *run_error_to_json(const struct run *run)
{
	static const char *const names[] = {
		[EXEC_STEP_USER] = "user", [EXEC_STEP_CWD] = "cwd", [EXEC_STEP_EXEC] = "exec"};
	const struct error *err = &run->error;
	json_t *json = json_from_error(err);

	if (run->refused != EXEC_STEP_OTHER) {
		json_object_set_new(json, "step", json_string(names[run->refused]));
	}
	if (run->refused == EXEC_STEP_EXEC) {
		json_object_set_new(
			json, "exit_code", json_integer(err->sys == ENOENT ? 127 : 126));
	}
	return json;
}

json_t *run_result_to_json(const struct run *run, bool output)
{
	const struct exec_result *result = &run->result;
	json_t *json = json_pack("{s:I, s:i, s:o, s:f, s:f, s:f, s:I}", "exec", (json_int_t)run->id,
		"exit_code", result->code, "signal",
		result->signal != 0 ? json_integer(result->signal) : json_null(), "took_ms",
		(double)result->took_us / 1000, "user_ms", (double)result->user_us / 1000,
		"system_ms", (double)result->system_us / 1000, "max_rss_bytes",
		(json_int_t)result->max_rss_bytes);

	if (run->timed_out) {
		json_object_set_new(json, "timed_out", json_true());
	}
	if (output) {
		add_output(json, run);
	}
	return json;
}
