/* The pool and its environments. */
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/api/object_json.h"
#include "pool/builds.h"
#include "pool/manager.h"

void handle_pool(struct http_request *request)
{
	json_t *list = json_array();

	for (const struct pool *pool = request->manager->pools; pool != NULL; pool = pool->next) {
		json_array_append_new(list, pool_to_json(pool));
	}
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "environments", list));
}

static json_t *failures_to_json(const struct environment_list *environments)
{
	json_t *list = json_array();

	for (size_t i = 0; i < environments->failure_count; i++) {
		const struct environment_failure *failure = &environments->failures[i];

		json_array_append_new(
			list, json_pack("{s:o, s:o}", "file", json_string_safe(failure->file),
				      "message", json_string_safe(failure->error.message)));
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

void handle_environment_build(struct http_request *request)
{
	struct pool *pool = find_environment(request);

	if (pool != NULL) {
		bool running = build_request(pool);

		http_reply_json(request, MHD_HTTP_ACCEPTED,
			json_pack("{s:s, s:s}", "environment", pool->name, "state",
				running ? "running" : "queued"));
	}
}
