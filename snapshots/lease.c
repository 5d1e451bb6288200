/* Leases: a holder, hobd above all, says which images it stands on. A lease outlives its holder's
 * process, because the sandboxes do; the holder states the whole set again when it comes back. */
#include "snapshots/store_private.h"

#include "base/clock.h"

int image_lease(struct store *store, int64_t id, const char *holder, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status;

	query_init(&query, store->db,
		"INSERT INTO leases (image_id, holder, taken_ms) VALUES (?, ?, ?)"
		" ON CONFLICT (image_id, holder) DO UPDATE SET taken_ms = excluded.taken_ms");
	query_bind_int(&query, id);
	query_bind_text(&query, holder);
	query_bind_int(&query, clock_real_ms());
	status = query_run(&query, NULL, err);
	if (status == -ERROR_CONFLICT) {
		/* The foreign key: the image is not there. */
		return error_set(err, ERROR_NOT_FOUND, "no image img-%lld", (long long)id);
	}
	return status < 0 ? error_wrap(err, "lease img-%lld", (long long)id) : 0;
}

int image_unlease(struct store *store, int64_t id, const char *holder, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db, "DELETE FROM leases WHERE image_id = ? AND holder = ?");
	query_bind_int(&query, id);
	query_bind_text(&query, holder);
	return query_run(&query, NULL, err);
}

static int list_leases(struct store *store, const char *sql, const char *holder, int64_t **ret_ids,
	size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t room = 0;
	int row;

	query_init(&query, store->db, sql);
	query_bind_text(&query, holder);
	while ((row = query_row(&query, err)) > 0) {
		*array_add(ret_ids, ret_count, &room) = query_int(&query, 0);
	}
	return row;
}

static bool contains(const int64_t *ids, size_t count, int64_t id)
{
	for (size_t i = 0; i < count; i++) {
		if (ids[i] == id) {
			return true;
		}
	}
	return false;
}

int leases_keep(struct store *store, const char *list_sql, lease_end_fn *end, const char *holder,
	const int64_t *ids, size_t count, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(free_p) int64_t *leased = NULL;
	size_t leased_count = 0;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = list_leases(store, list_sql, holder, &leased, &leased_count, err);
	}
	for (size_t i = 0; status == 0 && i < leased_count; i++) {
		if (!contains(ids, count, leased[i])) {
			status = end(store, leased[i], holder, err);
		}
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

int image_leases_keep(struct store *store, const char *holder, const int64_t *ids, size_t count,
	struct error *err)
{
	return leases_keep(store, "SELECT image_id FROM leases WHERE holder = ?", image_unlease,
		holder, ids, count, err);
}
