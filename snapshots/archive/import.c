/*
 * An import: a child parses (import_source.c), this process checks and writes (import_tree.c).
 * Layers come in order; each is written in a staging folder of its own, given its attributes, read
 * again for its digest, and sealed. The commit of the snapshot is the last step: killed before it,
 * the sweep of a start takes all of it.
 */
#include "snapshots/archive/archive.h"
#include "snapshots/archive/import_private.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"

#include "base/json.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

struct import_layer {
	struct layer layer;
	char digest[SHA256_TEXT_SIZE];
	bool included, own;
	bool there; /* found in the store, or sealed */
};

struct importing {
	struct store *store;
	int64_t id_base;
	int wire; /* the source's */
	json_t *header;
	struct import_layer layers[SNAPSHOT_LAYERS_MAX];
	size_t layer_count, own_count;
	size_t current; /* + 1; 0: none has begun */
	struct staging *staging;
	struct import_tree tree;
	uint64_t entries, bytes;
	char *data; /* room for a piece */
};

static void import_done(struct importing *import)
{
	import_tree_done(&import->tree);
	staging_free(import->staging);
	json_decref(import->header);
	free(import->data);
}

static int read_text(struct importing *import, uint32_t length, uint32_t most, char **ret_text,
	struct error *err)
{
	CLEANUP(free_p) char *text = NULL;

	if (length > most) {
		return error_set(err, ERROR_LIMIT, "an entry of the archive is too long");
	}
	text = xmalloc((size_t)length + 1);
	if (io_read_full(import->wire, text, length, err) < 0) {
		return -(int)err->kind;
	}
	text[length] = '\0';
	*ret_text = steal_ptr(text);
	return 0;
}

static int read_failure(struct importing *import, uint32_t length, struct error *err)
{
	struct error failure;

	if (length != sizeof(failure) ||
		io_read_full(import->wire, &failure, sizeof(failure), err) < 0) {
		return error_set(err, ERROR_CORRUPT, "the archive cannot be read");
	}
	failure.message[sizeof(failure.message) - 1] = '\0';
	failure.hint[sizeof(failure.hint) - 1] = '\0';
	if (failure.kind <= ERROR_NONE || failure.kind >= ERROR_KINDS) {
		failure.kind = ERROR_CORRUPT;
	}
	error_copy(err, &failure);
	return -(int)err->kind;
}

static int read_head(struct importing *import, struct import_head *head, struct error *err)
{
	if (io_read_full(import->wire, head, sizeof(*head), err) < 0) {
		return error_set(err, ERROR_CORRUPT,
			"the process that reads the archive ended before the archive did");
	}
	return head->kind == IMPORT_FAILED ? read_failure(import, head->data_length, err) : 0;
}

static int read_entry(struct importing *import, const struct import_head *head,
	struct import_entry *ret_entry, struct error *err)
{
	struct import_entry entry = {.head = *head};
	int status = read_text(import, head->path_length, IMPORT_PATH_MAX, &entry.path, err);

	if (status == 0) {
		status = read_text(import, head->link_length, IMPORT_PATH_MAX, &entry.link, err);
	}
	if (status == 0) {
		status = read_text(
			import, head->xattr_length, IMPORT_XATTRS_MAX, &entry.xattrs, err);
	}
	if (status == 0 && (strlen(entry.path) != head->path_length ||
				   ++import->entries > IMPORT_ENTRIES_MAX)) {
		status = error_set(
			err, ERROR_LIMIT, "the archive has too many or impossible entries");
	}
	if (status < 0) {
		import_entry_done(&entry);
		return status;
	}
	*ret_entry = entry;
	return 0;
}

/* ---- the header ---- */

static int header_layer(
	const json_t *json, int64_t id_base, struct import_layer *ret_layer, struct error *err)
{
	struct import_layer one = {.layer = {.id_base = id_base, .id_count = 65536}};
	const char *digest = NULL, *kind = NULL, *title = NULL;
	int64_t files = 0, bytes = 0;
	bool host_usr = false;
	int status = json_get_str(json, "digest", &digest, err);

	status = status == 0 ? json_get_str(json, "kind", &kind, err) : status;
	status = status == 0 ? json_get_str(json, "title", &title, err) : status;
	status = status == 0 ? json_get_bool(json, "host_usr", &host_usr, err) : status;
	status = status == 0 ? json_get_bool(json, "own", &one.own, err) : status;
	status = status == 0 ? json_get_bool(json, "included", &one.included, err) : status;
	status = status == 0 ? json_get_int(json, "files", 0, INT64_MAX, &files, err) : status;
	status = status == 0 ? json_get_int(json, "bytes", 0, INT64_MAX, &bytes, err) : status;
	if (status < 0) {
		return status;
	}
	if (digest == NULL || !digest_is_valid(digest) || kind == NULL || title == NULL) {
		return error_set(err, ERROR_INVALID, "a layer without digest, kind or title");
	}
	snprintf(one.digest, sizeof(one.digest), "%s", digest);
	snprintf(one.layer.kind, sizeof(one.layer.kind), "%.15s", kind);
	snprintf(one.layer.title, sizeof(one.layer.title), "%.95s", title);
	one.layer.host_usr = host_usr;
	one.layer.files = (uint64_t)files;
	one.layer.bytes = (uint64_t)bytes;
	*ret_layer = one;
	return 0;
}

static int read_layers(struct importing *import, struct error *err)
{
	const json_t *list = json_object_get(import->header, "layers");
	size_t count = json_array_size(list);

	if (count == 0 || count > SNAPSHOT_LAYERS_MAX) {
		return error_set(err, ERROR_LIMIT, "a snapshot of %zu layers; 1 to %d are possible",
			count, SNAPSHOT_LAYERS_MAX);
	}
	for (size_t i = 0; i < count; i++) {
		int status = header_layer(
			json_array_get(list, i), import->id_base, &import->layers[i], err);

		if (status < 0) {
			return status;
		}
		import->own_count += import->layers[i].own;
	}
	import->layer_count = count;
	return 0;
}

static int read_header(struct importing *import, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {.max = ARCHIVE_HEADER_MAX};
	struct import_entry entry = {0};
	struct import_head head;
	int64_t format = 0;
	int status = read_head(import, &head, err);

	if (status < 0) {
		return status;
	}
	if (head.kind == IMPORT_ENTRY) {
		status = read_entry(import, &head, &entry, err);
	}
	if (status == 0 && (entry.path == NULL || !streq(entry.path, ARCHIVE_HEADER_NAME) ||
				   head.size > ARCHIVE_HEADER_MAX)) {
		status =
			error_set(err, ERROR_INVALID, "this is no archive of hob snapshots export");
	}
	while (status == 0 && text.length < entry.head.size) {
		status = read_head(import, &head, err);
		if (status == 0 &&
			(head.kind != IMPORT_DATA || head.data_length > IMPORT_DATA_MAX ||
				head.offset != text.length)) {
			status = error_set(err, ERROR_CORRUPT, "the archive's header is cut off");
		}
		if (status == 0) {
			status = io_read_full(import->wire, import->data, head.data_length, err);
		}
		if (status == 0 && !buffer_add(&text, import->data, head.data_length)) {
			status = error_set(err, ERROR_LIMIT, "the archive's header is too long");
		}
	}
	import_entry_done(&entry);
	if (status == 0) {
		status = json_parse_object(buffer_text(&text), text.length, &import->header, err);
	}
	if (status == 0) {
		status = json_get_int(import->header, "format", 1, 1, &format, err);
	}
	return status < 0 ? error_wrap(err, ARCHIVE_HEADER_NAME) : read_layers(import, err);
}

/* ---- layers that the store has ---- */

/* A ready layer that has the digest, or whose sizes fit and whose digest, now computed, is it. */
static int find_layer(struct importing *import, struct import_layer *wanted, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, import->store->db,
		"SELECT " LAYER_COLUMNS " FROM layers AS l WHERE l.state = 'ready' AND"
		" (l.digest = ?1 OR (l.digest = '' AND l.files = ?2 AND l.bytes = ?3))"
		" ORDER BY l.digest DESC");
	query_bind_text(&query, wanted->digest);
	query_bind_int(&query, (int64_t)wanted->layer.files);
	query_bind_int(&query, (int64_t)wanted->layer.bytes);
	while ((row = query_row(&query, err)) > 0) {
		char digest[SHA256_TEXT_SIZE], name[ID_TEXT_SIZE];
		struct layer layer;
		int lock = -1;

		layer_from_row(&query, 0, &layer);
		id_format(name, layer.id);
		if (store_lock(import->store->layers_fd, name, LOCK_SH, &lock, err) < 0) {
			continue; /* on its way out */
		}
		if (layer_digest(import->store, &layer, digest, err) == 0 &&
			streq(digest, wanted->digest)) {
			store_hold(import->store, HOLD_USED, layer.id, lock);
			wanted->layer = layer;
			wanted->there = true;
			return 0;
		}
		close(lock);
	}
	return row;
}

static int find_layers(struct importing *import, struct error *err)
{
	for (size_t i = 0; i < import->layer_count; i++) {
		struct import_layer *layer = &import->layers[i];
		int status = find_layer(import, layer, err);

		if (status < 0) {
			return status;
		}
		if (!layer->there && !layer->included) {
			error_set(err, ERROR_NOT_FOUND,
				"layer %zu (%s, %.12s) is neither in the archive nor in this store",
				i, layer->layer.title, layer->digest);
			return error_hint(
				err, "import its parents first, or export it with --with-parents");
		}
	}
	return 0;
}

/* ---- layers of the archive ---- */

/* Of what the archive has; layers that the store has are read over, but not written. */
static void announce(struct importing *import)
{
	uint64_t entries = 0, bytes = 0;

	for (size_t i = 0; i < import->layer_count; i++) {
		if (import->layers[i].included) {
			entries += import->layers[i].layer.files;
			bytes += import->layers[i].layer.bytes;
		}
	}
	store_phase(import->store, "write", entries, bytes);
	store_advance(import->store, import->entries, import->bytes);
}

static int begin_layer(struct importing *import, size_t number, struct error *err)
{
	int status;

	import->current = number + 1;
	announce(import);
	if (import->layers[number].there) {
		return 0; /* what comes is read and dropped */
	}
	status = staging_new(import->store, &import->staging, err);
	if (status < 0) {
		return status;
	}
	if (mkdirat(staging_fd(import->staging), "tree", 0700) < 0) {
		return error_sys(err, errno, "make the tree of layer %zu", number);
	}
	import->tree.store = import->store;
	import->tree.id_base = import->id_base;
	import->tree.fd = io_open(
		staging_fd(import->staging), "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	return import->tree.fd < 0 ? import->tree.fd : store_fault("import.begun", err);
}

static int record_digest(
	struct importing *import, const struct import_layer *layer, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, import->store->db, "UPDATE layers SET digest = ? WHERE id = ?");
	query_bind_text(&query, layer->digest);
	query_bind_int(&query, layer->layer.id);
	return query_run(&query, NULL, err);
}

static int end_layer(struct importing *import, struct error *err)
{
	struct import_layer *layer = &import->layers[import->current - 1];
	char digest[SHA256_TEXT_SIZE];
	int status;

	if (layer->there) {
		return 0;
	}
	status = import_tree_finish(&import->tree, err);
	if (status == 0) {
		store_phase(import->store, "check", layer->layer.files, layer->layer.bytes);
		status =
			layer_digest_of(import->store, &layer->layer, import->tree.fd, digest, err);
	}
	if (status == 0 && !streq(digest, layer->digest)) {
		status = error_set(err, ERROR_CORRUPT,
			"layer %zu (%s) is not what its digest says: the archive is damaged",
			import->current - 1, layer->layer.title);
	}
	import_tree_done(&import->tree);
	if (status == 0) {
		status = store_fault("import.checked", err);
	}
	if (status == 0) {
		status = layer_seal(import->store, import->staging, &layer->layer, err);
	}
	if (status == 0) {
		status = record_digest(import, layer, err);
	}
	staging_free(steal_ptr(import->staging));
	layer->there = status == 0;
	return status;
}

/* "layers/3/a/b" becomes 3 and "a/b". */
static int split_path(struct import_entry *entry, size_t *ret_number, struct error *err)
{
	char *text = entry->path, *rest, *inner;
	unsigned long number;
	size_t length = strlen(text);

	while (length > 0 && text[length - 1] == '/') {
		text[--length] = '\0';
	}
	if (!str_starts(text, "layers/") || text[7] < '0' || text[7] > '9') {
		return error_set(
			err, ERROR_INVALID, "the archive's entry \"%s\" is in no layer", text);
	}
	number = strtoul(text + 7, &rest, 10);
	if (number >= SNAPSHOT_LAYERS_MAX || (*rest != '/' && *rest != '\0')) {
		return error_set(
			err, ERROR_INVALID, "the archive's entry \"%s\" is in no layer", text);
	}
	inner = xstrdup(*rest == '/' ? rest + 1 : rest);
	if (entry->head.is_hardlink != 0) {
		size_t prefix = (size_t)(rest - text) + 1;
		bool same = strncmp(entry->link, text, prefix) == 0;
		char *link = xstrdup(same ? entry->link + prefix : "/");

		free(entry->link);
		entry->link = link;
	}
	free(entry->path);
	entry->path = inner;
	*ret_number = number;
	return 0;
}

static int take_entry(struct importing *import, const struct import_head *head, struct error *err)
{
	CLEANUP(import_entry_done) struct import_entry entry = {0};
	size_t number = 0;
	int status = read_entry(import, head, &entry, err);

	store_advance(import->store, 1, 0);
	if (status == 0) {
		status = split_path(&entry, &number, err);
	}
	if (status == 0 && number + 1 != import->current) {
		if (number + 1 < import->current || number >= import->layer_count ||
			!import->layers[number].included) {
			return error_set(err, ERROR_INVALID,
				"layer %zu of the archive is out of order", number);
		}
		status = import->current > 0 ? end_layer(import, err) : 0;
		if (status == 0) {
			status = begin_layer(import, number, err);
		}
	}
	if (status < 0 || import->layers[number].there) {
		return status;
	}
	return import_tree_add(&import->tree, &entry, err);
}

static int take_data(struct importing *import, const struct import_head *head, struct error *err)
{
	if (head->data_length > IMPORT_DATA_MAX || import->current == 0) {
		return error_set(err, ERROR_CORRUPT, "the archive has data out of place");
	}
	if (io_read_full(import->wire, import->data, head->data_length, err) < 0) {
		return -(int)err->kind;
	}
	import->bytes += head->data_length;
	store_advance(import->store, 0, head->data_length);
	if (import->bytes > IMPORT_BYTES_MAX) {
		return error_set(err, ERROR_LIMIT, "the archive unpacks to more than %llu bytes",
			IMPORT_BYTES_MAX);
	}
	if (import->layers[import->current - 1].there) {
		return 0;
	}
	return import_tree_data(&import->tree, head->offset, import->data, head->data_length, err);
}

static int take_all(struct importing *import, struct error *err)
{
	struct import_head head;
	int status;

	for (;;) {
		status = read_head(import, &head, err);
		if (status < 0 || head.kind == IMPORT_END) {
			break;
		}
		status = head.kind == IMPORT_ENTRY  ? take_entry(import, &head, err)
			 : head.kind == IMPORT_DATA ? take_data(import, &head, err)
						    : error_set(err, ERROR_CORRUPT,
							      "the reader of the archive failed");
		if (status < 0) {
			break;
		}
	}
	if (status == 0 && import->current > 0) {
		status = end_layer(import, err);
	}
	for (size_t i = 0; status == 0 && i < import->layer_count; i++) {
		if (!import->layers[i].there) {
			return error_set(err, ERROR_CORRUPT,
				"layer %zu is missing: the archive is cut off", i);
		}
	}
	return status;
}

/* ---- the snapshot ---- */

/* An image of this store whose layers are the lowest ones, so that lineage has a root. 0: none. */
static int find_image(
	struct importing *import, const char *environment, int64_t *ret_id, struct error *err)
{
	struct image *images = NULL;
	size_t count = 0;
	int64_t found = 0;
	int status = image_list(import->store, environment, &images, &count, err);

	for (size_t i = 0; status == 0 && i < count; i++) {
		size_t same = 0, most = images[i].layer_count;

		while (same < most && same < import->layer_count &&
			images[i].layers[same].id == import->layers[same].layer.id) {
			same++;
		}
		found = found == 0 && same == most ? images[i].id : found;
		image_done(&images[i]);
	}
	free(images);
	*ret_id = found;
	return status;
}

static int commit(struct importing *import, struct snapshot *ret_snapshot, struct error *err)
{
	const json_t *header = import->header;
	const char *environment = NULL, *reason = NULL, *label = NULL, *revision = NULL;
	struct snapshot snapshot = {
		.layer_count = import->layer_count, .own_count = import->own_count};
	int status = json_get_str(header, "environment", &environment, err);

	status = status == 0 ? json_get_str(header, "reason", &reason, err) : status;
	status = status == 0 ? json_get_str(header, "label", &label, err) : status;
	status = status == 0 ? json_get_str(header, "commit", &revision, err) : status;
	if (status < 0) {
		return status;
	}
	if (environment == NULL || reason == NULL ||
		!snapshot_reason_parse(reason, &snapshot.reason)) {
		return error_set(
			err, ERROR_INVALID, "the archive's header names no environment or reason");
	}
	status = find_image(import, environment, &snapshot.image_id, err);
	if (status < 0) {
		return status;
	}
	snprintf(snapshot.environment, sizeof(snapshot.environment), "%.64s", environment);
	snprintf(snapshot.label, sizeof(snapshot.label), "%.128s", label != NULL ? label : "");
	snprintf(snapshot.commit, sizeof(snapshot.commit), "%.64s",
		revision != NULL ? revision : "");
	snapshot.metadata = json_dumps(json_object_get(header, "metadata"), JSON_COMPACT);
	snapshot.manifest = json_dumps(json_object_get(header, "manifest"), JSON_COMPACT);
	snapshot.layers = xcalloc(import->layer_count, sizeof(*snapshot.layers));
	for (size_t i = 0; i < import->layer_count; i++) {
		snapshot.layers[i].id = import->layers[i].layer.id;
	}
	status = snapshot_commit(import->store, &snapshot, err);
	if (status < 0) {
		snapshot_done(&snapshot);
		return status;
	}
	*ret_snapshot = snapshot;
	return 0;
}

int snapshot_import(struct store *store, struct import_source *source, int64_t id_base,
	struct snapshot *ret_snapshot, struct error *err)
{
	CLEANUP(import_done)
	struct importing import = {.store = store,
		.id_base = id_base,
		.wire = source->wire,
		.tree = IMPORT_TREE_INIT,
		.data = xmalloc(IMPORT_DATA_MAX)};
	struct error ignored = ERROR_INIT;
	int status = read_header(&import, err);

	if (status == 0) {
		status = find_layers(&import, err);
	}
	if (status == 0) {
		announce(&import);
		status = take_all(&import, err);
	}
	if (status == 0) {
		status = commit(&import, ret_snapshot, err);
	}
	if (status < 0) {
		(void)!layers_discard(store, &ignored);
		return error_wrap(err, "import");
	}
	return 0;
}
