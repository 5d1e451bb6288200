/*
 * The store: layers, images, heads and their catalog, under one folder (DESIGN: "Store"). The
 * catalog (sqlite3, WAL, synchronous=FULL) alone says what is reachable; the transaction of
 * image_commit is the commit point of a build. Several processes may hold one store open; each
 * handle belongs to one thread.
 *
 *     layers/<id>/tree        a committed layer; <id> is private to hob, tree has the layer's
 * owners staging/<random>/       not committed; flock()ed by its owner, swept when nobody holds it
 *     heads/<environment>     symbolic link to "img-<n>", a copy of the catalog's head for watchers
 */
#ifndef HOB_SNAPSHOTS_STORE_H
#define HOB_SNAPSHOTS_STORE_H

#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct store;

enum store_mode { STORE_READ, STORE_WRITE, STORE_CREATE };

/* STORE_CREATE makes the folders and the catalog when missing. All modes work while others have the
 * store open. ERROR_NOT_FOUND, ERROR_CORRUPT (not a catalog), ERROR_UNSUPPORTED (a newer schema).
 */
MUSTCHECK int store_open(
	const char *path, enum store_mode mode, struct store **ret_store, struct error *err);
void store_close(struct store *store);
DEFINE_CLEANUP(store_close_p, struct store, store_close)

int store_fd(const struct store *store); /* of the folder; the store's */
const char *store_path(const struct store *store);

/* What a removal needs of somebody with more rights than hob has (files in sandboxes' id ranges):
 * deletes `name` below `room` ("staging", "layers", "sandboxes"). NULL: io_remove_tree, for root.
 * It may return before the folder is gone: what it does not finish, the next sweep does. */
typedef int store_remove_fn(void *context, const char *room, const char *name, struct error *err);
void store_set_remover(struct store *store, store_remove_fn *fn, void *context);
/* The same for adding up staging/<name>/tree, whose folders hob may not be allowed to read. NULL:
 * io_tree_usage, and what it cannot read is not counted, with a warning. */
typedef int store_usage_fn(
	void *context, const char *name, struct tree_usage *ret_usage, struct error *err);
void store_set_usage(struct store *store, store_usage_fn *fn, void *context);
/* The same for a folder's trusted.overlay.opaque: read into *opaque, or written when `set`. NULL:
 * the system call, for root. */
typedef int store_opaque_fn(void *context, int fd, bool set, bool *opaque, struct error *err);
void store_set_opaque(struct store *store, store_opaque_fn *fn, void *context);

/* The same for comparing all extended attributes of two open files, those of overlayfs too. NULL:
 * what this process sees is all there is. */
typedef int store_compare_fn(
	void *context, int old_fd, int new_fd, bool *ret_same, struct error *err);
void store_set_compare(struct store *store, store_compare_fn *fn, void *context);

struct store_sweep {
	uint64_t staging; /* leftovers of killed processes, deleted */
	uint64_t orphans; /* folders in layers/ without a record, deleted */
	uint64_t finished; /* layers whose commit was cut off before anything reached them:
			      discarded */
	uint64_t missing; /* records without their layer: reported, kept */
	uint64_t builds; /* builds recorded as running whose process is gone: now failed */
	uint64_t snapshots; /* runs of snapshots whose process is gone: forgotten */
	uint64_t heads; /* links that did not match the catalog: put right */
	uint64_t stuck; /* leftovers that could not be deleted: logged, tried again next time */
};
/* The recovery of a start. Safe beside running builds: what another process holds is left alone.
 * ERROR_CORRUPT, and nothing is touched, when layers/ cannot belong to this catalog. */
MUSTCHECK int store_recover(struct store *store, struct store_sweep *ret_sweep, struct error *err);

/* ---- staging ---- */
struct staging;

/* A new folder staging/<name>, locked until it is freed. */
MUSTCHECK int staging_new(struct store *store, struct staging **ret_staging, struct error *err);
const char *staging_name(const struct staging *staging);
int staging_fd(const struct staging *staging); /* of the folder; the staging's */
/* Deletes the folder unless it was sealed. */
void staging_free(struct staging *staging);
DEFINE_CLEANUP(staging_free_p, struct staging, staging_free)

/* ---- layers ---- */
#define LAYER_ORIGIN_SIZE 272
/* Beside `tree`, written by hob: what a package manager has put there, as JSON. */
#define LAYER_PACKAGES "packages.json"
/* Beside a layer's tree that a step has made: paths of its opaque folders, each with its '\0'. */
#define LAYER_OPAQUE "opaque-folders"

struct layer {
	int64_t id;
	char kind[16]; /* "base", "source", "step" */
	char title[96]; /* for people: "webapp@1a2b3c4", "step deps" */
	char step_key[65]; /* finds it for reuse; empty: never reused */
	int64_t id_base; /* on disk its files are owned by id_base + 0 … id_base + id_count - 1 */
	int64_t id_count;
	bool host_usr; /* base: host: sandboxes see this machine's /usr, read-only */
	uint64_t files;
	uint64_t bytes; /* apparent */
	uint64_t stored; /* in use on disk */
	int64_t created_ms;
	int64_t refs; /* how many images and snapshots list it */
	uint64_t shared; /* of stored: another layer has it too, by links or shared blocks */
	char line_key[65]; /* of a step whatever its inputs are; empty: none */
	char origin[LAYER_ORIGIN_SIZE]; /* commits of the sources below it, each with a space */
	int64_t over; /* the earlier result that it starts from and needs below it; 0: none */
};

/*
 * Steps 1 to 4 of the commit: `sealing` row, syncfs, rename of staging/<name> into layers/<id>,
 * fsync of both folders. `about` gives kind, title, step_key, owners; id, sizes and time are filled
 * in. The staging folder must hold `tree`, and nothing may write to it any more. Until image_commit
 * (or layer_keep) the layer is not reachable, and a crash discards it.
 */
MUSTCHECK int layer_seal(
	struct store *store, struct staging *staging, struct layer *about, struct error *err);
/* Makes a sealed layer findable by its step_key without an image, so that a later step's failure
 * does not throw it away. */
MUSTCHECK int layer_keep(struct store *store, int64_t layer_id, struct error *err);
/* ERROR_NOT_FOUND when no ready layer has that key. Until image_commit or store_close the layer is
 * safe from removal. */
MUSTCHECK int layer_find(
	struct store *store, const char *step_key, struct layer *ret_layer, struct error *err);
/* The newest by its line_key, and one by its id; otherwise as layer_find. */
MUSTCHECK int layer_find_line(
	struct store *store, const char *line_key, struct layer *ret_layer, struct error *err);
MUSTCHECK int layer_use(
	struct store *store, int64_t id, struct layer *ret_layer, struct error *err);
/* Deletes what this handle sealed and neither committed nor kept; build_end does it too. */
MUSTCHECK int layers_discard(struct store *store, struct error *err);
MUSTCHECK int layer_get(
	struct store *store, int64_t id, struct layer *ret_layer, struct error *err);

/* ---- images ---- */
#define IMAGE_LAYERS_MAX 32
#define COMMIT_TEXT_SIZE 65 /* a git object id in hex, SHA-1 or SHA-256 */

struct image {
	int64_t id; /* shown as "img-<id>" */
	char environment[65];
	char commit[COMMIT_TEXT_SIZE]; /* of the first source, or empty */
	char fingerprint[65]; /* of the environment and all commits: equal means unchanged */
	int64_t created_ms;
	const char *note; /* image_commit: the build's message; not kept with the image */
	char *manifest; /* JSON: how a sandbox starts (env, user, workdir, sources) */
	struct layer *layers; /* lowest first */
	size_t layer_count;
	bool is_head;
};

void image_done(struct image *image); /* frees what it holds */

/*
 * The commit point: in one transaction the layers become ready, the image is recorded, the
 * environment's head moves to it, and build `build_id` becomes published. Then the link in heads/
 * is moved. `image` needs environment, commit, fingerprint, manifest and layers[].id.
 */
MUSTCHECK int image_commit(
	struct store *store, struct image *image, int64_t build_id, struct error *err);
/* By "img-12", "12" or an environment's name (its head). ERROR_NOT_FOUND. */
MUSTCHECK int image_find(
	struct store *store, const char *name, struct image *ret_image, struct error *err);
MUSTCHECK int image_head(
	struct store *store, const char *environment, struct image *ret_image, struct error *err);
/* All, newest first, or of one environment (NULL: all). Free each with image_done, then the array.
 */
MUSTCHECK int image_list(struct store *store, const char *environment, struct image **ret_images,
	size_t *ret_count, struct error *err);

/* Who needs this image: lines like "head of webapp", "leased by hobd", "snapshot snap-3". Free with
 * strv_free. */
MUSTCHECK int image_users(struct store *store, int64_t id, char ***ret_users, struct error *err);
/* Bytes that removing it would free, and that it shares with others. */
MUSTCHECK int image_bytes(struct store *store, int64_t id, uint64_t *ret_exclusive,
	uint64_t *ret_shared, struct error *err);
/* Removes it and the layers nobody else reaches. ERROR_CONFLICT naming the users, unless it has
 * none. */
MUSTCHECK int image_remove(struct store *store, int64_t id, uint64_t *ret_freed, struct error *err);
/*
 * Retention: removes the environment's images that are not among its newest `keep`, not its head
 * and not leased; and layers that were kept for reuse a day ago and that no image reaches. What is
 * in use is passed over. Counts may be NULL.
 */
#define IMAGES_KEEP 3
MUSTCHECK int images_prune(struct store *store, const char *environment, size_t keep,
	uint64_t *ret_images, uint64_t *ret_freed, struct error *err);
/*
 * Takes an environment's head back: to image `to_id`, which is one of its own (0: the newest that
 * is older than the head). What the head was is refused from then on: image_refused says so until
 * something changes or a build publishes. ERROR_NOT_FOUND: there is none to go back to.
 */
MUSTCHECK int image_rollback(struct store *store, const char *environment, int64_t to_id,
	struct image *ret_image, struct error *err);
/* The fingerprint that a rollback refused; "" when there is none. */
MUSTCHECK int image_refused(
	struct store *store, const char *environment, char ret_fingerprint[65], struct error *err);
/* For an environment that is no more: it has no head until its next build. ERROR_NOT_FOUND. */
MUSTCHECK int image_head_clear(struct store *store, const char *environment, struct error *err);
/* hobd says which images its sandboxes stand on; a lease is one row and outlives hobd. */
MUSTCHECK int image_lease(struct store *store, int64_t id, const char *holder, struct error *err);
MUSTCHECK int image_unlease(struct store *store, int64_t id, const char *holder, struct error *err);
/* Drops all leases of the holder but those on the given images. */
MUSTCHECK int image_leases_keep(struct store *store, const char *holder, const int64_t *ids,
	size_t count, struct error *err);

/* ---- builds ---- */
enum build_state {
	BUILD_QUEUED,
	BUILD_RUNNING,
	BUILD_PUBLISHED,
	BUILD_UNCHANGED,
	BUILD_FAILED,
	BUILD_SUPERSEDED,
	BUILD_STATES
};

struct build {
	int64_t id; /* shown as "bld-<id>" */
	char environment[65];
	enum build_state state;
	char commit[COMMIT_TEXT_SIZE];
	int64_t image_id; /* 0: none */
	int64_t started_ms;
	int64_t ended_ms; /* 0: not yet */
	int64_t pid; /* of hob-build while running */
	char *message; /* why it failed, or NULL */
	char fingerprint[65]; /* of what it tried to make; for build_end only */
};

const char *build_state_name(enum build_state state);
void build_done(struct build *build);
/* Records a running build of this process and opens its log, builds/<id>.log, for appending. */
MUSTCHECK int build_begin(struct store *store, const char *environment, struct build *ret_build,
	int *ret_log_fd, struct error *err);
/* For unchanged, failed and superseded; published is image_commit's. message may be NULL. Records
 * build->commit, and discards the layers that were sealed and not kept. */
MUSTCHECK int build_end(struct store *store, struct build *build, enum build_state state,
	const char *message, struct error *err);
MUSTCHECK int build_get(
	struct store *store, const char *name, struct build *ret_build, struct error *err);
/* Newest first, at most `limit`. environment NULL: all. */
MUSTCHECK int build_list(struct store *store, const char *environment, size_t limit,
	struct build **ret_builds, size_t *ret_count, struct error *err);
/* How often an image with this fingerprint has failed: for not trying the same in vain. */
struct build_failures {
	int64_t count;
	int64_t last_id, last_ms; /* the newest of them, and when it ended */
};
MUSTCHECK int build_failures(struct store *store, const char *environment, const char *fingerprint,
	struct build_failures *ret_failures, struct error *err);
/* When did an environment's last build (of any outcome) start; 0: never. */
MUSTCHECK int build_last_started(
	struct store *store, const char *environment, int64_t *ret_ms, struct error *err);
/* Forgets all but the environment's newest `keep` builds and their logs. */
#define BUILDS_KEEP 200
MUSTCHECK int builds_prune(
	struct store *store, const char *environment, size_t keep, struct error *err);
/* For reading: whole from an offset. The caller closes it. */
MUSTCHECK int build_log_open(struct store *store, int64_t id, int *ret_fd, struct error *err);

#endif
