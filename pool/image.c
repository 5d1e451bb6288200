/* Images in use. One in the list is counted at least once and leased in the catalog. */
#include "pool/image.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/manager.h"

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

static void pool_image_free(struct pool_image *image)
{
	free(image->layers);
	strv_free(image->env);
	free(image->user);
	free(image->cwd);
	free(image);
}
DEFINE_CLEANUP(pool_image_free_p, struct pool_image, pool_image_free)

static struct pool_image *find_loaded(const struct manager *manager, int64_t id)
{
	for (struct pool_image *image = manager->images; image != NULL; image = image->next) {
		if (image->id == id) {
			return image;
		}
	}
	return NULL;
}

static int load(struct manager *manager, const struct image *about, struct pool_image **ret_image,
	struct error *err)
{
	CLEANUP(pool_image_free_p) struct pool_image *image = xcalloc(1, sizeof(*image));
	int status;

	image->manager = manager;
	image->id = about->id;
	image->created_ms = about->created_ms;
	snprintf(image->environment, sizeof(image->environment), "%s", about->environment);
	snprintf(image->commit, sizeof(image->commit), "%s", about->commit);
	image->layers = xcalloc(about->layer_count, sizeof(*image->layers));
	memcpy(image->layers, about->layers, about->layer_count * sizeof(*image->layers));
	image->layer_count = about->layer_count;
	if ((status = manifest_parse(about->manifest != NULL ? about->manifest : "{}", &image->env,
		     &image->user, &image->cwd, err)) < 0 ||
		(status = image_lease(manager->store, image->id, LEASE_HOLDER, err)) < 0) {
		return error_wrap(err, "image img-%" PRId64, about->id);
	}
	image->next = manager->images;
	manager->images = image;
	*ret_image = steal_ptr(image);
	return 0;
}

/* "img-3" and "3" are looked up among those loaded first: no catalog for the common claim. */
static struct pool_image *find_loaded_name(const struct manager *manager, const char *name)
{
	const char *digits = str_starts(name, "img-") ? name + 4 : name;
	char *end = NULL;
	long long id = strtoll(digits, &end, 10);

	return *digits >= '1' && *digits <= '9' && *end == '\0' ? find_loaded(manager, id) : NULL;
}

int pool_image_find(
	struct manager *manager, const char *name, struct pool_image **ret_image, struct error *err)
{
	struct pool_image *image = find_loaded_name(manager, name);
	struct image about = {0};
	int status;

	if (image == NULL) {
		if ((status = image_find(manager->store, name, &about, err)) < 0) {
			return status;
		}
		image = find_loaded(manager, about.id);
		if (image == NULL && (status = load(manager, &about, &image, err)) < 0) {
			image_done(&about);
			return status;
		}
		image_done(&about);
	}
	*ret_image = pool_image_ref(image);
	return 0;
}

struct pool_image *pool_image_ref(struct pool_image *image)
{
	image->users++;
	return image;
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
	/* An image that is gone already has no lease either. */
	if (!image->manager->closing &&
		image_unlease(image->manager->store, image->id, LEASE_HOLDER, &err) < 0 &&
		err.kind != ERROR_NOT_FOUND) {
		log_failure("image.unlease_failed", &err, "image", image->id);
	}
	pool_image_free(image);
}

int pool_images_lease(struct manager *manager, struct error *err)
{
	CLEANUP(free_p) int64_t *ids = NULL;
	size_t count = 0, room = 0;

	for (struct pool_image *image = manager->images; image != NULL; image = image->next) {
		*array_add(&ids, &count, &room) = image->id;
	}
	return image_leases_keep(manager->store, LEASE_HOLDER, ids, count, err);
}
