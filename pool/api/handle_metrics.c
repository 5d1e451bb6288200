/* GET /metrics. */
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_request.h"
#include "pool/metrics.h"

void handle_metrics(struct http_request *request)
{
	struct buffer text;
	struct MHD_Response *response;
	size_t length;

	buffer_init(&text, 0);
	metrics_write(request->manager, &text);
	length = text.length;
	response =
		MHD_create_response_from_buffer(length, buffer_steal(&text), MHD_RESPMEM_MUST_FREE);
	MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4");
	http_reply(request, MHD_HTTP_OK, response);
}
