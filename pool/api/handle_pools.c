/* The pool. */
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/api/object_json.h"
#include "pool/demand/demand.h"
#include "pool/manager.h"

void handle_pool(struct http_request *request)
{
	json_t *list = json_array();

	for (const struct pool *pool = request->manager->pools; pool != NULL; pool = pool->next) {
		json_array_append_new(list, pool_to_json(pool));
	}
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:o, s:o}", "environments", list, "space",
			space_to_json(request->manager)));
}

void handle_pool_explain(struct http_request *request)
{
	const char *name = request->match.args[0];
	const struct pool *pool = manager_pool(request->manager, name);
	struct error err = ERROR_INIT;

	if (pool == NULL || pool->conf == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "no environment \"%s\"", name);
		error_hint(&err, "`hob env` lists them");
		http_reply_error(request, &err);
		return;
	}
	http_reply_json(request, MHD_HTTP_OK, demand_explain(pool));
}
