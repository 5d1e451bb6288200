/*
 * Recording snapshots and reading them back. snapshot_commit is the commit point: before its
 * transaction nothing of a snapshot counts, after it everything does. What a list shows of each is
 * kept in its row, so that ten thousand are listed without reading their layers.
 */
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/json.h"

#include <assert.h>
#include <fnmatch.h>
#include <stdio.h>

static const char *const reason_names[] = {"base", "session", "exit", "manual"};
static_assert(ARRAY_SIZE(reason_names) == SNAPSHOT_REASONS, "a name for each reason");

const char *snapshot_reason_name(enum snapshot_reason reason)
{
	assert((size_t)reason < ARRAY_SIZE(reason_names));
	return reason_names[reason];
}

bool snapshot_reason_parse(const char *name, enum snapshot_reason *ret_reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(reason_names); i++) {
		if (streq(name, reason_names[i])) {
			*ret_reason = (enum snapshot_reason)i;
			return true;
		}
	}
	return false;
}

void snapshot_done(struct snapshot *snapshot)
{
	free(snapshot->tags);
	free(snapshot->metadata);
	free(snapshot->manifest);
	free(snapshot->layers);
	*snapshot = (struct snapshot){0};
}

void snapshots_free(struct snapshot *snapshots, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		snapshot_done(&snapshots[i]);
	}
	free(snapshots);
}

/* ---- reading ---- */

#define SNAPSHOT_COLUMNS                                                                           \
	"s.id, s.environment, s.image_id, s.parent_id, s.reason, s.label, s.sandbox, s.commit_id," \
	" s.pinned, s.generation, s.layer_count, s.own_count, s.bytes, s.stored, s.created_ms,"    \
	" s.metadata"

static void snapshot_from_row(const struct query *query, struct snapshot *snapshot)
{
	*snapshot = (struct snapshot){.id = query_int(query, 0),
		.image_id = query_int(query, 2),
		.parent_id = query_int(query, 3),
		.pinned = query_int(query, 8) != 0,
		.generation = query_int(query, 9),
		.layer_count = (size_t)query_int(query, 10),
		.own_count = (size_t)query_int(query, 11),
		.bytes = (uint64_t)query_int(query, 12),
		.stored = (uint64_t)query_int(query, 13),
		.created_ms = query_int(query, 14),
		.metadata = xstrdup(query_text(query, 15))};
	query_copy(query, 1, snapshot->environment, sizeof(snapshot->environment));
	query_copy(query, 5, snapshot->label, sizeof(snapshot->label));
	query_copy(query, 6, snapshot->sandbox, sizeof(snapshot->sandbox));
	query_copy(query, 7, snapshot->commit, sizeof(snapshot->commit));
	if (!snapshot_reason_parse(query_text(query, 4), &snapshot->reason)) {
		snapshot->reason = SNAPSHOT_MANUAL; /* the table's check forbids it */
	}
}

static void add_tag(struct snapshot *snapshot, const char *tag)
{
	char *tags =
		snapshot->tags != NULL ? xasprintf("%s %s", snapshot->tags, tag) : xstrdup(tag);

	free(snapshot->tags);
	snapshot->tags = tags;
}

static int read_layers(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t count = 0;
	int row;

	snapshot->layers = xcalloc(snapshot->layer_count + 1, sizeof(*snapshot->layers));
	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS
		" FROM snapshot_layers AS sl JOIN layers AS l ON l.id = sl.layer_id"
		" WHERE sl.snapshot_id = ? AND sl.generation = ? ORDER BY sl.position");
	query_bind_int(&query, snapshot->id);
	query_bind_int(&query, snapshot->generation);
	while ((row = query_row(&query, err)) > 0 && count < snapshot->layer_count) {
		layer_from_row(&query, 0, &snapshot->layers[count++]);
	}
	if (row >= 0 && (row > 0 || count != snapshot->layer_count)) {
		return error_set(err, ERROR_CORRUPT, "snap-%lld is recorded with %zu layers",
			(long long)snapshot->id, snapshot->layer_count);
	}
	return row;
}

static int read_rest(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query tags = {0};
	CLEANUP(query_done) struct query more = {0};
	int row;

	query_init(&tags, store->db,
		"SELECT name FROM snapshot_tags WHERE snapshot_id = ? ORDER BY name");
	query_bind_int(&tags, snapshot->id);
	while ((row = query_row(&tags, err)) > 0) {
		add_tag(snapshot, query_text(&tags, 0));
	}
	if (row < 0) {
		return row;
	}
	query_init(&more, store->db,
		"SELECT manifest, (SELECT sum(l.stored - l.shared) FROM layers AS l WHERE l.refs = "
		"1"
		"  AND l.id IN (SELECT layer_id FROM snapshot_layers WHERE snapshot_id = ?1))"
		" FROM snapshots WHERE id = ?1");
	query_bind_int(&more, snapshot->id);
	row = query_row(&more, err);
	if (row < 0) {
		return row;
	}
	snapshot->manifest = xstrdup(query_text(&more, 0));
	snapshot->exclusive = (uint64_t)query_int(&more, 1);
	return read_layers(store, snapshot, err);
}

/* One snapshot, all of it in the caller's transaction. -ERROR_NOT_FOUND without a message. */
static int read_one(struct store *store, const char *sql, int64_t id, const char *tag,
	struct snapshot *ret_snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct snapshot snapshot = {0};
	int row;

	query_init(&query, store->db, sql);
	if (tag != NULL) {
		query_bind_text(&query, tag);
	} else {
		query_bind_int(&query, id);
	}
	row = query_row(&query, err);
	if (row <= 0) {
		return row < 0 ? row : -ERROR_NOT_FOUND;
	}
	snapshot_from_row(&query, &snapshot);
	row = read_rest(store, &snapshot, err);
	if (row < 0) {
		snapshot_done(&snapshot);
		return row;
	}
	*ret_snapshot = snapshot;
	return 0;
}

int snapshot_find(
	struct store *store, const char *name, struct snapshot *ret_snapshot, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int64_t id;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (status < 0) {
		return status;
	}
	status = id_parse(name, "snap-", &id)
			 ? read_one(store,
				   "SELECT " SNAPSHOT_COLUMNS " FROM snapshots AS s WHERE s.id = ?",
				   id, NULL, ret_snapshot, err)
			 : read_one(store,
				   "SELECT " SNAPSHOT_COLUMNS
				   " FROM snapshot_tags AS t JOIN snapshots AS s"
				   " ON s.id = t.snapshot_id WHERE t.name = ?",
				   0, name, ret_snapshot, err);
	if (status == -ERROR_NOT_FOUND) {
		error_set(
			err, ERROR_NOT_FOUND, "no snapshot \"%s\", and no tag of that name", name);
		return error_hint(err, "hob snapshots ls lists what there is");
	}
	return status;
}

/* ---- lists ---- */

static bool is_wanted(const struct snapshot_filter *filter, const char *label)
{
	return filter->label == NULL || fnmatch(filter->label, label, 0) == 0;
}

static int list_rows(struct store *store, const struct snapshot_filter *filter,
	struct snapshot **ret_snapshots, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT " SNAPSHOT_COLUMNS " FROM snapshots AS s"
		" WHERE (?1 IS NULL OR s.environment = ?1) AND (?2 IS NULL OR s.sandbox = ?2)"
		" AND (?3 IS NULL OR s.reason = ?3) AND (?4 = 0 OR s.created_ms < ?4)"
		" ORDER BY s.id DESC");
	query_bind_text(&query, filter->environment);
	query_bind_text(&query, filter->sandbox);
	query_bind_text(&query, filter->reason >= 0 ? reason_names[filter->reason] : NULL);
	query_bind_int(&query, filter->older_than_ms);
	while ((row = query_row(&query, err)) > 0) {
		if (is_wanted(filter, query_text(&query, 5))) {
			snapshot_from_row(&query, array_add(ret_snapshots, ret_count, &room));
		}
	}
	return row;
}

static int compare_id(const void *key, const void *element)
{
	const int64_t *id = key;
	const struct snapshot *snapshot = element;

	return (snapshot->id > *id) - (snapshot->id < *id); /* the highest first */
}

static struct snapshot *find_in(struct snapshot *snapshots, size_t count, int64_t id)
{
	return count > 0 ? bsearch(&id, snapshots, count, sizeof(*snapshots), compare_id) : NULL;
}

static int list_rest(
	struct store *store, struct snapshot *snapshots, size_t count, struct error *err)
{
	CLEANUP(query_done) struct query tags = {0};
	CLEANUP(query_done) struct query own = {0};
	struct snapshot *snapshot;
	int row;

	query_init(&tags, store->db, "SELECT snapshot_id, name FROM snapshot_tags ORDER BY name");
	while ((row = query_row(&tags, err)) > 0) {
		snapshot = find_in(snapshots, count, query_int(&tags, 0));
		if (snapshot != NULL) {
			add_tag(snapshot, query_text(&tags, 1));
		}
	}
	if (row < 0) {
		return row;
	}
	/* A layer with one reference is in one list: the row that is found is its only owner. */
	query_init(&own, store->db,
		"SELECT sl.snapshot_id, l.stored - l.shared FROM layers AS l"
		" CROSS JOIN snapshot_layers AS sl ON sl.layer_id = l.id WHERE l.refs = 1");
	while ((row = query_row(&own, err)) > 0) {
		snapshot = find_in(snapshots, count, query_int(&own, 0));
		if (snapshot != NULL) {
			snapshot->exclusive += (uint64_t)query_int(&own, 1);
		}
	}
	return row;
}

int snapshot_list(struct store *store, const struct snapshot_filter *filter,
	struct snapshot **ret_snapshots, size_t *ret_count, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	struct snapshot *snapshots = NULL;
	size_t count = 0;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (status == 0) {
		status = list_rows(store, filter, &snapshots, &count, err);
	}
	if (status == 0) {
		status = list_rest(store, snapshots, count, err);
	}
	if (status < 0) {
		snapshots_free(snapshots, count);
		return status;
	}
	*ret_snapshots = snapshots;
	*ret_count = count;
	return 0;
}
