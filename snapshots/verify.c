/* The walk of a layer makes a line for each entry; lines are compared with the recorded ones one by
 * one, and a name that only one side has is told by the order of names. */
#include "snapshots/verify.h"
#include "snapshots/share/share.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <xxhash.h>

#define BLOCK_BYTES (256 * 1024)
#define RECORD_MAX (512u * 1024 * 1024) /* of a file of digests */
#define PROGRESS_BYTES (64u * 1024 * 1024)

/* What is known of one entry, in a file of digests a line "content attributes size time path\0". */
struct record {
	uint64_t content, attributes;
	int64_t size, seconds, nanoseconds;
};

struct verifying {
	struct store *store;
	const struct layer *layer;
	const struct verify_events *events;
	bool quick;
	char *block;
	struct buffer made; /* the lines of this walk, when there are none to compare with */
	struct buffer recorded;
	size_t at; /* in recorded */
	bool compare, damaged;
	uint64_t entries, bytes, told;
};

static void verifying_done(struct verifying *verifying)
{
	free(verifying->block);
	buffer_done(&verifying->made);
	buffer_done(&verifying->recorded);
}

static void damage(struct verifying *verifying, const char *path, const char *what)
{
	verifying->damaged = true;
	verifying->events->damage(verifying->events->context, verifying->layer, path, what);
}

/* ---- one entry ---- */

static uint64_t hash_attributes(const struct walk_entry *entry)
{
	CLEANUP(buffer_done) struct buffer text = {0};
	const struct stat *status = &entry->stat;

	buffer_addf(&text, "%o %" PRId64 ":%" PRId64 " %u:%u %s %s", status->st_mode, entry->uid,
		entry->gid, major(status->st_rdev), minor(status->st_rdev),
		entry->target != NULL ? entry->target : "",
		entry->hardlink != NULL ? entry->hardlink : "");
	for (size_t i = 0; i < entry->xattr_count; i++) {
		buffer_addf(&text, " %s=%zu:", entry->xattrs[i].name, entry->xattrs[i].size);
		buffer_add(&text, entry->xattrs[i].value, entry->xattrs[i].size);
	}
	return XXH3_64bits(text.data, text.length);
}

static void tell(struct verifying *verifying, size_t bytes)
{
	verifying->bytes += bytes;
	if (verifying->bytes - verifying->told >= PROGRESS_BYTES &&
		verifying->events->progress != NULL) {
		verifying->told = verifying->bytes;
		verifying->events->progress(
			verifying->events->context, verifying->entries, verifying->bytes);
	}
}

static int hash_content(struct verifying *verifying, const struct walk_entry *entry,
	uint64_t *ret_hash, struct error *err)
{
	XXH3_state_t *state = XXH3_createState();
	ssize_t got = 0;

	XXH3_64bits_reset(state);
	for (off_t at = 0; at < entry->stat.st_size; at += got) {
		got = pread(entry->fd, verifying->block, BLOCK_BYTES, at);
		if (got < 0 && errno == EINTR) {
			got = 0;
			continue;
		}
		if (got <= 0) {
			break;
		}
		XXH3_64bits_update(state, verifying->block, (size_t)got);
		tell(verifying, (size_t)got);
	}
	*ret_hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	if (got >= 0) {
		return 0;
	}
	/* What the disk cannot give is what one verifies for. */
	error_sys(err, errno, "read %s", entry->path);
	damage(verifying, entry->path, err->message);
	return 1;
}

static int make_record(struct verifying *verifying, const struct walk_entry *entry,
	struct record *ret_record, struct error *err)
{
	*ret_record = (struct record){.attributes = hash_attributes(entry),
		.size = S_ISREG(entry->stat.st_mode) ? entry->stat.st_size : 0,
		.seconds = entry->stat.st_mtim.tv_sec,
		.nanoseconds = entry->stat.st_mtim.tv_nsec};
	if (!S_ISREG(entry->stat.st_mode) || entry->hardlink != NULL || verifying->quick) {
		return 0;
	}
	return hash_content(verifying, entry, &ret_record->content, err);
}

/* ---- lines ---- */

#define RECORD_FORMAT "%016" PRIx64 " %016" PRIx64 " %" PRId64 " %" PRId64 ".%09" PRId64 " "

static void add_line(struct buffer *text, const struct record *record, const char *path)
{
	buffer_addf(text, RECORD_FORMAT, record->content, record->attributes, record->size,
		record->seconds, record->nanoseconds);
	buffer_add(text, path, strlen(path) + 1);
}

/* The recorded line at the place; NULL at the end. */
static const char *next_line(
	const struct verifying *verifying, struct record *record, size_t *ret_end)
{
	const char *line = verifying->recorded.data + verifying->at;
	int path = 0;

	if (verifying->at >= verifying->recorded.length ||
		sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNd64 " %" SCNd64 ".%" SCNd64 "%n",
			&record->content, &record->attributes, &record->size, &record->seconds,
			&record->nanoseconds, &path) != 5) {
		return NULL;
	}
	*ret_end = verifying->at + strlen(line) + 1;
	return line + path + 1;
}

/* In the order of the walk: a slash comes before any other byte of a name. */
static int compare_paths(const char *a, const char *b)
{
	for (; *a != '\0' && *a == *b; a++, b++) {
		continue;
	}
	int left = *a == '/' ? 1 : (unsigned char)*a + (*a != '\0');
	int right = *b == '/' ? 1 : (unsigned char)*b + (*b != '\0');

	return (left > right) - (left < right);
}

static void compare_record(struct verifying *verifying, const char *path, const struct record *was,
	const struct record *is)
{
	if (was->size != is->size) {
		damage(verifying, path, "has another size");
	} else if (was->seconds != is->seconds || was->nanoseconds != is->nanoseconds) {
		damage(verifying, path, "has another time");
	} else if (was->attributes != is->attributes) {
		damage(verifying, path, "has other attributes, or another type");
	} else if (!verifying->quick && was->content != is->content) {
		damage(verifying, path, "has other content");
	}
}

static void compare_entry(
	struct verifying *verifying, const char *path, const struct record *record)
{
	struct record was;
	const char *other;
	size_t end = 0;

	while ((other = next_line(verifying, &was, &end)) != NULL &&
		compare_paths(other, path) < 0) {
		damage(verifying, other, "is missing");
		verifying->at = end;
	}
	if (other == NULL || compare_paths(other, path) != 0) {
		damage(verifying, path, "was not there");
		return;
	}
	verifying->at = end;
	compare_record(verifying, path, &was, record);
}

static int take_entry(void *context, const struct walk_entry *entry, struct error *err)
{
	struct verifying *verifying = context;
	struct record record;
	int unreadable = make_record(verifying, entry, &record, err);

	verifying->entries++;
	if (unreadable != 0) {
		record.content = ~record.content;
	}
	if (verifying->compare) {
		compare_entry(verifying, entry->path, &record);
	} else {
		add_line(&verifying->made, &record, entry->path);
	}
	return 0;
}

/* ---- the file ---- */

static int read_recorded(struct verifying *verifying, int layer_fd, struct error *err)
{
	struct buffer *text = &verifying->recorded;
	uint64_t hash = 0;
	int status;

	text->max = RECORD_MAX;
	status = io_read_file(layer_fd, VERIFY_FILE, text, err);
	if (status == -ERROR_NOT_FOUND) {
		return 0;
	}
	if (status < 0) {
		return status;
	}
	verifying->compare = true;
	if (text->length < sizeof(hash)) {
		damage(verifying, VERIFY_FILE, "is cut off");
		return 0;
	}
	text->length -= sizeof(hash);
	memcpy(&hash, text->data + text->length, sizeof(hash));
	text->data[text->length] = '\0';
	if (XXH3_64bits(text->data, text->length) != hash) {
		damage(verifying, VERIFY_FILE, "is damaged itself; without it the rest is unknown");
		verifying->at = text->length;
	}
	return 0;
}

static int write_made(struct verifying *verifying, int layer_fd, struct error *err)
{
	uint64_t hash = XXH3_64bits(verifying->made.data, verifying->made.length);
	int status;

	buffer_add(&verifying->made, &hash, sizeof(hash));
	status = store_fault("verify.recording", err);
	return status < 0 ? status
			  : io_write_file(layer_fd, VERIFY_FILE, verifying->made.data,
				    verifying->made.length, 0600, err);
}

static int verify_tree(struct verifying *verifying, int layer_fd, enum verify_outcome *ret_outcome,
	struct error *err)
{
	CLEANUP(close_p)
	int tree = io_open(layer_fd, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	struct record record;
	const char *path;
	size_t end;
	int status = tree < 0 ? tree : read_recorded(verifying, layer_fd, err);

	if (status == 0 && !verifying->damaged) {
		status = layer_walk(
			verifying->store, verifying->layer, tree, take_entry, verifying, err);
	}
	while (status == 0 && verifying->compare && !verifying->damaged &&
		(path = next_line(verifying, &record, &end)) != NULL) {
		damage(verifying, path, "is missing");
		verifying->at = end;
	}
	if (status == 0 && !verifying->compare && !verifying->damaged && !verifying->quick) {
		status = write_made(verifying, layer_fd, err);
	}
	*ret_outcome = verifying->damaged   ? VERIFY_DAMAGED
		       : verifying->compare ? VERIFY_SOUND
					    : VERIFY_RECORDED;
	return status;
}

int layer_verify(struct store *store, const struct layer *layer, bool quick,
	const struct verify_events *events, enum verify_outcome *ret_outcome, struct error *err)
{
	CLEANUP(verifying_done)
	struct verifying verifying = {.store = store,
		.layer = layer,
		.events = events,
		.quick = quick,
		.block = xmalloc(BLOCK_BYTES)};
	CLEANUP(close_p) int lock = -1;
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, layer->id);
	status = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (status == -ERROR_NOT_FOUND) {
		struct layer still;

		*err = ERROR_INIT;
		status = layer_get(store, layer->id, &still, err);
		if (status < 0) {
			/* Its row goes before its folder. */
			return status != -ERROR_NOT_FOUND
				       ? status
				       : error_set(err, ERROR_BUSY, "layer %s is removed", name);
		}
		damage(&verifying, "", "is missing as a whole");
		*ret_outcome = VERIFY_DAMAGED;
		return 0;
	}
	if (status == 0) {
		status = share_settle(lock, err);
	}
	if (status == 0) {
		status = verify_tree(&verifying, lock, ret_outcome, err);
	}
	return status < 0 ? error_wrap(err, "verify layer %s", name) : 0;
}

/* ---- runs ---- */

int verify_run_begin(
	struct store *store, int64_t *ret_started_ms, bool *ret_resumed, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	CLEANUP(query_done) struct query mark = {0};
	int64_t now = clock_real_ms();
	int row;

	query_init(&query, store->db, "SELECT value FROM marks WHERE name = 'verify'");
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_resumed = row > 0;
	*ret_started_ms = row > 0 ? query_int(&query, 0) : now;
	query_done(&query);
	query_init(
		&mark, store->db, "INSERT OR IGNORE INTO marks (name, value) VALUES ('verify', ?)");
	query_bind_int(&mark, now);
	return query_run(&mark, NULL, err);
}

int verify_run_end(struct store *store, struct error *err)
{
	return catalog_exec(store->db, "DELETE FROM marks WHERE name = 'verify'", err);
}

int verify_run_layers(struct store *store, int64_t started_ms, struct layer **ret_layers,
	size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct layer *layers = NULL;
	size_t count = 0, room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS " FROM layers AS l WHERE l.state = 'ready'"
		" AND (?1 = 0 OR l.verified_ms < ?1) ORDER BY l.id");
	query_bind_int(&query, started_ms);
	while ((row = query_row(&query, err)) > 0) {
		layer_from_row(&query, 0, array_add(&layers, &count, &room));
	}
	*ret_layers = layers;
	*ret_count = count;
	return row;
}

int layer_verified(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db, "UPDATE layers SET verified_ms = ? WHERE id = ?");
	query_bind_int(&query, clock_real_ms());
	query_bind_int(&query, id);
	return query_run(&query, NULL, err);
}
