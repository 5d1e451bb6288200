/* The handlers of the route table, by what they are about. */
#ifndef HOB_POOL_API_HANDLERS_H
#define HOB_POOL_API_HANDLERS_H

#include <stdbool.h>

struct exec_body;
struct http_request;
struct entry;
struct run;
struct run_sink;
struct error;

/* handle_sandboxes.c */
void handle_health(struct http_request *request);
void handle_info(struct http_request *request);
void handle_sandbox_create(struct http_request *request);
void handle_sandbox_list(struct http_request *request);
void handle_sandbox_get(struct http_request *request);
void handle_sandbox_delete(struct http_request *request);
void handle_sandbox_timeout(struct http_request *request);
void handle_sandbox_events(struct http_request *request); /* handle_events.c */

/* handle_pause.c */
void handle_sandbox_pause(struct http_request *request);
void handle_sandbox_resume(struct http_request *request);

/* handle_warm.c */
void handle_warm(struct http_request *request);
void handle_warm_list(struct http_request *request);
void handle_warm_cancel(struct http_request *request);

/* handle_usage.c */
void handle_usage(struct http_request *request);
/* handle_sync.c */
void handle_sandbox_sync(struct http_request *request);
struct claim_result;
/* Does the answer to this claim wait for a sync under way? Then it is given later. */
bool handle_claim_waits(struct http_request *request, const struct claim_result *result);

/* handle_snapshots.c */
void handle_snapshot_take(struct http_request *request);
void handle_snapshot_list(struct http_request *request);
void handle_snapshot_get(struct http_request *request);
void handle_snapshot_delete(struct http_request *request);

void handle_snapshot_pin(struct http_request *request);
void handle_snapshot_unpin(struct http_request *request);
void handle_snapshot_tag(struct http_request *request);
void handle_snapshot_untag(struct http_request *request);

/* handle_store.c */
void handle_snapshot_tree(struct http_request *request);
void handle_snapshot_diff(struct http_request *request);
void handle_snapshot_flatten(struct http_request *request);
void handle_snapshot_export(struct http_request *request);
void handle_snapshot_import(struct http_request *request);
void handle_store_verify(struct http_request *request);
void handle_store_gc(struct http_request *request);
void handle_store_dedupe(struct http_request *request);
void handle_store_du(struct http_request *request);

/* handle_fork.c */
void handle_fork(struct http_request *request);

/* handle_execs.c */
void handle_exec(struct http_request *request);
void handle_exec_list(struct http_request *request);
void handle_exec_get(struct http_request *request);
void handle_exec_delete(struct http_request *request);

/* exec_events.c: the command's events go to the client as they come. `body` NULL: watches `run`. */
void exec_events_start(
	struct http_request *request, struct entry *entry, const struct exec_body *body);
void exec_events_watch(struct http_request *request, struct run *run);

/* exec_websocket.c */
void handle_exec_websocket(struct http_request *request);

/* handle_services.c */
void handle_service_list(struct http_request *request);
void handle_service_log(struct http_request *request);
void handle_service_restart(struct http_request *request);

/* handle_files.c */
void handle_file_get(struct http_request *request);
void handle_file_put(struct http_request *request);
void handle_file_delete(struct http_request *request);

/* handle_metrics.c */
void handle_metrics(struct http_request *request);

/* handle_pools.c */
void handle_pool(struct http_request *request);
void handle_pool_explain(struct http_request *request);

/* handle_environments.c */
void handle_environment_list(struct http_request *request);
void handle_environment_get(struct http_request *request);
void handle_environment_build(struct http_request *request);
void handle_environment_unbuild(struct http_request *request);
void handle_environment_rollback(struct http_request *request);

/* handle_hooks.c */
void handle_hook_github(struct http_request *request);
void handle_hook_generic(struct http_request *request);

/* handle_builds.c */
void handle_build_list(struct http_request *request);
void handle_build_get(struct http_request *request);
void handle_build_log(struct http_request *request);
void handle_build_cancel(struct http_request *request);
void handle_image_list(struct http_request *request);
void handle_image_get(struct http_request *request);
void handle_image_packages(struct http_request *request);
void handle_image_diff(struct http_request *request);
void handle_image_delete(struct http_request *request);

#endif
