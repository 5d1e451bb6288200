/* Images in use. One in the list is counted at least once and leased in the catalog. */
#include "pool/image.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/manager.h"
#include "pool/upkeep.h"
#include "snapshots/snapshot.h"

#include <inttypes.h>
#include <stdio.h>

static int read_env(const json_t *env, char ***ret_env, struct error *err)
{
	CLEANUP(strv_free_p) char **list = NULL;
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)env, key, value) {
		CLEANUP(free_p) char *pair = NULL;

		if (!json_is_string(value)) {
			return error_set(err, ERROR_CORRUPT, "manifest: env.%s is not text", key);
		}
		pair = xasprintf("%s=%s", key, json_string_value(value));
		strv_add(&list, pair);
	}
	*ret_env = steal_ptr(list);
	return 0;
}

int manifest_parse(
	const char *text, char ***ret_env, char **ret_user, char **ret_cwd, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const char *user = "root", *cwd = "/";
	const json_t *env;
	int status;

	if ((status = json_parse_object(text, strlen(text), &json, err)) < 0 ||
		(status = json_get_str(json, "user", &user, err)) < 0 ||
		(status = json_get_str(json, "workdir", &cwd, err)) < 0) {
		error_wrap(err, "manifest");
		err->kind = ERROR_CORRUPT;
		return -ERROR_CORRUPT;
	}
	env = json_object_get(json, "env");
	if (env != NULL && !json_is_object(env)) {
		return error_set(err, ERROR_CORRUPT, "manifest: env is not an object");
	}
	if ((status = read_env(env, ret_env, err)) < 0) {
		return status;
	}
	*ret_user = xstrdup(user);
	*ret_cwd = xstrdup(cwd);
	return 0;
}

void manifest_sources(const char *text, struct image_source **ret_sources, size_t *ret_count)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error ignored = ERROR_INIT;
	const json_t *list, *item;
	size_t i, room = 0;

	*ret_sources = NULL;
	*ret_count = 0;
	if (json_parse_object(text, strlen(text), &json, &ignored) < 0) {
		return;
	}
	list = json_object_get(json, "sources");
	json_array_foreach ((json_t *)(uintptr_t)list, i, item) {
		const char *path = json_string_value(json_object_get(item, "path"));
		const char *ref = json_string_value(json_object_get(item, "ref"));
		const char *commit = json_string_value(json_object_get(item, "commit"));
		struct image_source *source = array_add(ret_sources, ret_count, &room);

		source->path = xstrdup(path != NULL ? path : "");
		source->torn = json_is_true(json_object_get(item, "torn"));
		source->ref = xstrdup(ref != NULL ? ref : "");
		snprintf(
			source->commit, sizeof(source->commit), "%s", commit != NULL ? commit : "");
	}
}

static void pool_image_free(struct pool_image *image)
{
	for (size_t i = 0; i < image->source_count; i++) {
		free(image->sources[i].path);
		free(image->sources[i].ref);
	}
	free(image->sources);
	free(image->layers);
	strv_free(image->env);
	free(image->user);
	free(image->cwd);
	free(image);
}
DEFINE_CLEANUP(pool_image_free_p, struct pool_image, pool_image_free)

static struct pool_image *find_loaded(
	const struct manager *manager, int64_t id, int64_t snapshot_id)
{
	for (struct pool_image *image = manager->images; image != NULL; image = image->next) {
		if (image->snapshot_id == snapshot_id && (snapshot_id != 0 || image->id == id) &&
			!image->superseded) {
			return image;
		}
	}
	return NULL;
}

static int lease(struct pool_image *image, struct error *err)
{
	struct store *store = image->manager->store;

	return image->snapshot_id != 0
		       ? snapshot_lease(store, image->snapshot_id, LEASE_HOLDER, err)
		       : image_lease(store, image->id, LEASE_HOLDER, err);
}

static int unlease(struct pool_image *image, struct error *err)
{
	struct store *store = image->manager->store;

	return image->snapshot_id != 0
		       ? snapshot_unlease(store, image->snapshot_id, LEASE_HOLDER, err)
		       : image_unlease(store, image->id, LEASE_HOLDER, err);
}

/* Copies what images and snapshots have alike, without a lease. */
static int fill(struct pool_image *image, const struct image *about, struct error *err)
{
	image->id = about->id;
	image->created_ms = about->created_ms;
	snprintf(image->environment, sizeof(image->environment), "%s", about->environment);
	snprintf(image->commit, sizeof(image->commit), "%s", about->commit);
	image->layers = xcalloc(about->layer_count, sizeof(*image->layers));
	memcpy(image->layers, about->layers, about->layer_count * sizeof(*image->layers));
	image->layer_count = about->layer_count;
	manifest_sources(about->manifest != NULL ? about->manifest : "{}", &image->sources,
		&image->source_count);
	return manifest_parse(about->manifest != NULL ? about->manifest : "{}", &image->env,
		&image->user, &image->cwd, err);
}

static struct pool_image *enlist(struct pool_image *image)
{
	image->next = image->manager->images;
	image->manager->images = image;
	return image;
}

static int load(struct manager *manager, const struct image *about, struct pool_image **ret_image,
	struct error *err)
{
	CLEANUP(pool_image_free_p) struct pool_image *image = xcalloc(1, sizeof(*image));
	int status;

	image->manager = manager;
	if ((status = fill(image, about, err)) < 0 || (status = lease(image, err)) < 0) {
		return error_wrap(err, "image img-%" PRId64, about->id);
	}
	*ret_image = enlist(steal_ptr(image));
	return 0;
}

/* "img-3" and "3" are looked up among those loaded first: no catalog for the common claim. */
static struct pool_image *find_loaded_name(
	const struct manager *manager, const char *prefix, const char *name)
{
	const char *digits = str_starts(name, prefix) ? name + strlen(prefix) : name;
	char *end = NULL;
	long long id = strtoll(digits, &end, 10);

	if (*digits < '1' || *digits > '9' || *end != '\0') {
		return NULL;
	}
	return streq(prefix, "snap-") ? find_loaded(manager, 0, id) : find_loaded(manager, id, 0);
}

int pool_image_find(
	struct manager *manager, const char *name, struct pool_image **ret_image, struct error *err)
{
	struct pool_image *image = find_loaded_name(manager, "img-", name);
	struct image about = {0};
	int status;

	if (image == NULL) {
		if ((status = image_find(manager->store, name, &about, err)) < 0) {
			return status;
		}
		image = find_loaded(manager, about.id, 0);
		if (image == NULL && (status = load(manager, &about, &image, err)) < 0) {
			image_done(&about);
			return status;
		}
		image_done(&about);
	}
	*ret_image = pool_image_ref(image);
	return 0;
}

/* ---- snapshots ---- */

/* The lease first, then the list of layers: from then on a flattening leaves that list in place. */
static int read_leased(
	struct manager *manager, int64_t id, struct pool_image *image, struct error *err)
{
	CLEANUP(free_p) char *name = xasprintf("snap-%" PRId64, id);
	struct snapshot about = {0};
	int status;

	image->manager = manager;
	image->snapshot_id = id;
	if ((status = lease(image, err)) < 0) {
		return status;
	}
	status = snapshot_find(manager->store, name, &about, err);
	if (status == 0) {
		struct image alike = {.id = about.image_id,
			.created_ms = about.created_ms,
			.manifest = about.manifest,
			.layers = about.layers,
			.layer_count = about.layer_count};

		memcpy(alike.environment, about.environment, sizeof(alike.environment));
		memcpy(alike.commit, about.commit, sizeof(alike.commit));
		image->generation = about.generation;
		status = fill(image, &alike, err);
	}
	snapshot_done(&about);
	if (status < 0) {
		struct error ignored = ERROR_INIT;

		error_wrap(err, "snapshot %s", name);
		(void)!unlease(image, &ignored);
	}
	return status;
}

int pool_snapshot_find(
	struct manager *manager, const char *name, struct pool_image **ret_image, struct error *err)
{
	struct pool_image *found = find_loaded_name(manager, "snap-", name);
	CLEANUP(pool_image_free_p) struct pool_image *image = NULL;
	struct snapshot about = {0};
	int64_t id;
	int status;

	if (found == NULL) {
		if ((status = snapshot_find(manager->store, name, &about, err)) < 0) {
			return status;
		}
		id = about.id;
		snapshot_done(&about);
		found = find_loaded(manager, 0, id);
		if (found == NULL) {
			image = xcalloc(1, sizeof(*image));
			if ((status = read_leased(manager, id, image, err)) < 0) {
				return status;
			}
			found = enlist(steal_ptr(image));
		}
	}
	*ret_image = pool_image_ref(found);
	return 0;
}

struct pool_image *pool_image_ref(struct pool_image *image)
{
	image->users++;
	return image;
}

bool pool_image_is_same(const struct pool_image *a, const struct pool_image *b)
{
	return a == b ||
	       (a != NULL && b != NULL && a->snapshot_id != 0 && a->snapshot_id == b->snapshot_id);
}

bool pool_image_is_torn(const struct pool_image *image)
{
	return image->source_count > 0 && image->sources[0].torn;
}

/* Both lists of a flattened snapshot are under one lease, of the older one. */
static bool is_shared(const struct pool_image *image)
{
	const struct pool_image *other = image->manager->images;

	while (other != NULL &&
		(image->snapshot_id == 0 || other->snapshot_id != image->snapshot_id)) {
		other = other->next;
	}
	return other != NULL;
}

void pool_snapshots_look(struct manager *manager)
{
	for (struct pool_image *image = manager->images; image != NULL; image = image->next) {
		CLEANUP(free_p) char *name = xasprintf("snap-%" PRId64, image->snapshot_id);
		struct snapshot now = {0};
		struct error ignored = ERROR_INIT;

		/* Shorter ones are flattened by hand only. */
		if (image->snapshot_id != 0 && !image->superseded &&
			image->layer_count > SNAPSHOT_LAYERS_GOOD &&
			snapshot_find(manager->store, name, &now, &ignored) == 0) {
			image->superseded = now.generation != image->generation;
			snapshot_done(&now);
		}
	}
}

void pool_image_put(struct pool_image *image)
{
	struct error err = ERROR_INIT;

	if (image == NULL || --image->users > 0) {
		return;
	}
	for (struct pool_image **at = &image->manager->images; *at != NULL; at = &(*at)->next) {
		if (*at == image) {
			*at = image->next;
			break;
		}
	}
	if (is_shared(image)) {
		pool_image_free(image);
		return;
	}
	/* An image that is gone already has no lease either. */
	if (!image->manager->closing && unlease(image, &err) < 0 && err.kind != ERROR_NOT_FOUND) {
		log_failure("image.unlease_failed", &err, "image", image->id, "snapshot",
			image->snapshot_id);
	}
	upkeep_want(image->manager);
	pool_image_free(image);
}

int pool_images_lease(struct manager *manager, struct error *err)
{
	CLEANUP(free_p) int64_t *images = NULL;
	CLEANUP(free_p) int64_t *snapshots = NULL;
	size_t image_count = 0, image_room = 0, snapshot_count = 0, snapshot_room = 0;
	int status;

	for (struct pool_image *image = manager->images; image != NULL; image = image->next) {
		if (image->snapshot_id != 0) {
			*array_add(&snapshots, &snapshot_count, &snapshot_room) =
				image->snapshot_id;
		} else {
			*array_add(&images, &image_count, &image_room) = image->id;
		}
	}
	status = image_leases_keep(manager->store, LEASE_HOLDER, images, image_count, err);
	return status < 0 ? status
			  : snapshot_leases_keep(
				    manager->store, LEASE_HOLDER, snapshots, snapshot_count, err);
}
