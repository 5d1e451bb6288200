/*
 * Forks: one snapshot of a running sandbox, then as many sandboxes over it as were asked for, each
 * answered on its own. Children that were made for a client which has left meanwhile are ended:
 * nobody knows their names.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/claim.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/snapshot.h"

#include <inttypes.h>
#include <stdio.h>

struct fork;

struct fork_child {
	struct fork *fork;
	struct claim *claim; /* NULL: answered */
	json_t *json;
	char id[ID_SIZE]; /* empty: none was made */
};

struct fork {
	struct manager *manager;
	struct http_request *request;
	struct snapshot_job *job; /* NULL: over */
	struct pool_image *image; /* counted, so that it is read from the catalog once */
	char snapshot[32];
	json_t *taken;
	char **env; /* what the parent was claimed with */
	json_t *metadata;
	int64_t started_us;
	size_t count, waiting;
	struct fork_child children[];
};

static void fork_free(struct fork *fork)
{
	for (size_t i = 0; i < fork->count; i++) {
		json_decref(fork->children[i].json);
	}
	json_decref(fork->taken);
	json_decref(fork->metadata);
	strv_free(fork->env);
	pool_image_put(fork->image);
	free(fork);
}

static void on_forker_gone(void *work)
{
	struct fork *fork = work;

	if (fork->job != NULL) {
		snapshot_forget(fork->job);
	}
	for (size_t i = 0; i < fork->count; i++) {
		struct fork_child *child = &fork->children[i];
		struct entry *entry = manager_entry(fork->manager, child->id);

		if (child->claim != NULL) {
			claim_cancel(child->claim);
		}
		if (entry != NULL) {
			entry_release(entry, "made for a fork whose client left");
		}
	}
	fork_free(fork);
}

static void answer(struct fork *fork)
{
	struct http_request *request = fork->request;
	json_t *children = json_array();
	json_t *json = json_pack("{s:o, s:I}", "snapshot", json_incref(fork->taken), "took_us",
		(json_int_t)(clock_mono_us() - fork->started_us));

	for (size_t i = 0; i < fork->count; i++) {
		json_array_append(children, fork->children[i].json);
	}
	json_object_set_new(json, "children", children);
	http_request_work_done(request);
	http_reply_json(request, MHD_HTTP_CREATED, json);
	fork_free(fork);
}

static void on_child(void *context, const struct claim_result *result, const struct error *err)
{
	struct fork_child *child = context;
	struct fork *fork = child->fork;

	child->claim = NULL;
	if (err != NULL) {
		child->json = json_pack("{s:o}", "error", json_from_error(err));
	} else {
		child->json = claim_to_json(result);
		memcpy(child->id, result->entry->record.id, sizeof(child->id));
	}
	if (--fork->waiting == 0) {
		answer(fork);
	}
}

static void claim_child(struct fork *fork, struct fork_child *child)
{
	struct claim_spec spec = {.choice = {.snapshot = fork->snapshot},
		.terms = TERMS_ANY,
		.env = strv_copy(fork->env),
		.metadata = json_incref(fork->metadata),
		.idle_ms = -1};
	struct claim *claim;

	/* It may be answered, and the fork be over, before this returns. */
	claim = claim_start(fork->manager, &spec, on_child, child);
	if (claim != NULL) {
		child->claim = claim;
	}
	strv_free(spec.env);
	json_decref(spec.metadata);
}

static void on_taken(void *context, const struct snapshot_result *result, const struct error *err)
{
	struct fork *fork = context;
	struct error failure = ERROR_INIT;

	fork->job = NULL;
	if (err != NULL) {
		error_copy(&failure, err);
	} else {
		snprintf(fork->snapshot, sizeof(fork->snapshot), "snap-%" PRId64, result->id);
		fork->taken = taken_to_json(result);
		fork->started_us = clock_mono_us();
		if (pool_snapshot_find(fork->manager, fork->snapshot, &fork->image, &failure) ==
			0) {
			size_t count = fork->count;

			/* One more than there are, so that the last answer is not before the last
			 * start. */
			fork->waiting = count + 1;
			for (size_t i = 0; i < count; i++) {
				claim_child(fork, &fork->children[i]);
			}
			if (--fork->waiting == 0) {
				answer(fork);
			}
			return;
		}
	}
	http_request_work_done(fork->request);
	http_reply_error(fork->request, &failure);
	fork_free(fork);
}

static struct fork *fork_new(
	struct http_request *request, const struct entry *entry, const struct fork_body *body)
{
	size_t count = (size_t)body->count;
	struct fork *fork = xcalloc(1, sizeof(*fork) + count * sizeof(fork->children[0]));

	fork->manager = request->manager;
	fork->request = request;
	fork->count = count;
	fork->env = strv_copy(entry->record.env);
	fork->metadata = json_incref(body->metadata != NULL ? (json_t *)(uintptr_t)body->metadata
							    : entry->record.metadata);
	for (size_t i = 0; i < count; i++) {
		fork->children[i].fork = fork;
	}
	return fork;
}

void handle_fork(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	struct fork_body body;
	struct fork *fork;
	struct entry *entry;

	if (http_body_json(request, &json, &err) < 0 || fork_body_parse(json, &body, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry == NULL) {
		return;
	}
	fork = fork_new(request, entry, &body);
	if (snapshot_start(entry,
		    &(struct snapshot_order){.reason = SNAPSHOT_SESSION,
			    .label = body.label,
			    .max_pause_ms = body.max_pause_ms},
		    on_taken, fork, &fork->job, &err) < 0) {
		fork_free(fork);
		http_reply_error(request, &err);
		return;
	}
	http_request_work(request, fork, on_forker_gone);
	launcher_make_ahead(request->manager->launcher, fork->count);
}
