/* The pool. */
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/api/object_json.h"
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
