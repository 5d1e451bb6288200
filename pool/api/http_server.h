/* The API's HTTP server: libmicrohttpd without threads, its epoll descriptor nested in our loop. */
#ifndef HOB_POOL_API_HTTP_SERVER_H
#define HOB_POOL_API_HTTP_SERVER_H

#include "base/error.h"

struct config;
struct http_server;
struct loop;
struct manager;

/* Whom a server answers: who may use the API's socket, or whoever sends a signed webhook. */
enum http_audience { HTTP_MEMBERS, HTTP_STRANGERS };

/* Takes the listening socket. */
MUSTCHECK int http_server_open(const struct config *config, struct loop *loop,
	struct manager *manager, int listen_fd, enum http_audience audience,
	struct http_server **ret_server, struct error *err);
/* Ends every request as if its client had gone. NULL is fine. */
void http_server_close(struct http_server *server);

#endif
