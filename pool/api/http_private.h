/* What the files of the HTTP server share and handlers do not see. */
#ifndef HOB_POOL_API_HTTP_PRIVATE_H
#define HOB_POOL_API_HTTP_PRIVATE_H

#include "pool/api/http_request.h"

struct config;
struct loop;
struct loop_timer;

struct http_server {
	const struct config *config;
	struct loop *loop;
	struct manager *manager;
	struct MHD_Daemon *daemon;
	struct loop_source *source;
	struct loop_timer *run_timer;
	struct http_request *requests;
	struct websocket *websockets;
	const struct route *routes;
	const char *cgroup; /* which version limits sandboxes: "v1" or "v2" */
	bool closing;
};

/* Runs libmicrohttpd at the end of this turn of the loop. */
void http_server_kick(struct http_server *server);

/* libmicrohttpd's callbacks. */
enum MHD_Result http_on_access(void *context, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *length, void **slot);
void http_on_completed(void *context, struct MHD_Connection *connection, void **slot,
	enum MHD_RequestTerminationCode code);

void http_request_suspend(struct http_request *request);
/* As if its client had gone. */
void http_request_abort(struct http_request *request);
void http_stream_free(struct http_stream *stream);
void websockets_close(struct http_server *server);

extern const struct route http_routes[];
extern const struct route http_hook_routes[]; /* handle_hooks.c: for strangers */

#endif
