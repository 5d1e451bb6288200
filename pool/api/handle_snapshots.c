/* Taking snapshots, and showing and removing them. A snapshot that was begun is taken whether its
 * client waits or not. */
#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/manager.h"
#include "pool/snapshot.h"
#include "snapshots/cli/cli.h"

#include <inttypes.h>

/* ---- taking ---- */

static void on_taken(void *context, const struct snapshot_result *result, const struct error *err)
{
	struct http_request *request = context;

	http_request_work_done(request);
	if (err != NULL) {
		http_reply_error(request, err);
	} else {
		http_reply_json(request, MHD_HTTP_CREATED, taken_to_json(result));
	}
}

json_t *taken_to_json(const struct snapshot_result *result)
{
	json_t *json = json_copy((json_t *)(uintptr_t)result->about);

	json_object_set_new(json, "pause_us", json_integer((json_int_t)result->pause_us));
	json_object_set_new(json, "copy_us", json_integer((json_int_t)result->copy_us));
	json_object_set_new(json, "took_us", json_integer((json_int_t)result->took_us));
	return json;
}

static void on_taker_gone(void *work)
{
	snapshot_forget(work);
}

void handle_snapshot_take(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct snapshot_body body;
	struct snapshot_job *job = NULL;
	struct error err = ERROR_INIT;
	struct entry *entry;

	if (http_body_json(request, &json, &err) < 0 ||
		snapshot_body_parse(json, &body, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry == NULL) {
		return;
	}
	if (snapshot_start(entry,
		    &(struct snapshot_order){.reason = body.reason,
			    .label = body.label,
			    .metadata = body.metadata,
			    .max_pause_ms = body.max_pause_ms},
		    on_taken, request, &job, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	http_request_work(request, job, on_taker_gone);
}

/* ---- showing ---- */

/* Ids of the sandboxes that stand on it. */
static json_t *standing_json(const struct manager *manager, int64_t id)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ENTRY_BUCKETS; i++) {
		for (const struct entry *entry = manager->buckets[i]; entry != NULL;
			entry = entry->bucket_next) {
			if (entry->record.snapshot_id == id) {
				json_array_append_new(list, json_string(entry->record.id));
			}
		}
	}
	return list;
}

static int add_users(struct store *store, int64_t id, json_t *json, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	json_t *list;
	int status = snapshot_users(store, id, &users, err);

	if (status < 0) {
		return status;
	}
	list = json_array();
	for (char **user = users; user != NULL && *user != NULL; user++) {
		json_array_append_new(list, json_str_or_null(*user));
	}
	json_object_set_new(json, "users", list);
	return 0;
}

void handle_snapshot_list(struct http_request *request)
{
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	struct snapshot *snapshots = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;
	json_t *list;

	filter.environment = http_query(request, "environment");
	if (snapshot_list(request->manager->store, &filter, &snapshots, &count, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, cli_snapshot_json(&snapshots[i]));
	}
	snapshots_free(snapshots, count);
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "snapshots", list));
}

void handle_snapshot_get(struct http_request *request)
{
	struct store *store = request->manager->store;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	int status = snapshot_find(store, request->match.args[0], &snapshot, &err);

	if (status == 0) {
		json = cli_snapshot_json(&snapshot);
		json_object_set_new(
			json, "layers", layers_to_json(snapshot.layers, snapshot.layer_count));
		status = add_users(store, snapshot.id, json, &err);
		json_object_set_new(
			json, "sandboxes", standing_json(request->manager, snapshot.id));
	}
	snapshot_done(&snapshot);
	if (status < 0) {
		http_reply_error(request, &err);
	} else {
		http_reply_json(request, MHD_HTTP_OK, steal_ptr(json));
	}
}

static void name_standing(const struct manager *manager, int64_t id, struct error *err)
{
	CLEANUP(json_decref_p) json_t *list = standing_json(manager, id);
	size_t count = json_array_size(list);

	if (count > 0) {
		(void)error_hint(err,
			"%s%s stand%s on it; GET /v1/snapshots/snap-%" PRId64 " lists who",
			json_string_value(json_array_get(list, 0)), count > 1 ? " and others" : "",
			count > 1 ? "" : "s", id);
	}
}

void handle_snapshot_delete(struct http_request *request)
{
	struct store *store = request->manager->store;
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	uint64_t freed = 0;
	int status = snapshot_find(store, request->match.args[0], &snapshot, &err);

	if (status == 0) {
		status = snapshot_remove(store, snapshot.id, &freed, &err);
	}
	if (status == -ERROR_CONFLICT) {
		name_standing(request->manager, snapshot.id, &err);
	}
	if (status < 0) {
		http_reply_error(request, &err);
	} else {
		http_reply_json(request, MHD_HTTP_OK,
			json_pack("{s:o, s:I}", "id", json_numbered("snap-", snapshot.id),
				"freed_bytes", (json_int_t)freed));
	}
	snapshot_done(&snapshot);
}

/* ---- pins and tags ---- */

/* Finds it, does `change`, shows what it is now. */
static void change_snapshot(struct http_request *request,
	int (*change)(struct http_request *request, int64_t id, struct error *err))
{
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	int status =
		snapshot_find(request->manager->store, request->match.args[0], &snapshot, &err);

	if (status == 0) {
		status = change(request, snapshot.id, &err);
	}
	snapshot_done(&snapshot);
	if (status < 0) {
		http_reply_error(request, &err);
	} else {
		handle_snapshot_get(request);
	}
}

static int pin(struct http_request *request, int64_t id, struct error *err)
{
	return snapshot_pin(request->manager->store, id, true, err);
}

static int unpin(struct http_request *request, int64_t id, struct error *err)
{
	return snapshot_pin(request->manager->store, id, false, err);
}

static int tag(struct http_request *request, int64_t id, struct error *err)
{
	static const char *const keys[] = {"tag", "move", NULL};
	CLEANUP(json_decref_p) json_t *json = NULL;
	const char *name = NULL;
	int status;

	if ((status = http_body_json(request, &json, err)) < 0 ||
		(status = json_check_keys(json, keys, err)) < 0 ||
		(status = json_get_str(json, "tag", &name, err)) < 0) {
		return status;
	}
	if (name == NULL) {
		return error_set(err, ERROR_INVALID, "\"tag\" is missing");
	}
	return snapshot_tag(request->manager->store, id, name,
		json_is_true(json_object_get(json, "move")), err);
}

static int untag(struct http_request *request, int64_t id, struct error *err)
{
	const char *name = request->match.args[1];
	struct snapshot tagged = {0};
	int status = snapshot_find(request->manager->store, name, &tagged, err);
	bool other = status == 0 && tagged.id != id;

	snapshot_done(&tagged);
	if (other) {
		return error_set(err, ERROR_NOT_FOUND, "%s is not a tag of this snapshot", name);
	}
	return status < 0 ? status : snapshot_untag(request->manager->store, name, err);
}

void handle_snapshot_pin(struct http_request *request)
{
	change_snapshot(request, pin);
}

void handle_snapshot_unpin(struct http_request *request)
{
	change_snapshot(request, unpin);
}

void handle_snapshot_tag(struct http_request *request)
{
	change_snapshot(request, tag);
}

void handle_snapshot_untag(struct http_request *request)
{
	/* Named by its tag, it would not be found again to be shown. */
	change_snapshot(request, untag);
}
