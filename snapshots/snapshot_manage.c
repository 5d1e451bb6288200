/* What is done with snapshots once they are there: who needs one, removing it, pins, tags and
 * leases. Removal goes as for images: the rows in one transaction, then the folders. */
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "base/clock.h"

#include <stdio.h>

#define USER_PINNED "pinned"

static int not_there(int64_t id, struct error *err)
{
	return error_set(err, ERROR_NOT_FOUND, "no snapshot snap-%lld", (long long)id);
}

static int must_exist(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT 1 FROM snapshots WHERE id = ?");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	return row > 0 ? 0 : (row < 0 ? row : not_there(id, err));
}

int snapshot_users(struct store *store, int64_t id, char ***ret_users, struct error *err)
{
	CLEANUP(strv_free_p) char **users = xcalloc(1, sizeof(*users));
	int status = users_add(store, "SELECT '' FROM snapshots WHERE id = ? AND pinned",
		USER_PINNED, id, &users, err);

	if (status == 0) {
		status = users_add(store,
			"SELECT holder FROM snapshot_leases WHERE snapshot_id = ? ORDER BY holder",
			USER_LEASE, id, &users, err);
	}
	if (status < 0) {
		return status;
	}
	*ret_users = steal_ptr(users);
	return 0;
}

/* ---- removal ---- */

static int refuse_if_used(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	int status = snapshot_users(store, id, &users, err);

	if (status < 0 || users_refuse("snap", id, users, err) == 0) {
		return status;
	}
	return streq(users[0], USER_PINNED)
		       ? error_hint(err, "hob snapshots unpin snap-%lld lets it go", (long long)id)
		       : error_hint(err, "remove the sandboxes that stand on it first");
}

static int remove_rows(struct store *store, int64_t id, struct doomed *doomed, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = must_exist(store, id, err);
	}
	if (status == 0) {
		status = refuse_if_used(store, id, err);
	}
	if (status == 0) {
		/* Every list of its own goes, also the ones that a flattening left. */
		status = doomed_add(store,
			"SELECT l.id FROM layers AS l"
			" WHERE l.id IN (SELECT layer_id FROM snapshot_layers WHERE snapshot_id = "
			"?1)"
			" AND l.refs = (SELECT count(*) FROM snapshot_layers AS o"
			"  WHERE o.layer_id = l.id AND o.snapshot_id = ?1)",
			id, doomed, err);
	}
	if (status == 0) {
		status = store_run_id(store,
			"UPDATE snapshots SET parent_id = (SELECT parent_id FROM snapshots WHERE "
			"id = ?1)"
			" WHERE parent_id = ?1",
			id, NULL, err);
	}
	if (status == 0) {
		status = store_run_id(store, "DELETE FROM snapshots WHERE id = ?", id, NULL, err);
	}
	if (status == 0) {
		status = doomed_delete_rows(store, doomed, err);
	}
	if (status == 0) {
		status = store_fault("remove.before_commit", err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

int snapshot_remove(struct store *store, int64_t id, uint64_t *ret_freed, struct error *err)
{
	return doomed_remove(store, "snap", id, remove_rows, ret_freed, err);
}

/* ---- pins and tags ---- */

int snapshot_pin(struct store *store, int64_t id, bool pinned, struct error *err)
{
	int64_t changed = 0;
	int status = store_run_id(store,
		pinned ? "UPDATE snapshots SET pinned = 1 WHERE id = ?"
		       : "UPDATE snapshots SET pinned = 0 WHERE id = ?",
		id, &changed, err);

	return status == 0 && changed == 0 ? not_there(id, err) : status;
}

static int check_tag(const char *tag, struct error *err)
{
	int64_t number;

	if (!name_is_valid(tag)) {
		error_set(err, ERROR_INVALID, "\"%s\" is no name for a tag", tag);
		return error_hint(
			err, "1 to %d of a-z, 0-9, \".\", \"_\" and \"-\"", NAME_MAX_LENGTH);
	}
	if (str_starts(tag, "snap-") || str_starts(tag, "img-") || id_parse(tag, "", &number)) {
		return error_set(err, ERROR_INVALID,
			"\"%s\" would read as the number of a snapshot or image", tag);
	}
	return 0;
}

/* Whose it is; 0: nobody's. */
static int tag_owner(struct store *store, const char *tag, int64_t *ret_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT snapshot_id FROM snapshot_tags WHERE name = ?");
	query_bind_text(&query, tag);
	row = query_row(&query, err);
	if (row >= 0) {
		*ret_id = row > 0 ? query_int(&query, 0) : 0;
	}
	return row < 0 ? row : 0;
}

static int write_tag(struct store *store, int64_t id, const char *tag, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db,
		"INSERT INTO snapshot_tags (name, snapshot_id) VALUES (?, ?)"
		" ON CONFLICT (name) DO UPDATE SET snapshot_id = excluded.snapshot_id");
	query_bind_text(&query, tag);
	query_bind_int(&query, id);
	return query_run(&query, NULL, err);
}

int snapshot_tag(struct store *store, int64_t id, const char *tag, bool move, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int64_t owner = 0;
	int status = check_tag(tag, err);

	if (status == 0) {
		status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);
	}
	if (status == 0) {
		status = must_exist(store, id, err);
	}
	if (status == 0) {
		status = tag_owner(store, tag, &owner, err);
	}
	if (status == 0 && owner != 0 && owner != id && !move) {
		error_set(err, ERROR_EXISTS, "tag %s is snap-%lld's", tag, (long long)owner);
		return error_hint(err, "--move takes it from there");
	}
	if (status == 0) {
		status = write_tag(store, id, tag, err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

int snapshot_untag(struct store *store, const char *tag, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	query_init(&query, store->db, "DELETE FROM snapshot_tags WHERE name = ?");
	query_bind_text(&query, tag);
	status = query_run(&query, &changed, err);
	return status == 0 && changed == 0 ? error_set(err, ERROR_NOT_FOUND, "no tag %s", tag)
					   : status;
}

/* ---- leases ---- */

int snapshot_lease(struct store *store, int64_t id, const char *holder, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	/* A lease that is taken again keeps its generation: sandboxes of the first may live on. */
	query_init(&query, store->db,
		"INSERT INTO snapshot_leases (snapshot_id, holder, generation, taken_ms)"
		" SELECT id, ?2, generation, ?3 FROM snapshots WHERE id = ?1"
		" ON CONFLICT (snapshot_id, holder) DO UPDATE SET taken_ms = excluded.taken_ms");
	query_bind_int(&query, id);
	query_bind_text(&query, holder);
	query_bind_int(&query, clock_real_ms());
	/* No sandbox outlives a power cut, and hobd must not wait for the disk at a restore. */
	status = query_run_relaxed(&query, &changed, err);
	if (status == 0 && changed == 0) {
		return not_there(id, err);
	}
	return status < 0 ? error_wrap(err, "lease snap-%lld", (long long)id) : 0;
}

int snapshot_unlease(struct store *store, int64_t id, const char *holder, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db,
		"DELETE FROM snapshot_leases WHERE snapshot_id = ? AND holder = ?");
	query_bind_int(&query, id);
	query_bind_text(&query, holder);
	return query_run_relaxed(&query, NULL, err);
}

int snapshot_leases_keep(struct store *store, const char *holder, const int64_t *ids, size_t count,
	struct error *err)
{
	return leases_keep(store, "SELECT snapshot_id FROM snapshot_leases WHERE holder = ?",
		snapshot_unlease, holder, ids, count, err);
}
