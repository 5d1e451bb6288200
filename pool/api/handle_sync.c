/* Bringing a sandbox to a newer commit when told, and claims that wait for a sync under way. A sync
 * that was begun goes on whether its client waits or not. */
#include "base/digest.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/claim.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sync/fetch.h"
#include "pool/sync/sync.h"

/* In the message; the answer's `paths` has more. */
#define PATHS_NAMED 5

struct sync_work {
	struct fetch_wait wait;
	struct http_request *request;
	char id[ID_SIZE];
	char to[2 * SHA1_SIZE + 1]; /* "": the newest */
	char from[COMMIT_TEXT_SIZE];
};

static void work_end(struct sync_work *work)
{
	http_request_work_done(work->request);
	free(work);
}

static void work_fail(struct sync_work *work, const struct error *err)
{
	struct http_request *request = work->request;

	work_end(work);
	http_reply_error(request, err);
}

static void on_asker_gone(void *context)
{
	struct sync_work *work = context;
	struct entry *entry = manager_entry(work->request->manager, work->id);

	fetch_forget(&work->wait);
	if (entry != NULL) {
		sync_forget(entry, work);
	}
	free(work);
}

/* ---- the answer ---- */

static void reply_conflict(
	struct http_request *request, const struct error *err, const json_t *paths)
{
	struct error named = *err;
	json_t *json;

	for (size_t i = 0; i < json_array_size(paths) && i < PATHS_NAMED; i++) {
		const char *path = json_string_value(json_array_get(paths, i));
		size_t length = strlen(named.message);

		snprintf(named.message + length, sizeof(named.message) - length, "%s%s",
			i == 0 ? ": " : ", ", path != NULL ? path : "?");
	}
	json = json_from_error(&named);
	json_object_set(json, "paths", (json_t *)(uintptr_t)paths);
	http_reply_json(
		request, (unsigned)error_http_status(err->kind), json_pack("{s:o}", "error", json));
}

static void on_synced(void *context, struct entry *entry, const struct sync_about *about)
{
	struct sync_work *work = context;
	struct http_request *request = work->request;
	json_t *json;

	if (about->outcome == SYNC_DONE) {
		json = entry_to_json(entry);
		json_object_set_new(json, "from", json_string(work->from));
		work_end(work);
		http_reply_json(request, MHD_HTTP_OK, json);
	} else if (about->outcome == SYNC_CONFLICT && about->paths != NULL) {
		work_end(work);
		reply_conflict(request, &about->error, about->paths);
	} else {
		work_fail(work, &about->error);
	}
}

/* ---- the way there ---- */

static int choose_commits(const struct sync_work *work, const struct entry *entry,
	char ***ret_commits, struct error *err)
{
	const struct pool_image *base = entry_base(entry);
	size_t known = newest_count(entry->pool);

	if (base == NULL || base->source_count == 0) {
		return error_set(err, ERROR_CONFLICT, "sandbox %s has no source to sync", work->id);
	}
	if (work->to[0] != '\0') {
		strv_add(ret_commits, work->to);
		return 0;
	}
	if (known != base->source_count) {
		error_set(err, ERROR_CONFLICT,
			"sandbox %s was made of other sources than its environment has now",
			work->id);
		return error_hint(err, "hob build %s, and claim a new one", entry->pool->name);
	}
	for (size_t i = 0; i < known; i++) {
		strv_add(ret_commits, newest_commit(entry->pool, i));
	}
	return 0;
}

static void go_on(void *context, struct entry *entry, const struct sync_about *before)
{
	struct sync_work *work = context;
	CLEANUP(strv_free_p) char **commits = NULL;
	struct error err = ERROR_INIT;

	(void)before;
	if (entry == NULL || entry->client == NULL) {
		error_set(&err, ERROR_UNAVAILABLE, "sandbox %s has ended", work->id);
	} else if (choose_commits(work, entry, &commits, &err) == 0) {
		snprintf(work->from, sizeof(work->from), "%s", entry_commit_of(entry, 0));
		if (sync_start(entry, commits, NULL, on_synced, work, &err) == 0) {
			return;
		}
	}
	work_fail(work, &err);
}

static void on_fetched(struct fetch_wait *wait, const struct error *err)
{
	struct sync_work *work = container_of(wait, struct sync_work, wait);
	struct entry *entry = manager_entry(work->request->manager, work->id);

	if (err != NULL && work->to[0] == '\0') {
		work_fail(work, err);
	} else if (entry != NULL && sync_is_running(entry)) {
		sync_wait(entry, go_on, work);
	} else {
		go_on(work, entry, NULL);
	}
}

static int body_parse(const json_t *json, struct sync_work *work, struct error *err)
{
	static const char *const known[] = {"to", NULL};
	const char *to = "";
	int status;

	if ((status = json_check_keys(json, known, err)) < 0 ||
		(status = json_get_str(json, "to", &to, err)) < 0) {
		return status;
	}
	if (to[0] != '\0' && !sha1_is_valid(to)) {
		return error_set(err, ERROR_INVALID,
			"to: \"%.60s\" is not a whole commit id of 40 hex digits", to);
	}
	memcpy(work->to, to, strlen(to) + 1);
	return 0;
}

static int check_entry(struct entry *entry, struct error *err)
{
	if (entry->record.state == ENTRY_READY) {
		return 0; /* an operator may */
	}
	if (entry->pool->conf == NULL) {
		return error_set(
			err, ERROR_CONFLICT, "environment \"%s\" is gone", entry->pool->name);
	}
	return entry_wake(entry, false, err);
}

void handle_sandbox_sync(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct sync_work *work = xcalloc(1, sizeof(*work));
	struct error err = ERROR_INIT;
	struct entry *entry;

	work->request = request;
	if (http_body_json(request, &json, &err) < 0 || body_parse(json, work, &err) < 0) {
		free(work);
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry == NULL || check_entry(entry, &err) < 0) {
		free(work);
		if (entry != NULL) {
			http_reply_error(request, &err);
		}
		return;
	}
	memcpy(work->id, entry->record.id, sizeof(work->id));
	http_request_work(request, work, on_asker_gone);
	/* Who asks by name wants what is there now. */
	fetch_newest(entry->pool, 0, &work->wait, on_fetched);
}

/* ---- claims that wait ---- */

struct claim_wait {
	struct http_request *request;
	struct claim_result result;
	char id[ID_SIZE];
	struct loop_timer *timer;
};

static void claim_answer(struct claim_wait *wait)
{
	struct http_request *request = wait->request;
	struct entry *entry = manager_entry(request->manager, wait->id);
	struct error err = ERROR_INIT;

	loop_timer_free(wait->timer);
	http_request_work_done(request);
	if (entry != NULL) {
		sync_forget(entry, wait);
		http_reply_json(request, MHD_HTTP_CREATED, claim_to_json(&wait->result));
	} else {
		error_set(&err, ERROR_UNAVAILABLE, "sandbox %s ended at once", wait->id);
		http_reply_error(request, &err);
	}
	free(wait);
}

static void on_wait_over(void *context)
{
	claim_answer(context);
}

static void on_claim_synced(void *context, struct entry *entry, const struct sync_about *about)
{
	struct claim_wait *wait = context;

	(void)entry;
	(void)about;
	loop_timer_after(wait->timer, 0);
}

/* It is claimed; its clocks end it. */
static void on_claimer_gone(void *context)
{
	struct claim_wait *wait = context;
	struct entry *entry = manager_entry(wait->request->manager, wait->id);

	if (entry != NULL) {
		sync_forget(entry, wait);
	}
	loop_timer_free(wait->timer);
	free(wait);
}

bool handle_claim_waits(struct http_request *request, const struct claim_result *result)
{
	struct entry *entry = result->entry;
	const struct environment *conf = entry->pool->conf;
	struct claim_wait *wait;

	if (!sync_is_running(entry) || conf == NULL || conf->sync.wait_ms == 0) {
		return false;
	}
	wait = xcalloc(1, sizeof(*wait));
	wait->request = request;
	wait->result = *result;
	memcpy(wait->id, entry->record.id, sizeof(wait->id));
	wait->timer = loop_timer_new(request->manager->loop, on_wait_over, wait);
	loop_timer_after(wait->timer, conf->sync.wait_ms);
	http_request_work(request, wait, on_claimer_gone);
	sync_wait(entry, on_claim_synced, wait);
	return true;
}
