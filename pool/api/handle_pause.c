/* Pausing and resuming. A pause is answered when the sandbox stands still, or when it is clear that
 * the kernel holds one of its processes: `frozen` of the answer says which. */
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/freeze.h"

struct pausing {
	struct entry_pause wait;
	struct http_request *request;
	struct entry *entry;
};

static void on_paused(struct entry_pause *wait, bool stands)
{
	struct pausing *pausing = container_of(wait, struct pausing, wait);
	struct http_request *request = pausing->request;
	json_t *json = entry_to_json(pausing->entry);

	json_object_set_new(json, "frozen", json_boolean(stands));
	http_request_work_done(request);
	free(pausing);
	http_reply_json(request, MHD_HTTP_OK, json);
}

/* It is paused all the same. */
static void on_pauser_gone(void *work)
{
	struct pausing *pausing = work;

	entry_pause_forget(&pausing->wait);
	free(pausing);
}

void handle_sandbox_pause(struct http_request *request)
{
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;
	struct pausing *pausing;

	if (entry == NULL) {
		return;
	}
	pausing = xcalloc(1, sizeof(*pausing));
	pausing->request = request;
	pausing->entry = entry;
	pausing->wait.done = on_paused;
	http_request_work(request, pausing, on_pauser_gone);
	if (entry_pause(entry, "asked by its user", &pausing->wait, &err) < 0) {
		http_request_work_done(request);
		free(pausing);
		http_reply_error(request, &err);
	}
}

void handle_sandbox_resume(struct http_request *request)
{
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;

	if (entry == NULL) {
		return;
	}
	if (entry_resume(entry, &err) < 0) {
		http_reply_error(request, &err);
	} else {
		http_reply_json(request, MHD_HTTP_OK, entry_to_json(entry));
	}
}
