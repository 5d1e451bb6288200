/* Commands whose answer comes once: captured, detached, waited for; their list and their end. */
#include "base/log.h"
#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/api/exec_start.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/run.h"

/* A request that waits for a command. */
struct exec_wait {
	struct run_sink sink;
	struct http_request *request;
};

static void reply_refused(struct http_request *request, const struct run *run)
{
	if (error_http_status(run->error.kind) >= 500) {
		log_failure("http.error", &run->error, "path", request->path);
	}
	http_reply_json(request, (unsigned)error_http_status(run->error.kind),
		json_pack("{s:o}", "error", run_error_to_json(run)));
}

static void reply_ended(struct http_request *request, const struct run *run)
{
	if (run->error.kind != ERROR_NONE) {
		reply_refused(request, run);
	} else {
		http_reply_json(request, MHD_HTTP_OK, run_result_to_json(run, true));
	}
}

static void on_ended(struct run_sink *sink, const struct run *run)
{
	struct exec_wait *wait = container_of(sink, struct exec_wait, sink);
	struct http_request *request = wait->request;

	http_request_work_done(request);
	free(wait);
	reply_ended(request, run);
}

/* A detached command is answered for when it is known to run. */
static void on_detached_started(struct run_sink *sink)
{
	struct exec_wait *wait = container_of(sink, struct exec_wait, sink);
	struct http_request *request = wait->request;
	json_int_t id = (json_int_t)sink->run->id;

	run_unwatch(sink);
	http_request_work_done(request);
	free(wait);
	http_reply_json(request, MHD_HTTP_ACCEPTED, json_pack("{s:I}", "exec", id));
}

/* One that did not start leaves nothing to look at later. */
static void on_detached_ended(struct run_sink *sink, const struct run *run)
{
	struct exec_wait *wait = container_of(sink, struct exec_wait, sink);
	struct http_request *request = wait->request;

	http_request_work_done(request);
	free(wait);
	reply_refused(request, run);
}

static void on_client_gone(void *work)
{
	struct exec_wait *wait = work;

	run_unwatch(&wait->sink);
	free(wait);
}

static void start(struct http_request *request, struct entry *entry, const struct exec_body *body)
{
	struct exec_wait *wait = xcalloc(1, sizeof(*wait));
	struct error err = ERROR_INIT;
	struct run *run;

	wait->request = request;
	wait->sink.owner = true;
	wait->sink.started = body->detach ? on_detached_started : NULL;
	wait->sink.ended = body->detach ? on_detached_ended : on_ended;
	http_request_work(request, wait, on_client_gone);
	if (exec_start(entry, body, !body->detach, false, &wait->sink, &run, &err) < 0) {
		http_request_work_done(request);
		free(wait);
		http_reply_error(request, &err);
	}
}

void handle_exec(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	struct exec_body body;
	struct entry *entry;

	if (http_body_json(request, &json, &err) < 0 || exec_body_parse(json, &body, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry != NULL &&
		http_header_has(request, MHD_HTTP_HEADER_ACCEPT, "text/event-stream")) {
		exec_events_start(request, entry, &body);
	} else if (entry != NULL) {
		start(request, entry, &body);
	}
	exec_body_done(&body);
}

void handle_exec_list(struct http_request *request)
{
	const struct entry *entry = http_entry(request);

	if (entry != NULL) {
		http_reply_json(
			request, MHD_HTTP_OK, json_pack("{s:o}", "execs", runs_to_json(entry)));
	}
}

/* The command of the path's second argument; NULL: answered. */
static struct run *find_run(struct http_request *request)
{
	struct entry *entry = http_entry(request);
	const char *number = request->match.args[1];
	struct error err = ERROR_INIT;
	struct run *run = NULL;
	char *end = NULL;

	if (entry == NULL) {
		return NULL;
	}
	if (*number >= '0' && *number <= '9') {
		unsigned long id = strtoul(number, &end, 10);

		run = *end == '\0' && id <= UINT32_MAX ? run_find(entry, (uint32_t)id) : NULL;
	}
	if (run == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "sandbox %s has no command %s", entry->record.id,
			number);
		error_hint(&err, "only running and detached commands are kept");
		http_reply_error(request, &err);
	}
	return run;
}

void handle_exec_get(struct http_request *request)
{
	const char *wanted = http_query(request, "wait");
	struct run *run = find_run(request);
	struct exec_wait *wait;

	if (run == NULL) {
		return;
	}
	if (http_header_has(request, MHD_HTTP_HEADER_ACCEPT, "text/event-stream")) {
		exec_events_watch(request, run);
		return;
	}
	if (run->ended_ms > 0) {
		reply_ended(request, run);
		return;
	}
	if (wanted == NULL || streq(wanted, "0")) {
		http_reply_json(request, MHD_HTTP_OK, run_to_json(run));
		return;
	}
	wait = xcalloc(1, sizeof(*wait));
	wait->request = request;
	wait->sink.ended = on_ended;
	http_request_work(request, wait, on_client_gone);
	run_watch(run, &wait->sink);
}

void handle_exec_delete(struct http_request *request)
{
	struct run *run = find_run(request);
	json_int_t id;

	if (run == NULL) {
		return;
	}
	id = (json_int_t)run->id;
	run_forget(run);
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:I}", "exec", id));
}
