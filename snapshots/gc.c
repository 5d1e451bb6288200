/*
 * The plan is made from a few columns of the catalog in one read transaction; layers count their
 * lists themselves (layers.refs), so nothing here walks the lists of ten thousand snapshots.
 */
#include "snapshots/gc.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "base/clock.h"

#include <stdio.h>

/* As in images_prune: a step's result that nothing took up within a day will not be asked for. */
#define KEPT_LAYER_MAX_AGE_MS (24LL * 3600 * 1000)

void gc_plan_done(struct gc_plan *plan)
{
	free(plan->decisions);
	*plan = (struct gc_plan){0};
}

struct planner {
	struct store *store;
	const struct gc_policy *policies;
	size_t policy_count;
	struct gc_plan plan;
	size_t room;
	int64_t now_ms;
	bool pressed;
};

static struct gc_decision *decide(struct planner *planner, bool remove)
{
	struct gc_decision *decision =
		array_add(&planner->plan.decisions, &planner->plan.count, &planner->room);

	decision->remove = remove;
	planner->plan.removals += remove;
	return decision;
}

static const struct gc_policy *policy_of(const struct planner *planner, const char *environment)
{
	const struct gc_policy *all = NULL;

	for (size_t i = 0; i < planner->policy_count; i++) {
		const struct gc_policy *policy = &planner->policies[i];

		if (policy->environment == NULL) {
			all = policy;
		} else if (streq(policy->environment, environment)) {
			return policy;
		}
	}
	return all;
}

/* ---- snapshots ---- */

struct candidate {
	int64_t created_ms;
	int64_t rank; /* 1 is the environment's newest */
	bool labelled, pinned;
	const char *tag, *holder; /* "" for none */
};

/* Why it stays; "" when it may go. */
static void keep_reason(const struct gc_policy *policy, const struct candidate *candidate,
	int64_t now_ms, char *reason, size_t size)
{
	char text[CLOCK_TEXT_SIZE];

	if (candidate->pinned) {
		snprintf(reason, size, "pinned");
	} else if (candidate->tag[0] != '\0') {
		snprintf(reason, size, "tagged %.64s", candidate->tag);
	} else if (candidate->holder[0] != '\0') {
		snprintf(reason, size, USER_LEASE "%.64s", candidate->holder);
	} else if (policy == NULL || (policy->keep_last == 0 && policy->keep_for_ms == 0)) {
		snprintf(reason, size, "its environment limits neither number nor age");
	} else if (policy->keep_labelled && candidate->labelled) {
		snprintf(reason, size, "labelled");
	} else if (candidate->rank <= policy->keep_last) {
		snprintf(reason, size, "one of the newest %lld", (long long)policy->keep_last);
	} else if (policy->keep_for_ms > 0 &&
		   now_ms - candidate->created_ms < policy->keep_for_ms) {
		duration_format(text, policy->keep_for_ms);
		snprintf(reason, size, "younger than %s", text);
	} else {
		reason[0] = '\0';
	}
}

static void go_reason(const struct gc_policy *policy, char *reason, size_t size)
{
	char text[CLOCK_TEXT_SIZE];

	duration_format(text, policy->keep_for_ms);
	if (policy->keep_for_ms == 0) {
		snprintf(reason, size, "not one of the newest %lld", (long long)policy->keep_last);
	} else if (policy->keep_last == 0) {
		snprintf(reason, size, "older than %s", text);
	} else {
		snprintf(reason, size, "older than %s, and not one of the newest %lld", text,
			(long long)policy->keep_last);
	}
}

static int plan_snapshots(struct planner *planner, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	char environment[65] = "";
	const struct gc_policy *policy = NULL;
	int64_t rank = 0;
	int row;

	query_init(&query, planner->store->db,
		"SELECT s.id, s.environment, s.created_ms, s.label <> '', s.pinned,"
		" (SELECT min(name) FROM snapshot_tags WHERE snapshot_id = s.id),"
		" (SELECT min(holder) FROM snapshot_leases WHERE snapshot_id = s.id)"
		" FROM snapshots AS s ORDER BY s.environment, s.id DESC");
	while ((row = query_row(&query, err)) > 0) {
		struct candidate candidate = {.created_ms = query_int(&query, 2),
			.labelled = query_int(&query, 3) != 0,
			.pinned = query_int(&query, 4) != 0,
			.tag = query_text(&query, 5),
			.holder = query_text(&query, 6)};
		char reason[sizeof(planner->plan.decisions->reason)];
		struct gc_decision *decision;

		if (rank == 0 || !streq(environment, query_text(&query, 1))) {
			query_copy(&query, 1, environment, sizeof(environment));
			policy = policy_of(planner, environment);
			rank = 0;
		}
		candidate.rank = ++rank;
		keep_reason(policy, &candidate, planner->now_ms, reason, sizeof(reason));
		decision = decide(planner, reason[0] == '\0');
		if (decision->remove) {
			go_reason(policy, reason, sizeof(reason));
		}
		decision->kind = GC_SNAPSHOT;
		decision->id = query_int(&query, 0);
		decision->created_ms = candidate.created_ms;
		memcpy(decision->environment, environment, sizeof(environment));
		memcpy(decision->reason, reason, sizeof(reason));
		snprintf(decision->name, sizeof(decision->name), "snap-%lld",
			(long long)decision->id);
	}
	return row;
}

/* Only for what goes: what it frees by itself. */
static int measure_removals(struct planner *planner, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, planner->store->db,
		"SELECT sum(l.stored - l.shared) FROM layers AS l WHERE l.refs = 1 AND l.id IN"
		" (SELECT layer_id FROM snapshot_layers WHERE snapshot_id = ?)");
	for (size_t i = 0; i < planner->plan.count; i++) {
		struct gc_decision *decision = &planner->plan.decisions[i];
		int row;

		if (decision->kind != GC_SNAPSHOT || !decision->remove) {
			continue;
		}
		query_bind_int(&query, decision->id);
		row = query_row(&query, err);
		if (row < 0) {
			return row;
		}
		decision->bytes = (uint64_t)query_int(&query, 0);
		query_again(&query);
	}
	return 0;
}

/* ---- images, lists and layers ---- */

static int plan_images(struct planner *planner, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, planner->store->db,
		"SELECT i.id, i.environment,"
		" rank() OVER (PARTITION BY i.environment ORDER BY i.id DESC),"
		" EXISTS (SELECT 1 FROM heads WHERE image_id = i.id),"
		" (SELECT min(holder) FROM leases WHERE image_id = i.id),"
		" (SELECT min(id) FROM snapshots WHERE image_id = i.id),"
		" (SELECT sum(l.stored - l.shared) FROM image_layers AS il JOIN layers AS l"
		"  ON l.id = il.layer_id WHERE il.image_id = i.id AND l.refs = 1)"
		", i.created_ms FROM images AS i ORDER BY i.environment, i.id DESC");
	while ((row = query_row(&query, err)) > 0) {
		const char *holder = query_text(&query, 4);
		int64_t snapshot = query_int(&query, 5);
		int64_t keep = planner->pressed ? 0 : IMAGES_KEEP;
		bool head = query_int(&query, 3) != 0, newest = query_int(&query, 2) <= keep;
		struct gc_decision *decision =
			decide(planner, !head && holder[0] == '\0' && snapshot == 0 && !newest);
		size_t size = sizeof(decision->reason);

		decision->kind = GC_IMAGE;
		decision->id = query_int(&query, 0);
		decision->bytes = (uint64_t)query_int(&query, 6);
		decision->created_ms = query_int(&query, 7);
		query_copy(&query, 1, decision->environment, sizeof(decision->environment));
		snprintf(decision->name, sizeof(decision->name), "img-%lld",
			(long long)decision->id);
		if (head) {
			snprintf(decision->reason, size, "head");
		} else if (holder[0] != '\0') {
			snprintf(decision->reason, size, USER_LEASE "%.64s", holder);
		} else if (snapshot != 0) {
			snprintf(decision->reason, size, USER_SNAPSHOT "snap-%lld stands on it",
				(long long)snapshot);
		} else if (planner->pressed) {
			snprintf(decision->reason, size, "not the head, and space is short");
		} else {
			snprintf(decision->reason, size, "%s the newest %d",
				newest ? "one of" : "not one of", IMAGES_KEEP);
		}
	}
	return row;
}

/* Lists that a flattening left, and that no lease is old enough for. */
static int plan_lists(struct planner *planner, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, planner->store->db,
		"SELECT s.id, s.environment FROM snapshots AS s WHERE s.generation > 1"
		" AND EXISTS (SELECT 1 FROM snapshot_layers WHERE snapshot_id = s.id AND"
		"  generation < min(s.generation, coalesce((SELECT min(generation)"
		"  FROM snapshot_leases WHERE snapshot_id = s.id), s.generation)))");
	while ((row = query_row(&query, err)) > 0) {
		struct gc_decision *decision = decide(planner, true);

		decision->kind = GC_LIST;
		decision->id = query_int(&query, 0);
		query_copy(&query, 1, decision->environment, sizeof(decision->environment));
		snprintf(decision->name, sizeof(decision->name), "snap-%lld's old list",
			(long long)decision->id);
		snprintf(decision->reason, sizeof(decision->reason),
			"flattened, and nobody stands on the old layers");
	}
	return row;
}

#define UNLISTED                                                                                   \
	" FROM layers AS l WHERE l.refs = 0 AND l.state = 'ready'"                                 \
	" AND (l.step_key = '' OR l.created_ms < ?1 OR EXISTS (SELECT 1 FROM layers AS n"          \
	"  WHERE n.step_key = l.step_key AND n.state = 'ready' AND n.id > l.id))"

static int plan_layers(struct planner *planner, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, planner->store->db,
		"SELECT l.id, l.stored - l.shared, l.step_key <> '', l.created_ms" UNLISTED);
	query_bind_int(
		&query, planner->pressed ? INT64_MAX : planner->now_ms - KEPT_LAYER_MAX_AGE_MS);
	while ((row = query_row(&query, err)) > 0) {
		struct gc_decision *decision = decide(planner, true);

		decision->kind = GC_LAYER;
		decision->id = query_int(&query, 0);
		decision->bytes = (uint64_t)query_int(&query, 1);
		decision->created_ms = query_int(&query, 3);
		snprintf(decision->name, sizeof(decision->name), "layer %lld",
			(long long)decision->id);
		snprintf(decision->reason, sizeof(decision->reason), "%s",
			query_int(&query, 2) != 0 ? "kept for reuse, but nothing took it up"
						  : "no image and no snapshot lists it");
	}
	return row;
}

static int plan_make(struct store *store, const struct gc_policy *policies, size_t count,
	bool pressed, struct gc_plan *ret_plan, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	struct planner planner = {.store = store,
		.policies = policies,
		.policy_count = count,
		.now_ms = clock_real_ms(),
		.pressed = pressed};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (status == 0) {
		status = plan_snapshots(&planner, err);
	}
	if (status == 0) {
		status = measure_removals(&planner, err);
	}
	if (status == 0) {
		status = plan_images(&planner, err);
	}
	if (status == 0) {
		status = plan_lists(&planner, err);
	}
	if (status == 0) {
		status = plan_layers(&planner, err);
	}
	if (status < 0) {
		gc_plan_done(&planner.plan);
		return error_wrap(err, "plan a collection");
	}
	*ret_plan = planner.plan;
	return 0;
}

int gc_plan_make(struct store *store, const struct gc_policy *policies, size_t count,
	struct gc_plan *ret_plan, struct error *err)
{
	return plan_make(store, policies, count, false, ret_plan, err);
}

/* Those without an age, lists that nobody stands on, first. */
static int compare_age(const void *a, const void *b)
{
	const struct gc_decision *left = a, *right = b;

	return (left->created_ms > right->created_ms) - (left->created_ms < right->created_ms);
}

int gc_plan_pressed(struct store *store, const struct gc_policy *policies, size_t count,
	struct gc_plan *ret_plan, struct error *err)
{
	int status = plan_make(store, policies, count, true, ret_plan, err);

	if (status == 0 && ret_plan->count > 0) {
		qsort(ret_plan->decisions, ret_plan->count, sizeof(*ret_plan->decisions),
			compare_age);
	}
	return status;
}

/* ---- carrying it out ---- */

static int remove_layers(struct store *store, const char *drop_sql, const char *layers_sql,
	int64_t id, uint64_t *freed, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(doomed_done) struct doomed doomed = {0};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0 && drop_sql != NULL) {
		status = store_run_id(store, drop_sql, id, NULL, err);
	}
	if (status == 0) {
		status = doomed_add(store, layers_sql, id, &doomed, err);
	}
	if (status == 0) {
		status = doomed_delete_rows(store, &doomed, err);
	}
	if (status == 0) {
		status = store_fault("gc.before_commit", err);
	}
	if (status == 0) {
		status = transaction_commit(&transaction, err);
	}
	return status < 0 ? status : doomed_trash(store, &doomed, freed, err);
}

/* What becomes unlisted by it goes with it; layers without a list and without a key have no other
 * way to be. */
int snapshot_drop_old_lists(struct store *store, int64_t id, uint64_t *ret_freed, struct error *err)
{
	return remove_layers(store,
		"DELETE FROM snapshot_layers WHERE snapshot_id = ?1 AND generation <"
		" (SELECT min(s.generation, coalesce((SELECT min(generation)"
		"  FROM snapshot_leases WHERE snapshot_id = s.id), s.generation))"
		"  FROM snapshots AS s WHERE s.id = ?1)",
		"SELECT l.id FROM layers AS l WHERE l.refs = 0"
		" AND l.state = 'ready' AND l.step_key = '' AND ?1 > 0",
		id, ret_freed, err);
}

static int carry_out(
	struct store *store, const struct gc_decision *decision, uint64_t *freed, struct error *err)
{
	switch (decision->kind) {
	case GC_SNAPSHOT:
		return snapshot_remove(store, decision->id, freed, err);
	case GC_IMAGE:
		return image_remove(store, decision->id, freed, err);
	case GC_LIST:
		return snapshot_drop_old_lists(store, decision->id, freed, err);
	case GC_LAYER:
		return remove_layers(store, NULL,
			"SELECT l.id FROM layers AS l WHERE l.id = ?1 AND l.refs = 0"
			" AND l.state = 'ready'",
			decision->id, freed, err);
	}
	return 0;
}

static bool never(void *context)
{
	(void)context;
	return false;
}

int gc_plan_run(
	struct store *store, struct gc_plan *plan, struct gc_result *ret_result, struct error *err)
{
	return gc_plan_run_until(store, plan, never, NULL, ret_result, err);
}

int gc_plan_run_until(struct store *store, struct gc_plan *plan, gc_enough_fn *enough,
	void *context, struct gc_result *ret_result, struct error *err)
{
	struct gc_result result = {0};

	for (size_t i = 0; i < plan->count; i++) {
		struct gc_decision *decision = &plan->decisions[i];
		uint64_t freed = 0;
		int status;

		if (!decision->remove) {
			continue;
		}
		if (enough(context)) {
			break;
		}
		status = carry_out(store, decision, &freed, err);
		if (status == -ERROR_BUSY || status == -ERROR_CONFLICT ||
			status == -ERROR_NOT_FOUND) {
			decision->remove = false;
			snprintf(decision->reason, sizeof(decision->reason), "%.90s", err->message);
			result.passed_over++;
			continue;
		}
		if (status < 0) {
			return error_wrap(err, "collect %s", decision->name);
		}
		result.removed++;
		result.freed += freed;
	}
	*ret_result = result;
	return 0;
}
