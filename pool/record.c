/* State lines and exec lines. A line is written whole or not at all as far as the reader is
 * concerned: what has no '\n' does not count, and a line after a torn one starts with its own '\n'.
 */
#include "pool/record.h"

#include "base/memory.h"

#include <inttypes.h>

#define RECORD_VERSION 1

static const char *const state_names[] = {
	[ENTRY_CREATING] = "creating",
	[ENTRY_WARMING] = "warming",
	[ENTRY_READY] = "ready",
	[ENTRY_CLAIMED] = "claimed",
	[ENTRY_PAUSED] = "paused",
	[ENTRY_DORMANT] = "dormant",
	[ENTRY_RELEASING] = "releasing",
	[ENTRY_GONE] = "gone",
};
_Static_assert(ARRAY_SIZE(state_names) == ENTRY_STATES, "every state has a name");

/* Adoption goes through WARMING too: a sandbox is its old self once hob-init said hello again. */
static const bool transitions[ENTRY_STATES][ENTRY_STATES] = {
	[ENTRY_CREATING] = {[ENTRY_WARMING] = true, [ENTRY_RELEASING] = true},
	[ENTRY_WARMING] = {[ENTRY_READY] = true,
		[ENTRY_CLAIMED] = true,
		[ENTRY_PAUSED] = true,
		[ENTRY_RELEASING] = true},
	[ENTRY_READY] = {[ENTRY_CLAIMED] = true, [ENTRY_RELEASING] = true},
	[ENTRY_CLAIMED] = {[ENTRY_PAUSED] = true, [ENTRY_RELEASING] = true},
	[ENTRY_DORMANT] = {[ENTRY_CREATING] = true, [ENTRY_GONE] = true},
	[ENTRY_PAUSED] = {[ENTRY_CLAIMED] = true, [ENTRY_RELEASING] = true},
	[ENTRY_RELEASING] = {[ENTRY_GONE] = true},
};

const char *entry_state_name(enum entry_state state)
{
	return state_names[state];
}

bool entry_state_from_name(const char *name, enum entry_state *ret_state)
{
	for (size_t i = 0; i < ENTRY_STATES; i++) {
		if (streq(state_names[i], name)) {
			*ret_state = (enum entry_state)i;
			return true;
		}
	}
	return false;
}

bool entry_state_may_follow(enum entry_state from, enum entry_state to)
{
	return transitions[from][to];
}

bool hint_key_is_valid(const char *key)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._:@=+~-";
	size_t length = strlen(key);

	return length > 0 && length < HINT_KEY_SIZE && strspn(key, letters) == length;
}

void entry_record_done(struct entry_record *record)
{
	strv_free(record->env);
	json_decref(record->metadata);
	strv_free(record->sync.commits);
	free(record->sync.to);
	record->env = NULL;
	record->metadata = NULL;
	record->sync = (struct entry_record_sync){0};
}

static json_t *json_from_strv(char *const *list)
{
	json_t *array = json_array();

	for (; list != NULL && *list != NULL; list++) {
		json_array_append_new(array, json_string(*list));
	}
	return array;
}

struct meter_row {
	const char *key;
	size_t offset;
};

static const struct meter_row meter_rows[] = {
	{"started_ms", offsetof(struct entry_meter, started_ms)},
	{"active_ms", offsetof(struct entry_meter, active_ms)},
	{"active_since_ms", offsetof(struct entry_meter, active_since_ms)},
	{"cpu_base_us", offsetof(struct entry_meter, cpu_base_us)},
	{"cpu_us", offsetof(struct entry_meter, cpu_us)},
	{"memory_kib_s", offsetof(struct entry_meter, memory_kib_s)},
	{"memory_kib", offsetof(struct entry_meter, memory_kib)},
	{"sampled_ms", offsetof(struct entry_meter, sampled_ms)},
	{"ended_ms", offsetof(struct entry_meter, ended_ms)},
};

static int64_t *meter_member(const struct entry_meter *meter, const struct meter_row *row)
{
	return (int64_t *)(uintptr_t)((uintptr_t)meter + row->offset);
}

/* Numbers and names that need no escaping are most of a line, which is written in the way of a
 * claim's answer: they are formatted as they are. */
static void put_int(struct buffer *line, const char *key, int64_t value)
{
	buffer_addf(line, ",\"%s\":%" PRId64, key, value);
}

static void put_number(struct buffer *line, const char *key, int64_t value)
{
	if (value != 0) {
		put_int(line, key, value);
	}
}

static void put_name(struct buffer *line, const char *key, const char *name)
{
	buffer_addf(line, ",\"%s\":\"%s\"", key, name);
}

/* Takes the value. */
static void put_json(struct buffer *line, const char *key, json_t *value)
{
	CLEANUP(free_p) char *text = json_text(value);

	buffer_addf(line, ",\"%s\":", key);
	buffer_add_str(line, text);
	json_decref(value);
}

static void put_meter(struct buffer *line, const struct entry_meter *meter)
{
	const char *separator = "";

	buffer_add_str(line, ",\"meter\":{");
	for (size_t i = 0; i < ARRAY_SIZE(meter_rows); i++) {
		int64_t value = *meter_member(meter, &meter_rows[i]);

		if (value != 0) {
			buffer_addf(line, "%s\"%s\":%" PRId64, separator, meter_rows[i].key, value);
			separator = ",";
		}
	}
	buffer_add(line, "}", 1);
}

/* NULL when there is nothing to tell. */
static json_t *json_from_sync(const struct entry_record_sync *sync)
{
	json_t *json;

	if (sync->commits == NULL && !sync->running && !sync->torn && sync->refreshed_id == 0) {
		return NULL;
	}
	json = json_pack("{s:I, s:I, s:I}", "image", (json_int_t)sync->refreshed_id, "refreshes",
		(json_int_t)sync->refreshes, "bytes", (json_int_t)sync->bytes);
	if (sync->commits != NULL) {
		json_object_set_new(json, "commits", json_from_strv(sync->commits));
	}
	if (sync->running) {
		json_object_set_new(json, "exec", json_integer(sync->exec));
		json_object_set_new(json, "source", json_integer((json_int_t)sync->source));
		json_object_set_new(json, "to", json_string(sync->to != NULL ? sync->to : ""));
	}
	if (sync->torn) {
		json_object_set_new(json, "torn", json_true());
	}
	return json;
}

/* A record of before there were meters has none. */
static int meter_parse(const json_t *json, struct entry_meter *meter, struct error *err)
{
	for (size_t i = 0; json != NULL && i < ARRAY_SIZE(meter_rows); i++) {
		int status = json_get_int(json, meter_rows[i].key, 0, INT64_MAX,
			meter_member(meter, &meter_rows[i]), err);

		if (status < 0) {
			return status;
		}
	}
	return 0;
}

/* What most records have none of is left out. */
static void put_rest(struct buffer *line, const struct entry_record *record)
{
	json_t *sync = json_from_sync(&record->sync);

	put_number(line, "snapshot", record->snapshot_id);
	put_number(line, "snapshot_every_ms", record->snapshot_every_ms);
	put_number(line, "pause_ms", record->pause_ms);
	put_number(line, "paused_at_ms", record->paused_at_ms);
	put_number(line, "disk_over", record->disk_over);
	if (record->claimed_ms != 0) {
		put_meter(line, &record->meter);
	}
	if (record->lifecycle != LIFECYCLE_EPHEMERAL) {
		put_name(line, "lifecycle", environment_lifecycle_name(record->lifecycle));
	}
	if (record->returns) {
		buffer_add_str(line, ",\"returns\":true");
	}
	if (record->keep) {
		buffer_add_str(line, ",\"keep\":true");
	}
	if (record->hint.key[0] != '\0') {
		put_json(line, "hint",
			json_pack("{s:s, s:s, s:I}", "owner", record->hint.owner, "key",
				record->hint.key, "ttl_ms", (json_int_t)record->hint.ttl_ms));
	}
	if (sync != NULL) {
		put_json(line, "sync", sync);
	}
	if (record->env != NULL) {
		put_json(line, "env", json_from_strv(record->env));
	}
	if (record->metadata != NULL) {
		put_json(line, "metadata", json_incref(record->metadata));
	}
}

bool entry_record_format(const struct entry_record *record, struct buffer *line)
{
	CLEANUP(buffer_done) struct buffer text;

	buffer_init(&text, 0);
	buffer_addf(&text, "{\"v\":%d", RECORD_VERSION);
	put_name(&text, "id", record->id);
	put_name(&text, "state", entry_state_name(record->state));
	put_name(&text, "environment", record->environment);
	put_int(&text, "image", record->image_id);
	put_int(&text, "slot", record->slot);
	put_int(&text, "pid", record->pid);
	put_int(&text, "pid_start", (int64_t)record->pid_start);
	put_int(&text, "created_ms", record->created_ms);
	put_int(&text, "claimed_ms", record->claimed_ms);
	put_int(&text, "expires_ms", record->expires_ms);
	put_int(&text, "age_limit_ms", record->age_limit_ms);
	put_int(&text, "idle_ms", record->idle_ms);
	put_int(&text, "last_active_ms", record->last_active_ms);
	put_rest(&text, record);
	buffer_add(&text, "}\n", 2);
	return buffer_add(line, text.data, text.length);
}

static int read_numbers(const json_t *json, struct entry_record *record, struct error *err)
{
	int64_t slot = -1, pid = 0, pid_start = 0;
	const struct {
		const char *key;
		int64_t lowest, highest;
		int64_t *to;
	} rows[] = {
		{"image", 0, INT64_MAX, &record->image_id},
		{"snapshot", 0, INT64_MAX, &record->snapshot_id},
		{"slot", 0, UINT32_MAX, &slot},
		{"pid", 0, INT32_MAX, &pid},
		{"pid_start", 0, INT64_MAX, &pid_start},
		{"created_ms", 1, INT64_MAX, &record->created_ms},
		{"claimed_ms", 0, INT64_MAX, &record->claimed_ms},
		{"expires_ms", 0, INT64_MAX, &record->expires_ms},
		{"age_limit_ms", 0, INT64_MAX, &record->age_limit_ms},
		{"idle_ms", 0, INT64_MAX, &record->idle_ms},
		{"last_active_ms", 0, INT64_MAX, &record->last_active_ms},
		{"pause_ms", 0, INT64_MAX, &record->pause_ms},
		{"snapshot_every_ms", 0, INT64_MAX, &record->snapshot_every_ms},
		{"paused_at_ms", 0, INT64_MAX, &record->paused_at_ms},
		{"disk_over", 0, INT64_MAX, &record->disk_over},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int status = json_get_int(
			json, rows[i].key, rows[i].lowest, rows[i].highest, rows[i].to, err);

		if (status < 0) {
			return status;
		}
	}
	if (slot < 0 || (record->image_id == 0 && record->snapshot_id == 0) ||
		record->created_ms == 0) {
		return error_set(err, ERROR_CORRUPT, "slot, image or created_ms is missing");
	}
	record->slot = (uint32_t)slot;
	record->pid = (pid_t)pid;
	record->pid_start = (uint64_t)pid_start;
	return 0;
}

static int read_names(const json_t *json, struct entry_record *record, struct error *err)
{
	const char *id = "", *state = "", *environment = "", *lifecycle = "ephemeral";
	int status;

	if ((status = json_get_bool(json, "keep", &record->keep, err)) < 0 ||
		(status = json_get_bool(json, "returns", &record->returns, err)) < 0 ||
		(status = json_get_str(json, "id", &id, err)) < 0 ||
		(status = json_get_str(json, "state", &state, err)) < 0 ||
		(status = json_get_str(json, "lifecycle", &lifecycle, err)) < 0 ||
		(status = json_get_str(json, "environment", &environment, err)) < 0) {
		return status;
	}
	if (!name_is_valid(id) || strlen(id) >= ID_SIZE || !name_is_valid(environment)) {
		return error_set(err, ERROR_CORRUPT, "no valid id or environment");
	}
	if (!environment_lifecycle_from_name(lifecycle, &record->lifecycle)) {
		return error_set(err, ERROR_CORRUPT, "unknown lifecycle \"%s\"", lifecycle);
	}
	if (!entry_state_from_name(state, &record->state)) {
		return error_set(err, ERROR_CORRUPT, "unknown state \"%s\"", state);
	}
	memcpy(record->id, id, strlen(id) + 1);
	memcpy(record->environment, environment, strlen(environment) + 1);
	return 0;
}

static int read_hint(const json_t *json, struct hint_record *hint, struct error *err)
{
	const json_t *about = json_object_get(json, "hint");
	const char *owner = "", *key = "";
	int status;

	if (about == NULL) {
		return 0;
	}
	if (!json_is_object(about)) {
		return error_set(err, ERROR_CORRUPT, "hint has the wrong type");
	}
	if ((status = json_get_str(about, "owner", &owner, err)) < 0 ||
		(status = json_get_str(about, "key", &key, err)) < 0 ||
		(status = json_get_int(about, "ttl_ms", 1, INT64_MAX, &hint->ttl_ms, err)) < 0) {
		return status;
	}
	if (*owner == '\0' || strlen(owner) >= sizeof(hint->owner) || !hint_key_is_valid(key) ||
		hint->ttl_ms == 0) {
		return error_set(err, ERROR_CORRUPT, "no valid owner, key or ttl_ms of its hint");
	}
	memcpy(hint->owner, owner, strlen(owner) + 1);
	memcpy(hint->key, key, strlen(key) + 1);
	return 0;
}

static int read_sync(const json_t *json, struct entry_record_sync *sync, struct error *err)
{
	const json_t *commits = json_object_get(json, "commits");
	const char *to = NULL;
	int64_t exec = -1;
	json_t *item;
	size_t i;
	int status;

	if (json == NULL) {
		return 0;
	}
	if (!json_is_object(json) || (commits != NULL && !json_is_array(commits))) {
		return error_set(err, ERROR_CORRUPT, "sync has the wrong type");
	}
	json_array_foreach ((json_t *)(uintptr_t)commits, i, item) {
		strv_add(&sync->commits, json_is_string(item) ? json_string_value(item) : "");
	}
	if ((status = json_get_int(json, "image", 0, INT64_MAX, &sync->refreshed_id, err)) < 0 ||
		(status = json_get_int(json, "refreshes", 0, INT64_MAX, &sync->refreshes, err)) <
			0 ||
		(status = json_get_int(json, "bytes", 0, INT64_MAX, &sync->bytes, err)) < 0 ||
		(status = json_get_int(json, "source", 0, INT64_MAX, &sync->source, err)) < 0 ||
		(status = json_get_int(json, "exec", 0, INT32_MAX, &exec, err)) < 0 ||
		(status = json_get_bool(json, "torn", &sync->torn, err)) < 0 ||
		(status = json_get_str(json, "to", &to, err)) < 0) {
		return status;
	}
	sync->running = exec >= 0;
	sync->exec = exec >= 0 ? (uint32_t)exec : 0;
	sync->to = xstrdup(to);
	return 0;
}

static int read_claim(const json_t *json, struct entry_record *record, struct error *err)
{
	json_t *env = json_object_get(json, "env");
	json_t *metadata = json_object_get(json, "metadata");
	json_t *item;
	size_t i;

	if ((env != NULL && !json_is_array(env)) ||
		(metadata != NULL && !json_is_object(metadata))) {
		return error_set(err, ERROR_CORRUPT, "env or metadata has the wrong type");
	}
	json_array_foreach (env, i, item) {
		if (!json_is_string(item)) {
			return error_set(err, ERROR_CORRUPT, "env holds something other than text");
		}
		strv_add(&record->env, json_string_value(item));
	}
	record->metadata = json_incref(metadata);
	return 0;
}

int entry_record_parse(
	const char *line, size_t length, struct entry_record *ret_record, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct entry_record record = {.state = ENTRY_GONE};
	int64_t version = 0;
	int status;

	if ((status = json_parse_object(line, length, &json, err)) < 0 ||
		(status = json_get_int(json, "v", 0, INT64_MAX, &version, err)) < 0) {
		err->kind = ERROR_CORRUPT;
		return -ERROR_CORRUPT;
	}
	if (version != RECORD_VERSION) {
		return error_set(err, ERROR_CORRUPT,
			"state version %" PRId64 ", this hobd knows %d", version, RECORD_VERSION);
	}
	if ((status = read_names(json, &record, err)) < 0 ||
		(status = read_numbers(json, &record, err)) < 0 ||
		(status = read_hint(json, &record.hint, err)) < 0 ||
		(status = meter_parse(json_object_get(json, "meter"), &record.meter, err)) < 0 ||
		(status = read_claim(json, &record, err)) < 0 ||
		(status = read_sync(json_object_get(json, "sync"), &record.sync, err)) < 0) {
		entry_record_done(&record);
		err->kind = ERROR_CORRUPT;
		return -ERROR_CORRUPT;
	}
	*ret_record = record;
	return 0;
}

int entry_record_last(
	const char *text, size_t length, struct entry_record *ret_record, struct error *err)
{
	while (length > 0 && text[length - 1] != '\n') {
		length--;
	}
	while (length > 0) {
		size_t end = length - 1, start = end;

		while (start > 0 && text[start - 1] != '\n') {
			start--;
		}
		if (end > start) {
			return entry_record_parse(text + start, end - start, ret_record, err);
		}
		length = start; /* an empty line, put there to end a torn one */
	}
	return error_set(err, ERROR_CORRUPT, "no complete line");
}

/* A pause is the start of another stretch of idleness, so that it never hastens the end. */
static int64_t idle_since_ms(const struct entry_record *record)
{
	return record->paused_at_ms > record->last_active_ms ? record->paused_at_ms
							     : record->last_active_ms;
}

int64_t entry_record_pause_at(const struct entry_record *record, bool busy)
{
	return record->pause_ms > 0 && !busy ? record->last_active_ms + record->pause_ms
					     : INT64_MAX;
}

int64_t entry_record_deadline(const struct entry_record *record, bool busy)
{
	int64_t at = INT64_MAX;

	if (record->expires_ms > 0 && record->expires_ms < at) {
		at = record->expires_ms;
	}
	if (record->age_limit_ms > 0 && record->age_limit_ms < at) {
		at = record->age_limit_ms;
	}
	if (record->idle_ms > 0 && !busy && idle_since_ms(record) + record->idle_ms < at) {
		at = idle_since_ms(record) + record->idle_ms;
	}
	return at;
}

const char *entry_record_deadline_name(const struct entry_record *record, bool busy)
{
	int64_t at = entry_record_deadline(record, busy);

	if (at == record->expires_ms) {
		return "timeout";
	}
	return at == record->age_limit_ms ? "max_age" : "idle";
}

void exec_record_format(const struct exec_record *record, struct buffer *line)
{
	CLEANUP(json_decref_p) json_t *argv = json_from_strv(record->argv);
	CLEANUP(free_p) char *text = json_text(argv);

	buffer_addf(line, "%" PRIu32 " %" PRId64 " %s\n", record->id, record->started_ms, text);
}

static void parse_exec_line(const char *line, size_t length,
	void (*fn)(void *context, const struct exec_record *record), void *context)
{
	CLEANUP(free_p) char *copy = xstrndup(line, length);
	CLEANUP(strv_free_p) char **argv = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;
	json_t *item;
	char *end = copy;
	size_t i;
	struct exec_record record;
	unsigned long long id = strtoull(copy, &end, 10);
	long long started;

	if (end == copy || *end != ' ' || id == 0 || id > UINT32_MAX) {
		return;
	}
	started = strtoll(end + 1, &end, 10);
	json = *end == ' ' ? json_loads(end + 1, 0, NULL) : NULL;
	if (!json_is_array(json)) {
		return;
	}
	json_array_foreach (json, i, item) {
		strv_add(&argv, json_is_string(item) ? json_string_value(item) : "");
	}
	record = (struct exec_record){.id = (uint32_t)id, .started_ms = started, .argv = argv};
	fn(context, &record);
}

void exec_records_parse(const char *text, size_t length,
	void (*fn)(void *context, const struct exec_record *record), void *context)
{
	while (length > 0) {
		const char *end = memchr(text, '\n', length);

		if (end == NULL) {
			return;
		}
		parse_exec_line(text, (size_t)(end - text), fn, context);
		length -= (size_t)(end - text) + 1;
		text = end + 1;
	}
}
