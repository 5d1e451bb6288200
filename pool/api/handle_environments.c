/* Environments: what there is, builds asked for, and the way back to an older image. */
#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/api/object_json.h"
#include "pool/builds.h"
#include "pool/manager.h"

static json_t *failures_to_json(const struct environment_list *environments)
{
	json_t *list = json_array();

	for (size_t i = 0; i < environments->failure_count; i++) {
		const struct environment_failure *failure = &environments->failures[i];

		json_array_append_new(
			list, json_pack("{s:o, s:o}", "file", json_str_or_null(failure->file),
				      "message", json_str_or_null(failure->error.message)));
	}
	return list;
}

void handle_environment_list(struct http_request *request)
{
	json_t *list = json_array();

	for (const struct pool *pool = request->manager->pools; pool != NULL; pool = pool->next) {
		if (pool->conf != NULL) {
			json_array_append_new(list, environment_to_json(pool));
		}
	}
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:o, s:o}", "environments", list, "failures",
			failures_to_json(&request->manager->environments)));
}

/* NULL: answered. */
static struct pool *find_environment(struct http_request *request)
{
	const char *name = request->match.args[0];
	struct pool *pool = manager_pool(request->manager, name);
	struct error err = ERROR_INIT;

	if (pool == NULL || pool->conf == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "no environment \"%s\"", name);
		error_hint(&err, "`hob env` lists them");
		http_reply_error(request, &err);
		return NULL;
	}
	return pool;
}

void handle_environment_get(struct http_request *request)
{
	const struct pool *pool = find_environment(request);

	if (pool != NULL) {
		http_reply_json(request, MHD_HTTP_OK, environment_to_json(pool));
	}
}

static json_t *state_of(const struct pool *pool, const char *state)
{
	return json_pack("{s:s, s:s}", "environment", pool->name, "state", state);
}

void handle_environment_build(struct http_request *request)
{
	struct pool *pool = find_environment(request);

	if (pool != NULL) {
		bool running = build_request(pool, NULL);

		http_reply_json(
			request, MHD_HTTP_ACCEPTED, state_of(pool, running ? "running" : "queued"));
	}
}

/* Only one that waits: a running one has an id. */
void handle_environment_unbuild(struct http_request *request)
{
	struct pool *pool = find_environment(request);

	if (pool != NULL) {
		http_reply_json(request, MHD_HTTP_OK,
			state_of(pool, build_unqueue(pool) ? "unqueued" : "none"));
	}
}

void handle_environment_rollback(struct http_request *request)
{
	const struct pool *pool = find_environment(request);
	struct store *store = request->manager->store;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct image image = {0}, wanted = {0};
	const char *name = NULL;
	struct error err = ERROR_INIT;
	int status;

	if (pool == NULL) {
		return;
	}
	status = http_body_json(request, &json, &err);
	if (status == 0) {
		status = rollback_body_parse(json, &name, &err);
	}
	if (status == 0 && name != NULL) {
		status = image_find(store, name, &wanted, &err);
	}
	if (status == 0) {
		status = image_rollback(store, pool->name, wanted.id, &image, &err);
	}
	image_done(&wanted);
	if (status < 0) {
		http_reply_error(request, &err);
		return;
	}
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:s, s:o, s:s}", "environment", pool->name, "head",
			json_numbered("img-", image.id), "commit", image.commit));
	image_done(&image);
}
