/* What ended sandboxes have used, for whoever bills: `after` is the number of the last line that
 * was seen, so that no line is missed or seen twice. */
#include "base/buffer.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/manager.h"
#include "pool/usage.h"

#define LIMIT_DEFAULT 1000

void handle_usage(struct http_request *request)
{
	CLEANUP(buffer_done) struct buffer lines;
	struct usage_query query;
	struct MHD_Response *response;
	struct error err = ERROR_INIT;
	char *text;

	buffer_init(&lines, 0);
	if (http_query_int(request, "after", 0, INT64_MAX, 0, &query.after, &err) < 0 ||
		http_query_int(request, "since_ms", 0, INT64_MAX, 0, &query.since_ms, &err) < 0 ||
		http_query_int(request, "limit", 1, USAGE_LIMIT_MAX, LIMIT_DEFAULT, &query.limit,
			&err) < 0 ||
		usage_list(request->manager->usage, &query, &lines, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	text = xasprintf("{\"usage\":[%s]}\n", buffer_text(&lines));
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (response == NULL) {
		abort();
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	http_reply(request, MHD_HTTP_OK, response);
}
