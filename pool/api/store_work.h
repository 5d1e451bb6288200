/*
 * Work of hob-snapshots for a request: a process, started by the launcher, whose progress goes to
 * the client as server-sent events, if it takes them, and whose result ends them; else the result,
 * or the archive, is the answer. A client that goes away ends the process, which may be killed at
 * any point. All work under way has a key, of the client's choice (?task=KEY), by which others can
 * watch it: an archive leaves no room for events, and one that comes in none before its end.
 */
#ifndef HOB_POOL_API_STORE_WORK_H
#define HOB_POOL_API_STORE_WORK_H

struct http_request;
struct store_order;

/* Answers, sooner or later. The body of an import is taken as it comes. */
void store_work_start(struct http_request *request, const struct store_order *order);

/* GET /v1/tasks: all that is under way; GET /v1/tasks/{key}: one, or its events. */
void handle_work_list(struct http_request *request);
void handle_work_get(struct http_request *request);

#endif
