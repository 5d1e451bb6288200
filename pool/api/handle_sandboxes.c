/* Claiming, showing and releasing sandboxes. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/body.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/claim.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/meter.h"
#include "pool/sandbox/sandbox.h"
#include "pool/sync/ancestry.h"
#include "gen/version.h"

void handle_health(struct http_request *request)
{
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

void handle_info(struct http_request *request)
{
	const struct manager *manager = request->manager;
	const struct config *config = manager->config;

	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:s, s:i, s:o, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "version",
			HOB_VERSION, "pid", (int)getpid(), "started_at",
			json_time(manager->started_ms), "store", config->store, "run", config->run,
			"cgroup", request->server->cgroup, "sandboxes",
			(json_int_t)manager->entry_count, "ready", (json_int_t)manager->ready_count,
			"claimed", (json_int_t)manager->claimed_count, "max_sandboxes",
			(json_int_t)config->max_sandboxes, "space", space_to_json(manager)));
}

/* ---- claiming ---- */

static void on_claimed(void *context, const struct claim_result *result, const struct error *err)
{
	struct http_request *request = context;

	http_request_work_done(request);
	if (err != NULL) {
		http_reply_error(request, err);
	} else if (!handle_claim_waits(request, result)) {
		http_reply_json(request, MHD_HTTP_CREATED, claim_to_json(result));
	}
}

json_t *claim_to_json(const struct claim_result *result)
{
	bool cold = result->reason != COLD_NONE;
	json_t *json = entry_to_json(result->entry);

	json_object_set_new(json, "source",
		json_string(result->hinted     ? "hinted"
			    : result->restored ? "restored"
			    : cold             ? "cold"
					       : "warm"));
	json_object_set_new(
		json, "reason", cold ? json_string(cold_reason_name(result->reason)) : json_null());
	json_object_set_new(json, "took_us", json_integer((json_int_t)result->took_us));
	/* Of a warm one that time had passed before. */
	json_object_set_new(json, "services_us",
		json_integer(
			cold || result->restored ? (json_int_t)result->entry->services_us : 0));
	return json;
}

static void on_claimer_gone(void *work)
{
	claim_cancel(work);
}

static void start_claim(struct http_request *request, struct claim_body *body)
{
	struct caller caller;
	struct claim_spec spec = {.choice = {.environment = body->environment,
					  .image = body->image,
					  .snapshot = body->snapshot},
		.terms = {.max_age_ms = body->max_age_s < 0 ? -1 : body->max_age_s * 1000,
			.min_commit = body->min_commit},
		.caller = &caller,
		.key = body->key,
		.env = steal_ptr(body->env),
		.metadata = json_incref(body->metadata),
		.timeout_ms = body->timeout_s * 1000,
		.idle_ms = body->idle_s < 0 ? -1 : body->idle_s * 1000};
	struct error err = ERROR_INIT;
	struct claim *claim = NULL;

	if (body->key != NULL && http_caller(request, &caller, &err) < 0) {
		http_reply_error(request, &err);
	} else {
		claim = claim_start(request->manager, &spec, on_claimed, request);
	}
	if (claim != NULL) {
		http_request_work(request, claim, on_claimer_gone);
	}
	strv_free(spec.env);
	json_decref(spec.metadata);
}

/* A claim that can only be judged once git's history was asked. */
struct asking {
	struct ancestry_wait wait;
	struct http_request *request;
	json_t *json;
};

static void asking_free(struct asking *asking)
{
	json_decref(asking->json);
	free(asking);
}

static void on_asker_gone(void *work)
{
	struct asking *asking = work;

	ancestry_forget(&asking->wait);
	asking_free(asking);
}

static void on_answered(struct ancestry_wait *wait, const struct error *err)
{
	struct asking *asking = container_of(wait, struct asking, wait);
	struct http_request *request = asking->request;
	struct error failure = ERROR_INIT;
	struct claim_body body;

	http_request_work_done(request);
	if (err != NULL) {
		http_reply_error(request, err);
	} else if (claim_body_parse(asking->json, &body, &failure) < 0) {
		http_reply_error(request, &failure);
	} else {
		start_claim(request, &body);
		claim_body_done(&body);
	}
	asking_free(asking);
}

/* True: it goes on when the answer is there. */
static bool ask_first(struct http_request *request, json_t *json, const struct claim_body *body)
{
	struct pool *pool =
		body->min_commit != NULL ? manager_pool(request->manager, body->environment) : NULL;
	struct asking *asking;

	if (pool == NULL) {
		return false;
	}
	asking = xcalloc(1, sizeof(*asking));
	asking->request = request;
	asking->json = json_incref(json);
	if (!ancestry_ask(pool, body->min_commit, &asking->wait, on_answered)) {
		asking_free(asking);
		return false;
	}
	http_request_work(request, asking, on_asker_gone);
	return true;
}

void handle_sandbox_create(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	struct claim_body body;

	if (http_body_json(request, &json, &err) < 0 || claim_body_parse(json, &body, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	if (!ask_first(request, json, &body)) {
		start_claim(request, &body);
	}
	claim_body_done(&body);
}

/* ---- showing ---- */

static json_t *usage_to_json(const struct entry *entry, const struct sandbox_usage *usage)
{
	return json_pack("{s:I, s:I, s:I, s:o}", "memory_bytes", (json_int_t)usage->memory_bytes,
		"cpu_us", (json_int_t)usage->cpu_us, "pids", (json_int_t)usage->pids, "disk_bytes",
		entry->disk.known ? json_integer((json_int_t)entry->disk.bytes) : json_null());
}

static json_t *listed(const struct entry *entry, bool with_usage)
{
	json_t *json = entry_to_json(entry);
	struct sandbox_usage usage = {0};
	struct error err = ERROR_INIT;

	if (with_usage &&
		sandbox_usage_read(entry->manager->config, entry->record.id, &usage, &err) == 0) {
		json_object_set_new(json, "usage", usage_to_json(entry, &usage));
	}
	return json;
}

void handle_sandbox_list(struct http_request *request)
{
	const char *usage = http_query(request, "usage");
	const char *environment = http_query(request, "environment");
	const char *state_name = http_query(request, "state");
	enum entry_state state = ENTRY_STATES;
	struct error err = ERROR_INIT;
	json_t *list;

	if (state_name != NULL && !entry_state_from_name(state_name, &state)) {
		error_set(
			&err, ERROR_INVALID, "?state is no state of a sandbox: \"%s\"", state_name);
		http_reply_error(request, &err);
		return;
	}
	list = json_array();
	for (const struct pool *pool = request->manager->pools; pool != NULL; pool = pool->next) {
		if (environment != NULL && !streq(environment, pool->name)) {
			continue;
		}
		for (int i = 0; i < ENTRY_STATES; i++) {
			const struct entry *entry = pool->entries[i].first;

			for (; entry != NULL && (state == ENTRY_STATES || (int)state == i);
				entry = entry->next) {
				json_array_append_new(
					list, listed(entry, usage != NULL && streq(usage, "1")));
			}
		}
	}
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "sandboxes", list));
}

static json_t *metered(const struct entry *entry, const struct sandbox_usage *usage)
{
	struct meter_sums sums = meter_read(entry, usage->populated ? usage : NULL);

	return json_pack("{s:I, s:I, s:I, s:I}", "active_ms", (json_int_t)sums.active_ms,
		"paused_ms", (json_int_t)sums.paused_ms, "cpu_us", (json_int_t)sums.cpu_us,
		"memory_kib_s", (json_int_t)sums.memory_kib_s);
}

void handle_sandbox_get(struct http_request *request)
{
	struct entry *entry = http_entry(request);
	struct sandbox_usage usage = {0};
	struct error err = ERROR_INIT;
	json_t *json;

	if (entry == NULL) {
		return;
	}
	/* Nothing to read while it is being made or ended. */
	(void)!sandbox_usage_read(request->manager->config, entry->record.id, &usage, &err);
	json = entry_to_json(entry);
	json_object_set_new(json, "usage", usage_to_json(entry, &usage));
	json_object_set_new(json, "metered",
		entry->record.meter.started_ms > 0 ? metered(entry, &usage) : json_null());
	json_object_set_new(json, "execs", runs_to_json(entry));
	json_object_set_new(json, "services", services_to_json(entry));
	http_reply_json(request, MHD_HTTP_OK, json);
}

/* ---- releasing ---- */

struct release {
	struct entry_wait wait;
	struct http_request *request;
	char id[ID_SIZE];
};

static void on_gone(struct entry_wait *wait)
{
	struct release *release = container_of(wait, struct release, wait);
	struct http_request *request = release->request;

	http_request_work_done(request);
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:s, s:s, s:o}", "id", release->id, "state",
			entry_state_name(ENTRY_GONE), "snapshot",
			json_numbered("snap-", wait->snapshot_id)));
	free(release);
}

/* The client left; the sandbox goes all the same. */
static void on_releaser_gone(void *work)
{
	struct release *release = work;

	entry_wait_end(&release->wait);
	free(release);
}

void handle_sandbox_delete(struct http_request *request)
{
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;
	struct release *release;
	int64_t keep = -1;

	if (entry == NULL) {
		return;
	}
	if (http_query_int(request, "snapshot", 0, 1, -1, &keep, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry->keep_asked = (int)keep;
	release = xcalloc(1, sizeof(*release));
	release->request = request;
	memcpy(release->id, entry->record.id, sizeof(release->id));
	entry_wait_begin(entry, &release->wait, on_gone);
	http_request_work(request, release, on_releaser_gone);
	entry_release(entry, "released by its user");
}

void handle_sandbox_timeout(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	struct entry *entry;
	int64_t seconds = 0, before;

	if (http_body_json(request, &json, &err) < 0 ||
		timeout_body_parse(json, &seconds, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry == NULL) {
		return;
	}
	before = entry->record.expires_ms;
	if (entry->record.state != ENTRY_CLAIMED && entry->record.state != ENTRY_PAUSED) {
		error_set(&err, ERROR_CONFLICT, "sandbox %s is %s, not claimed", entry->record.id,
			entry_state_name(entry->record.state));
		http_reply_error(request, &err);
		return;
	}
	entry->record.expires_ms = seconds > 0 ? clock_real_ms() + seconds * 1000 : 0;
	entry->record.last_active_ms = clock_real_ms();
	if (entry_write(entry, &err) < 0) {
		entry->record.expires_ms = before;
		http_reply_error(request, &err);
		return;
	}
	entry_arm(entry);
	http_reply_json(request, MHD_HTTP_OK, entry_to_json(entry));
}
