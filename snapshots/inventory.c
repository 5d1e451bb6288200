/* Every use of a layer is one entry; sorted by layer, the entries of one layer are the images that
 * share it. No image has a layer twice. */
#include "snapshots/inventory.h"
#include "snapshots/store_private.h"

struct use {
	int64_t layer_id;
	uint64_t stored, linked; /* linked: of stored, in another layer too */
	int64_t refs; /* of snapshots too */
	struct inventory_row *row;
};

static int compare_uses(const void *a, const void *b)
{
	const struct use *left = a, *right = b;

	return (left->layer_id > right->layer_id) - (left->layer_id < right->layer_id);
}

/* Sorted by layer; the caller frees them. */
static struct use *list_uses(const struct inventory *inventory, size_t *ret_count)
{
	struct use *uses = NULL;
	size_t count = 0, room = 0;

	for (size_t i = 0; i < inventory->count; i++) {
		struct inventory_row *row = &inventory->rows[i];

		for (size_t j = 0; j < row->image.layer_count; j++) {
			*array_add(&uses, &count, &room) = (struct use){row->image.layers[j].id,
				row->image.layers[j].stored, row->image.layers[j].shared,
				row->image.layers[j].refs, row};
		}
	}
	if (count > 0) {
		qsort(uses, count, sizeof(*uses), compare_uses);
	}
	*ret_count = count;
	return uses;
}

static size_t run_end(const struct use *uses, size_t count, size_t start)
{
	size_t end = start;

	while (end < count && uses[end].layer_id == uses[start].layer_id) {
		end++;
	}
	return end;
}

static void add_up(struct inventory *inventory)
{
	size_t count, end;
	struct use *uses = list_uses(inventory, &count);

	for (size_t start = 0; start < count; start = end) {
		end = run_end(uses, count, start);
		inventory->stored += uses[start].stored;
		for (size_t i = start; i < end; i++) {
			struct inventory_row *row = uses[i].row;
			uint64_t exclusive =
				uses[i].refs == 1 ? uses[i].stored - uses[i].linked : 0;

			row->exclusive += exclusive;
			row->shared += uses[i].stored - exclusive;
		}
	}
	free(uses);
}

/* What image_users says of one image, for all of them in one query. An image that has come since
 * the list was read is not in it. */
static int add_row_users(const struct inventory *inventory, struct store *store, const char *sql,
	const char *prefix, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int found;

	query_init(&query, store->db, sql);
	while ((found = query_row(&query, err)) > 0) {
		struct inventory_row *row = inventory_find(inventory, query_int(&query, 0));

		if (row != NULL) {
			CLEANUP(free_p)
			char *line = xasprintf("%s%s", prefix, query_text(&query, 1));

			strv_add(&row->users, line);
		}
	}
	return found;
}

int inventory_read(struct store *store, struct inventory *ret_inventory, struct error *err)
{
	struct inventory inventory = {0};
	struct image *images = NULL;
	int status = image_list(store, NULL, &images, &inventory.count, err);

	if (status < 0) {
		return status;
	}
	inventory.rows = xcalloc(inventory.count, sizeof(*inventory.rows));
	for (size_t i = 0; i < inventory.count; i++) {
		struct inventory_row *row = &inventory.rows[i];

		row->image = images[i];
		row->users = xcalloc(1, sizeof(*row->users));
		for (size_t j = 0; j < row->image.layer_count; j++) {
			row->bytes += row->image.layers[j].bytes;
		}
	}
	free(images);
	status = add_row_users(&inventory, store,
		"SELECT image_id, environment FROM heads ORDER BY environment", USER_HEAD, err);
	if (status == 0) {
		status = add_row_users(&inventory, store,
			"SELECT image_id, holder FROM leases ORDER BY holder", USER_LEASE, err);
	}
	if (status == 0) {
		status = add_row_users(&inventory, store,
			"SELECT image_id, 'snap-' || min(id) || CASE count(*) WHEN 1 THEN ''"
			" ELSE ' and ' || (count(*) - 1) || ' more' END"
			" FROM snapshots WHERE image_id IS NOT NULL GROUP BY image_id",
			USER_SNAPSHOT, err);
	}
	if (status < 0) {
		inventory_done(&inventory);
		return status;
	}
	add_up(&inventory);
	*ret_inventory = inventory;
	return 0;
}

void inventory_done(struct inventory *inventory)
{
	for (size_t i = 0; i < inventory->count; i++) {
		image_done(&inventory->rows[i].image);
		strv_free(inventory->rows[i].users);
	}
	free(inventory->rows);
	*inventory = (struct inventory){0};
}

static int compare_id(const void *key, const void *element)
{
	const int64_t *id = key;
	const struct inventory_row *row = element;

	return (row->image.id > *id) - (row->image.id < *id); /* newest, highest first */
}

struct inventory_row *inventory_find(const struct inventory *inventory, int64_t image_id)
{
	return bsearch(
		&image_id, inventory->rows, inventory->count, sizeof(*inventory->rows), compare_id);
}

uint64_t inventory_chosen_bytes(const struct inventory *inventory)
{
	size_t count, end;
	struct use *uses = list_uses(inventory, &count);
	uint64_t bytes = 0;

	for (size_t start = 0; start < count; start = end) {
		bool all;

		end = run_end(uses, count, start);
		all = (int64_t)(end - start) == uses[start].refs;
		for (size_t i = start; i < end; i++) {
			all = all && uses[i].row->chosen;
		}
		bytes += all ? uses[start].stored - uses[start].linked : 0;
	}
	free(uses);
	return bytes;
}

int store_bytes(struct store *store, struct store_bytes *ret_bytes, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT count(*), sum(bytes), sum(stored), sum(stored) FILTER (WHERE refs = 0)"
		" FROM layers WHERE state = 'ready'");
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_bytes =
		(struct store_bytes){(uint64_t)query_int(&query, 0), (uint64_t)query_int(&query, 1),
			(uint64_t)query_int(&query, 2), (uint64_t)query_int(&query, 3)};
	return 0;
}
