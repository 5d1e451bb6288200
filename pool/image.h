/* An image or a snapshot as long as sandboxes stand on it or it is a head: read once from the
 * catalog, leased so that nobody removes it, shared by count. A snapshot's manifest is that of the
 * image it descends from, but for the commits that its workspaces were brought to. */
#ifndef HOB_POOL_IMAGE_H
#define HOB_POOL_IMAGE_H

#include "base/error.h"
#include "snapshots/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct manager;

/* A workspace of an image, as its manifest has it. */
struct image_source {
	char *path, *ref; /* ref: refs/heads/… or refs/tags/…; "": a bare commit */
	char commit[COMMIT_TEXT_SIZE];
	bool torn; /* of a snapshot: perhaps at neither this one nor another */
};

struct pool_image {
	struct manager *manager;
	struct pool_image *next;
	size_t users;
	int64_t id; /* of the image; of a snapshot's too, 0: imported without one */
	int64_t snapshot_id; /* 0: the image itself */
	char environment[65];
	char commit[COMMIT_TEXT_SIZE];
	int64_t created_ms;
	struct layer *layers;
	size_t layer_count;
	int64_t generation; /* of a snapshot's list of layers */
	bool superseded; /* flattened since: whoever comes next gets another one, of the new list */
	/* Of the manifest. */
	char **env;
	char *user;
	char *cwd;
	struct image_source *sources;
	size_t source_count;
	/* Sandboxes under way and ready on it, how many of either are reserved by a hint, and
	 * claims that wait for one that is not. */
	size_t creating, ready, creating_hinted, ready_hinted, waiting;
};

/* By "img-3", "3", or an environment's name (its head). ERROR_NOT_FOUND. Counted: pool_image_put.
 */
MUSTCHECK int pool_image_find(struct manager *manager, const char *name,
	struct pool_image **ret_image, struct error *err);
/* The same for a snapshot, by "snap-4", "4" or a tag. */
MUSTCHECK int pool_snapshot_find(struct manager *manager, const char *name,
	struct pool_image **ret_image, struct error *err);
struct pool_image *pool_image_ref(struct pool_image *image);
void pool_image_put(struct pool_image *image); /* NULL is fine */
/* Or the same snapshot, by the list from before it was flattened. */
bool pool_image_is_same(const struct pool_image *a, const struct pool_image *b);
/* A snapshot that was taken while a workspace was on its way from one commit to another. */
bool pool_image_is_torn(const struct pool_image *image);
/* Finds the snapshots whose lists of layers have become shorter since they were read. */
void pool_snapshots_look(struct manager *manager);
/* At start: exactly the images and snapshots in use stay leased. */
MUSTCHECK int pool_images_lease(struct manager *manager, struct error *err);

/* The sources of a manifest; none when it has none. */
void manifest_sources(const char *text, struct image_source **ret_sources, size_t *ret_count);
/* What a manifest says, into env, user and cwd. ERROR_CORRUPT. */
MUSTCHECK int manifest_parse(
	const char *text, char ***ret_env, char **ret_user, char **ret_cwd, struct error *err);

#endif
