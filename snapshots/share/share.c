/*
 * Which layers are compared with which, and what is recorded. A pair is compared once:
 * `compared_with` says with which layer (-1: there was none), `pair_bytes` how much the two have in
 * common; triggers of the catalog keep `shared` of both from that, and undo it when one of them
 * goes.
 */
#include "snapshots/share/share.h"
#include "snapshots/share/share_private.h"

#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#define NOTHING_TO_COMPARE (-1)
#define SHARE_LOCK "share.lock"
#define PROBE_BYTES 65536

static const char *const method_names[] = {"links", "blocks"};

const char *share_method_name(enum share_method method)
{
	return method_names[method];
}

/* ---- what the file system can ---- */

static int probe_file(int folder, const char *name, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *text = xcalloc(1, PROBE_BYTES);
	CLEANUP(close_p) int fd = io_open(folder, name, O_RDWR | O_CREAT | O_EXCL, 0600, err);

	if (fd < 0) {
		return fd;
	}
	memset(text, 'x', PROBE_BYTES);
	if (pwrite(fd, text, PROBE_BYTES, 0) != PROBE_BYTES) {
		return error_sys(err, errno != 0 ? errno : ENOSPC, "write %s", name);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int share_method_find(struct store *store, enum share_method *ret_method, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct share_file file = {.old_fd = -1, .new_fd = -1, .new = {.st_size = PROBE_BYTES}};
	uint64_t bytes = 0;
	int status = staging_new(store, &staging, err);

	if (status == 0) {
		status = probe_file(staging_fd(staging), "a", &file.old_fd, err);
	}
	if (status == 0) {
		status = probe_file(staging_fd(staging), "b", &file.new_fd, err);
	}
	if (status == 0) {
		struct error ignored = ERROR_INIT;

		/* A file system without it says so in one way or another. */
		*ret_method = share_blocks(&file, &bytes, &ignored) == 0 && bytes > 0 ? SHARE_BLOCKS
										      : SHARE_LINKS;
	}
	fd_done(&file.old_fd);
	fd_done(&file.new_fd);
	return status < 0 ? error_wrap(err, "try to share blocks") : 0;
}

/* ---- pairs ---- */

/*
 * ?1 in the environment's image before the first that has it: the layer of the same step, or of
 * sources the one at the same place among the sources.
 */
#define BEFORE_IN_IMAGE                                                                            \
	"WITH first (image, environment) AS ("                                                     \
	"  SELECT i.id, i.environment FROM image_layers AS il JOIN images AS i"                    \
	"  ON i.id = il.image_id WHERE il.layer_id = ?1 ORDER BY i.id LIMIT 1),"                   \
	" before (image) AS (SELECT max(i.id) FROM images AS i, first"                             \
	"  WHERE i.environment = first.environment AND i.id < first.image)"                        \
	" SELECT o.id FROM image_layers AS ol JOIN layers AS o ON o.id = ol.layer_id,"             \
	"  before, first, layers AS l"                                                             \
	" WHERE ol.image_id = before.image AND l.id = ?1 AND o.kind = l.kind AND o.id < l.id"      \
	" AND (o.title = l.title OR (l.kind <> 'step' AND"                                         \
	"  (SELECT count(*) FROM image_layers AS a JOIN layers AS b ON b.id = a.layer_id"          \
	"   WHERE a.image_id = ol.image_id AND a.position < ol.position AND b.kind = l.kind) ="    \
	"  (SELECT count(*) FROM image_layers AS a JOIN layers AS b ON b.id = a.layer_id,"         \
	"   image_layers AS c WHERE a.image_id = first.image AND c.image_id = first.image"         \
	"   AND c.layer_id = ?1 AND a.position < c.position AND b.kind = l.kind)))"                \
	" ORDER BY o.title = l.title DESC LIMIT 1"

/* The top layer of the snapshot that was taken of the same sandbox before. */
#define BEFORE_IN_SNAPSHOT                                                                         \
	"WITH first (id, sandbox) AS (SELECT s.id, s.sandbox FROM snapshot_layers AS sl"           \
	"  JOIN snapshots AS s ON s.id = sl.snapshot_id WHERE sl.layer_id = ?1"                    \
	"  AND s.sandbox <> '' ORDER BY s.id LIMIT 1)"                                             \
	" SELECT sl.layer_id FROM snapshots AS s, first JOIN snapshot_layers AS sl"                \
	"  ON sl.snapshot_id = s.id AND sl.generation = s.generation"                              \
	"  AND sl.position = s.layer_count - 1"                                                    \
	" WHERE s.sandbox = first.sandbox AND s.id < first.id AND sl.layer_id < ?1"                \
	" ORDER BY s.id DESC LIMIT 1"

/* 0: none. */
static int find_before(struct store *store, int64_t id, int64_t *ret_before, struct error *err)
{
	int status = store_number(store, BEFORE_IN_IMAGE, id, ret_before, err);

	return status == 0 && *ret_before == 0
		       ? store_number(store, BEFORE_IN_SNAPSHOT, id, ret_before, err)
		       : status;
}

/* In a mount, as far as the catalog knows: an image or snapshot with it is leased. */
static int is_leased(struct store *store, int64_t id, bool *ret_leased, struct error *err)
{
	int64_t leased = 0;
	int status = store_number(store,
		"SELECT EXISTS (SELECT 1 FROM image_layers AS il JOIN leases AS e"
		"  ON e.image_id = il.image_id WHERE il.layer_id = ?1)"
		" OR EXISTS (SELECT 1 FROM snapshot_layers AS sl JOIN snapshot_leases AS e"
		"  ON e.snapshot_id = sl.snapshot_id WHERE sl.layer_id = ?1)",
		id, &leased, err);

	*ret_leased = leased != 0;
	return status;
}

/*
 * Locks a layer against removal. *ret_free: nobody else is on it. The exclusive lock is held for
 * that look only, since builds and readers that come now must not be turned away; what they see is
 * sound at every moment.
 */
static int hold_layer(
	struct store *store, int64_t id, int *ret_fd, bool *ret_free, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	char name[ID_TEXT_SIZE];
	bool leased = false;
	int status;

	id_format(name, id);
	status = store_lock(store->layers_fd, name, LOCK_EX, &fd, err);
	*ret_free = status == 0;
	if (status == -ERROR_BUSY) {
		status = store_lock(store->layers_fd, name, LOCK_SH, &fd, err);
	} else if (status == 0 && flock(fd, LOCK_SH) < 0) {
		status = error_sys(err, errno, "lock layer %s", name);
	}
	if (status == 0) {
		status = is_leased(store, id, &leased, err);
	}
	if (status == 0) {
		*ret_free = *ret_free && !leased;
		*ret_fd = steal_fd(&fd);
	}
	return status;
}

int share_still_free(struct store *store, int64_t id, int layer_fd, struct error *err)
{
	bool leased = false, alone = flock(layer_fd, LOCK_EX | LOCK_NB) == 0;
	int status;

	/* A lock that cannot be made exclusive may be lost by the attempt. */
	if (flock(layer_fd, LOCK_SH | LOCK_NB) < 0) {
		return error_set(err, ERROR_BUSY, "layer %lld is being removed", (long long)id);
	}
	status = is_leased(store, id, &leased, err);
	return status == 0 && (leased || !alone)
		       ? error_set(err, ERROR_BUSY, "layer %lld is in use", (long long)id)
		       : status;
}

static void pair_done(struct share_pair *pair)
{
	fd_done(&pair->old_fd);
	fd_done(&pair->new_fd);
}

static int record(struct store *store, int64_t id, int64_t with, uint64_t bytes, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db,
		"UPDATE layers SET compared_with = ?, pair_bytes = ? WHERE id = ?");
	query_bind_int(&query, with);
	query_bind_int(&query, (int64_t)bytes);
	query_bind_int(&query, id);
	return query_run(&query, NULL, err);
}

/* Before the first link: whoever adds up must look, also after a kill. */
static int mark_linked(struct store *store, const struct share_pair *pair, struct error *err)
{
	static const char sql[] = "UPDATE layers SET linked = 1 WHERE id = ?";
	int status = store_run_id(store, sql, pair->old.id, NULL, err);

	return status == 0 ? store_run_id(store, sql, pair->new.id, NULL, err) : status;
}

static int share_locked(struct store *store, const struct share_pair *pair,
	const struct share_events *events, struct share_result *result, struct error *err)
{
	struct share_counts counts = {0};
	int status = share_settle(pair->old_fd, err);

	if (status == 0) {
		status = share_settle(pair->new_fd, err);
	}
	if (status == 0) {
		status = mark_linked(store, pair, err);
	}
	if (status == 0) {
		status = share_trees(store, pair, result->method, events, &counts, err);
	}
	result->files += counts.files;
	result->bytes += counts.saved;
	if (status == 0) {
		status = store_fault("share.before_record", err);
	}
	if (status == 0) {
		status = record(store, pair->new.id, pair->old.id, counts.bytes, err);
	}
	if (status == 0) {
		result->layers++;
		log_info("layer.shared", "layer", pair->new.id, "with", pair->old.id, "files",
			counts.files, "bytes", counts.bytes);
	}
	return status;
}

static int share_pair(struct store *store, const struct layer *layer, int64_t before,
	const struct share_events *events, struct share_result *result, struct error *err)
{
	CLEANUP(pair_done) struct share_pair pair = {.new = *layer, .old_fd = -1, .new_fd = -1};
	int status = layer_get(store, before, &pair.old, err);

	if (status == 0 && result->method == SHARE_LINKS &&
		(pair.old.id_base != layer->id_base || pair.old.id_count != layer->id_count)) {
		result->owners++;
		return record(store, layer->id, NOTHING_TO_COMPARE, 0, err);
	}
	if (status == 0) {
		status = hold_layer(store, pair.old.id, &pair.old_fd, &pair.old_free, err);
	}
	if (status == 0) {
		status = hold_layer(store, pair.new.id, &pair.new_fd, &pair.new_free, err);
	}
	/* One of them is on its way out, or missing: for gc and the recovery to say. */
	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		*err = ERROR_INIT;
		result->waiting++;
		return 0;
	}
	if (status == 0 && result->method == SHARE_LINKS && !pair.old_free && !pair.new_free) {
		result->waiting++;
		return 0;
	}
	if (status == 0) {
		status = share_locked(store, &pair, events, result, err);
	}
	if (status == -ERROR_BUSY) {
		*err = ERROR_INIT;
		result->waiting++; /* somebody has come meanwhile */
		return 0;
	}
	return status;
}

/* ---- all of them ---- */

static int list_layers(
	struct store *store, struct layer **ret_layers, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS " FROM layers AS l WHERE l.compared_with = 0"
		" AND l.state = 'ready' AND l.refs > 0 ORDER BY l.id");
	while ((row = query_row(&query, err)) > 0) {
		layer_from_row(&query, 0, array_add(ret_layers, ret_count, &room));
	}
	return row;
}

static int share_one(struct store *store, const struct layer *layer,
	const struct share_events *events, struct share_result *result, struct error *err)
{
	int64_t before = 0;
	int status = find_before(store, layer->id, &before, err);

	if (status < 0) {
		return status;
	}
	status = before == 0 ? record(store, layer->id, NOTHING_TO_COMPARE, 0, err)
			     : share_pair(store, layer, before, events, result, err);
	return status < 0 ? error_wrap(err, "layer %lld", (long long)layer->id) : 0;
}

/* One process at a time: two would replace each other's names. */
static int lock_sharing(struct store *store, int *ret_fd, struct error *err)
{
	if (store_turn(store, SHARE_LOCK, "another process shares files in this store", ret_fd,
		    err) == 0) {
		return 0;
	}
	return err->kind == ERROR_BUSY ? error_hint(err, "try again when it has ended")
				       : -(int)err->kind;
}

int store_share(struct store *store, const struct share_events *events,
	struct share_result *ret_result, struct error *err)
{
	CLEANUP(free_p) struct layer *layers = NULL;
	CLEANUP(close_p) int lock = -1;
	struct share_result result = {0};
	size_t count = 0;
	int status = lock_sharing(store, &lock, err);

	if (status == 0) {
		status = list_layers(store, &layers, &count, err);
	}
	if (status == 0 && count > 0) {
		status = share_method_find(store, &result.method, err);
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		status = share_one(store, &layers[i], events, &result, err);
	}
	*ret_result = result;
	return status;
}

int share_settle_all(struct store *store, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(store->layers_fd, ".", err);
	struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP(close_p) int layer = -1;
		int64_t id;

		if (!id_parse(entry->d_name, "", &id)) {
			continue;
		}
		layer = io_open(store->layers_fd, entry->d_name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		if (layer < 0 && err->kind == ERROR_NOT_FOUND) {
			*err = ERROR_INIT;
			continue;
		}
		if (layer < 0 || share_settle(layer, err) < 0) {
			return error_wrap(err, "layer %s", entry->d_name);
		}
	}
	return 0;
}
