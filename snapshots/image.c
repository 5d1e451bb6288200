/*
 * Images: recording one and reading them back. image_commit is the commit point of a build: before
 * its transaction nothing of the build counts, after it everything does, and the link in heads/
 * only repeats it.
 */
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void image_done(struct image *image)
{
	free(image->manifest);
	free(image->layers);
	*image = (struct image){0};
}

static bool layer_is_there(const struct store *store, int64_t id)
{
	char path[ID_TEXT_SIZE + sizeof("/tree")];
	struct stat status;

	snprintf(path, sizeof(path), "%lld/tree", (long long)id);
	return fstatat(store->layers_fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(status.st_mode);
}

int layer_claim(struct store *store, struct layer *layer, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t id = layer->id;
	int status = layer_get(store, id, layer, err);

	if (status == -ERROR_NOT_FOUND) {
		error_set(err, ERROR_CONFLICT, "layer %lld has been removed meanwhile",
			(long long)id);
		return error_hint(err, "build again");
	}
	if (status < 0) {
		return status;
	}
	if (!layer_is_there(store, id)) {
		return error_set(err, ERROR_CORRUPT,
			"layer %lld is recorded but layers/%lld/tree is missing", (long long)id,
			(long long)id);
	}
	query_init(&query, store->db,
		"UPDATE layers SET state = 'ready' WHERE id = ? AND (? OR state = 'ready')");
	query_bind_int(&query, id);
	query_bind_int(&query, store_holds(store, HOLD_SEALED, id));
	int64_t changed = 0;
	status = query_run(&query, &changed, err);
	if (status == 0 && changed != 1) {
		return error_set(
			err, ERROR_CONFLICT, "layer %lld belongs to another build", (long long)id);
	}
	return status;
}

static int insert_image(struct store *store, struct image *image, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status;

	query_init(&query, store->db,
		"INSERT INTO images (environment, commit_id, fingerprint, manifest, created_ms)"
		" VALUES (?, ?, ?, ?, ?)");
	query_bind_text(&query, image->environment);
	query_bind_text(&query, image->commit);
	query_bind_text(&query, image->fingerprint);
	query_bind_text(&query, image->manifest != NULL ? image->manifest : "{}");
	query_bind_int(&query, image->created_ms);
	status = query_run(&query, NULL, err);
	if (status == 0) {
		image->id = sqlite3_last_insert_rowid(store->db);
	}
	return status;
}

static int insert_layers(struct store *store, const struct image *image, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status = 0;

	query_init(&query, store->db,
		"INSERT INTO image_layers (image_id, position, layer_id) VALUES (?, ?, ?)");
	for (size_t i = 0; status == 0 && i < image->layer_count; i++) {
		query_bind_int(&query, image->id);
		query_bind_int(&query, (int64_t)i);
		query_bind_int(&query, image->layers[i].id);
		status = query_run(&query, NULL, err);
		query_again(&query);
	}
	return status;
}

static int move_head(struct store *store, const struct image *image, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db,
		"INSERT INTO heads (environment, image_id) VALUES (?, ?)"
		" ON CONFLICT (environment) DO UPDATE SET image_id = excluded.image_id, refused = "
		"''");
	query_bind_text(&query, image->environment);
	query_bind_int(&query, image->id);
	return query_run(&query, NULL, err);
}

static int publish_build(
	struct store *store, const struct image *image, int64_t build_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	query_init(&query, store->db,
		"UPDATE builds SET state = 'published', image_id = ?, commit_id = ?, ended_ms = ?,"
		" message = ?"
		" WHERE id = ? AND state = 'running'");
	query_bind_int(&query, image->id);
	query_bind_text(&query, image->commit);
	query_bind_int(&query, image->created_ms);
	query_bind_text(&query, image->note);
	query_bind_int(&query, build_id);
	status = query_run(&query, &changed, err);
	if (status == 0 && changed != 1) {
		return error_set(
			err, ERROR_CONFLICT, "build bld-%lld is not running", (long long)build_id);
	}
	return status;
}

static int commit_rows(
	struct store *store, struct image *image, int64_t build_id, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	for (size_t i = 0; status == 0 && i < image->layer_count; i++) {
		status = layer_claim(store, &image->layers[i], err);
	}
	if (status == 0) {
		status = insert_image(store, image, err);
	}
	if (status == 0) {
		status = insert_layers(store, image, err);
	}
	if (status == 0) {
		status = move_head(store, image, err);
	}
	if (status == 0 && build_id != 0) {
		status = publish_build(store, image, build_id, err);
	}
	if (status == 0) {
		status = store_fault("image.before_commit", err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

static int check_image(const struct image *image, struct error *err)
{
	if (!name_is_valid(image->environment)) {
		return error_set(err, ERROR_INVALID, "\"%s\" is no name of an environment",
			image->environment);
	}
	if (image->layer_count == 0 || image->layer_count > IMAGE_LAYERS_MAX) {
		return error_set(err, ERROR_LIMIT, "an image of %zu layers; 1 to %d are possible",
			image->layer_count, IMAGE_LAYERS_MAX);
	}
	for (size_t i = 0; i < image->layer_count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (image->layers[i].id == image->layers[j].id) {
				return error_set(err, ERROR_INVALID, "layer %lld is there twice",
					(long long)image->layers[i].id);
			}
		}
	}
	return 0;
}

int image_commit(struct store *store, struct image *image, int64_t build_id, struct error *err)
{
	int status = check_image(image, err);

	image->created_ms = clock_real_ms();
	if (status == 0) {
		status = commit_rows(store, image, build_id, err);
	}
	if (status < 0) {
		image->id = 0;
		return error_wrap(err, "commit an image of %s", image->environment);
	}
	image->is_head = true;
	for (size_t i = 0; i < image->layer_count; i++) {
		store_release(store, HOLD_SEALED, image->layers[i].id);
		store_release(store, HOLD_USED, image->layers[i].id);
	}
	store_release(store, HOLD_BUILD, build_id);
	/* It is published. A link that could not be moved is no failure of the build: the next
	 * commit or start puts it right. */
	struct error late = ERROR_INIT;
	status = store_fault("image.committed", &late);
	if (status == 0) {
		status = head_link_update(store, image->environment, NULL, &late);
	}
	if (status == 0) {
		status = store_fault("image.linked", &late);
	}
	if (status < 0) {
		log_failure("head.link_failed", &late, "environment", image->environment);
	}
	return 0;
}

#define IMAGE_COLUMNS                                                                              \
	"i.id, i.environment, i.commit_id, i.fingerprint, i.manifest, i.created_ms,"               \
	" h.image_id IS NOT NULL"
#define IMAGE_TABLES "images AS i LEFT JOIN heads AS h ON h.image_id = i.id"

static void image_from_row(const struct query *query, struct image *image)
{
	*image = (struct image){.id = query_int(query, 0),
		.manifest = xstrdup(query_text(query, 4)),
		.created_ms = query_int(query, 5),
		.is_head = query_int(query, 6) != 0};
	query_copy(query, 1, image->environment, sizeof(image->environment));
	query_copy(query, 2, image->commit, sizeof(image->commit));
	query_copy(query, 3, image->fingerprint, sizeof(image->fingerprint));
}

/* Room for layers is taken a few at a time: lists hold thousands of images. */
#define LAYERS_STEP 8

static void add_layer(struct image *image, const struct query *query, int column)
{
	if (image->layer_count % LAYERS_STEP == 0) {
		image->layers = xreallocarray(
			image->layers, image->layer_count + LAYERS_STEP, sizeof(*image->layers));
	}
	layer_from_row(query, column, &image->layers[image->layer_count++]);
}

static int read_layers(struct store *store, struct image *image, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS
		" FROM image_layers AS il JOIN layers AS l ON l.id = il.layer_id"
		" WHERE il.image_id = ? ORDER BY il.position");
	query_bind_int(&query, image->id);
	while ((row = query_row(&query, err)) > 0) {
		add_layer(image, &query, 0);
	}
	return row;
}

/* One image, all of it read in one transaction: it may be removed at any time. */
static int read_image(struct store *store, const char *sql, int64_t id, const char *environment,
	struct image *ret_image, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(query_done) struct query query = {0};
	struct image image = {0};
	int row = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (row < 0) {
		return row;
	}
	query_init(&query, store->db, sql);
	if (environment != NULL) {
		query_bind_text(&query, environment);
	} else {
		query_bind_int(&query, id);
	}
	row = query_row(&query, err);
	if (row == 0) {
		return error_set(err, ERROR_NOT_FOUND, "no such image");
	}
	if (row < 0) {
		return row;
	}
	image_from_row(&query, &image);
	row = read_layers(store, &image, err);
	if (row < 0) {
		image_done(&image);
		return row;
	}
	*ret_image = image;
	return 0;
}

int image_head(
	struct store *store, const char *environment, struct image *ret_image, struct error *err)
{
	int status = read_image(store,
		"SELECT " IMAGE_COLUMNS " FROM " IMAGE_TABLES " WHERE h.environment = ?", 0,
		environment, ret_image, err);

	if (status == -ERROR_NOT_FOUND) {
		error_set(err, ERROR_NOT_FOUND, "environment %s has no image", environment);
		return error_hint(err, "make one with: hob build %s", environment);
	}
	return status;
}

int image_find(struct store *store, const char *name, struct image *ret_image, struct error *err)
{
	int64_t id;
	int status = -ERROR_NOT_FOUND;

	if (id_parse(name, "img-", &id)) {
		status = read_image(store,
			"SELECT " IMAGE_COLUMNS " FROM " IMAGE_TABLES " WHERE i.id = ?", id, NULL,
			ret_image, err);
	}
	if (status == -ERROR_NOT_FOUND) {
		status = image_head(store, name, ret_image, err);
	}
	if (status == -ERROR_NOT_FOUND) {
		error_set(err, ERROR_NOT_FOUND,
			"no image \"%s\", and no environment of that name has one", name);
		return error_hint(err, "hob images ls lists what there is");
	}
	return status;
}

static int list_rows(struct store *store, const char *environment, struct image **ret_images,
	size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct image *images = NULL;
	size_t count = 0, room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT " IMAGE_COLUMNS " FROM " IMAGE_TABLES
		" WHERE ?1 IS NULL OR i.environment = ?1 ORDER BY i.id DESC");
	query_bind_text(&query, environment);
	while ((row = query_row(&query, err)) > 0) {
		image_from_row(&query, array_add(&images, &count, &room));
	}
	*ret_images = images;
	*ret_count = count;
	return row;
}

/* The layers of all images in one pass, in the order of the list. */
static int list_layers(struct store *store, const char *environment, struct image *images,
	size_t count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t at = 0;
	int row;

	query_init(&query, store->db,
		"SELECT il.image_id, " LAYER_COLUMNS
		" FROM image_layers AS il JOIN layers AS l ON l.id = il.layer_id"
		" WHERE ?1 IS NULL OR il.image_id IN (SELECT id FROM images WHERE environment = ?1)"
		" ORDER BY il.image_id DESC, il.position");
	query_bind_text(&query, environment);
	while ((row = query_row(&query, err)) > 0) {
		while (at < count && images[at].id > query_int(&query, 0)) {
			at++;
		}
		if (at < count && images[at].id == query_int(&query, 0)) {
			add_layer(&images[at], &query, 1);
		}
	}
	return row;
}

int image_list(struct store *store, const char *environment, struct image **ret_images,
	size_t *ret_count, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	struct image *images = NULL;
	size_t count = 0;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (status == 0) {
		status = list_rows(store, environment, &images, &count, err);
	}
	if (status == 0) {
		status = list_layers(store, environment, images, count, err);
	}
	if (status < 0) {
		for (size_t i = 0; i < count; i++) {
			image_done(&images[i]);
		}
		free(images);
		return status;
	}
	*ret_images = images;
	*ret_count = count;
	return 0;
}
