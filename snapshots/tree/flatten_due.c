/* What is to be flattened in the background, and what could not be. Snapshots that fail are tried
 * again later and later, and keep nobody else's turn. */
#include "snapshots/tree/flatten.h"
#include "snapshots/store_private.h"

#include "base/clock.h"

#define RETRY_FIRST_MS INT64_C(60000)
#define RETRY_MAX_MS INT64_C(3600000)

int flatten_due(struct store *store, int64_t *ret_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT s.id FROM snapshots AS s LEFT JOIN flatten_failures AS f"
		" ON f.snapshot_id = s.id WHERE s.layer_count > ?"
		" AND s.layer_count > 1 + (SELECT count(*) FROM image_layers AS il"
		"  WHERE il.image_id = s.image_id)"
		" AND coalesce(f.retry_ms, 0) <= ? ORDER BY s.layer_count DESC, s.id LIMIT 1");
	query_bind_int(&query, SNAPSHOT_LAYERS_GOOD);
	query_bind_int(&query, clock_real_ms());
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_id = row > 0 ? query_int(&query, 0) : 0;
	return 0;
}

static int64_t retry_delay(int64_t attempts)
{
	int64_t delay = RETRY_FIRST_MS;

	for (; attempts > 1 && delay < RETRY_MAX_MS; attempts--) {
		delay *= 2;
	}
	return delay < RETRY_MAX_MS ? delay : RETRY_MAX_MS;
}

int flatten_note(struct store *store, int64_t id, const struct error *failure, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct flatten_failure before = {0};
	int64_t now_ms = clock_real_ms();
	int status;

	if (failure == NULL) {
		return store_run_id(
			store, "DELETE FROM flatten_failures WHERE snapshot_id = ?", id, NULL, err);
	}
	status = flatten_failure_get(store, id, &before, err);
	if (status < 0) {
		return status;
	}
	query_init(&query, store->db,
		"INSERT OR REPLACE INTO flatten_failures"
		" (snapshot_id, attempts, failed_ms, retry_ms, message) VALUES (?, ?, ?, ?, ?)");
	query_bind_int(&query, id);
	query_bind_int(&query, before.attempts + 1);
	query_bind_int(&query, now_ms);
	query_bind_int(&query, now_ms + retry_delay(before.attempts + 1));
	query_bind_text(&query, failure->message);
	return query_run(&query, NULL, err);
}

int flatten_failure_get(
	struct store *store, int64_t id, struct flatten_failure *ret_failure, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct flatten_failure failure = {0};
	int row;

	query_init(&query, store->db,
		"SELECT attempts, failed_ms, retry_ms, message FROM flatten_failures"
		" WHERE snapshot_id = ?");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row > 0) {
		failure.attempts = query_int(&query, 0);
		failure.failed_ms = query_int(&query, 1);
		failure.retry_ms = query_int(&query, 2);
		query_copy(&query, 3, failure.message, sizeof(failure.message));
	}
	*ret_failure = failure;
	return 0;
}
