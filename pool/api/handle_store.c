/* What takes long in the store (verify, flatten, gc, dedupe, export, import) or reads what hobd may
 * not (diff, du, tree): each request is one verb of hob-snapshots, see store_work.h. */
#include "pool/api/store_work.h"

#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/api/object_json.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/snapshot.h"

#include <inttypes.h>
#include <stdio.h>

static bool query_flag(struct http_request *request, const char *name)
{
	const char *value = http_query(request, name);

	return value != NULL && !streq(value, "0") && !streq(value, "false");
}

/* The body's flag and name, both of which may be missing; false: it was answered. */
static bool read_body(struct http_request *request, const char *flag, bool *ret_flag,
	const char *text, char ret_text[NAME_MAX_LENGTH + 1])
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	const char *key, *found;
	json_t *value;

	ret_text[0] = '\0';
	if (http_body_json(request, &json, &err) < 0) {
		http_reply_error(request, &err);
		return false;
	}
	json_object_foreach (json, key, value) {
		found = json_string_value(value);
		if (streq(key, flag) && json_is_boolean(value)) {
			*ret_flag = json_is_true(value);
		} else if (text != NULL && streq(key, text) && found != NULL &&
			   name_is_valid(found)) {
			memcpy(ret_text, found, strlen(found) + 1);
		} else {
			error_set(&err, ERROR_INVALID, "\"%s\" is unknown here, or no such value",
				key);
			http_reply_error(request, &err);
			return false;
		}
	}
	return true;
}

void handle_store_verify(struct http_request *request)
{
	char name[NAME_MAX_LENGTH + 1];
	bool quick = false;

	if (read_body(request, "quick", &quick, "snapshot", name)) {
		store_work_start(request,
			&(struct store_order){.tool = STORE_VERIFY, .name = name, .option = quick});
	}
}

void handle_store_gc(struct http_request *request)
{
	char none[NAME_MAX_LENGTH + 1];
	bool dry_run = false;

	if (read_body(request, "dry_run", &dry_run, NULL, none)) {
		store_work_start(
			request, &(struct store_order){.tool = STORE_GC, .option = dry_run});
	}
}

void handle_snapshot_flatten(struct http_request *request)
{
	store_work_start(request,
		&(struct store_order){.tool = STORE_FLATTEN, .name = request->match.args[0]});
}

void handle_snapshot_tree(struct http_request *request)
{
	store_work_start(
		request, &(struct store_order){.tool = STORE_TREE, .name = request->match.args[0]});
}

void handle_store_du(struct http_request *request)
{
	store_work_start(request, &(struct store_order){.tool = STORE_DU});
}

/* Against ?from=, else the image or snapshot that it was taken above. */
void handle_snapshot_diff(struct http_request *request)
{
	const char *from = http_query(request, "from");
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	char below[32];

	if (snapshot_find(request->manager->store, request->match.args[0], &snapshot, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	snprintf(below, sizeof(below), "%s-%" PRId64, snapshot.parent_id != 0 ? "snap" : "img",
		snapshot.parent_id != 0 ? snapshot.parent_id : snapshot.image_id);
	store_work_start(request, &(struct store_order){.tool = STORE_DIFF,
					  .name = from != NULL ? from : below,
					  .second = request->match.args[0]});
	snapshot_done(&snapshot);
}

/* Names an image in a way that is no option; false: it was answered. */
static bool find_image(struct http_request *request, const char *name, char ret_id[32])
{
	struct image image = {0};
	struct error err = ERROR_INIT;
	bool found = image_find(request->manager->store, name, &image, &err) == 0;

	if (found) {
		snprintf(ret_id, 32, "img-%" PRId64, image.id);
	} else {
		http_reply_error(request, &err);
	}
	image_done(&image);
	return found;
}

/* What it has changed over ?from=. */
void handle_image_diff(struct http_request *request)
{
	const char *from = http_query(request, "from");
	struct error err = ERROR_INIT;
	char before[32], after[32];

	if (from == NULL) {
		error_set(&err, ERROR_INVALID, "?from= is missing: the image to compare it with");
		http_reply_error(request, &err);
		return;
	}
	if (find_image(request, from, before) &&
		find_image(request, request->match.args[0], after)) {
		store_work_start(request, &(struct store_order){.tool = STORE_IMAGES_DIFF,
						  .name = before,
						  .second = after,
						  .option = query_flag(request, "stat")});
	}
}

void handle_snapshot_export(struct http_request *request)
{
	store_work_start(request, &(struct store_order){.tool = STORE_EXPORT,
					  .name = request->match.args[0],
					  .option = query_flag(request, "with_parents")});
}

void handle_snapshot_import(struct http_request *request)
{
	store_work_start(request, &(struct store_order){.tool = STORE_IMPORT});
}

void handle_store_dedupe(struct http_request *request)
{
	store_work_start(request, &(struct store_order){.tool = STORE_DEDUPE});
}
