/* Stores for unit tests: a layer or an image in one call, and how many of what lies on disk. */
#ifndef HOB_TESTS_LIB_STORE_KIT_H
#define HOB_TESTS_LIB_STORE_KIT_H

#include "snapshots/store.h"

#include <stddef.h>
#include <stdint.h>

/* folder/store, made when missing. The caller closes it. */
struct store *store_kit_open(const char *folder);
/* cmocka fixtures: *state becomes a new store in a temporary folder, which goes with it. */
int setup_store(void **state);
int teardown_store(void **state);
/* Writes staging/<name>/tree/<file> with `text`. */
void store_kit_write_tree(struct staging *staging, const char *file, const char *text);
/* A sealed layer that holds one file of `bytes` bytes. */
struct layer store_kit_seal(struct store *store, const char *step_key, size_t bytes);
/* Commits an image of these layers and returns its id. */
int64_t store_kit_commit(
	struct store *store, const char *environment, const int64_t *layers, size_t count);
/* An image of one new layer of its own. */
int64_t store_kit_image(struct store *store, const char *environment);
/* How many entries the store's folder has. */
size_t store_kit_count(const struct store *store, const char *room);
/* What heads/<environment> says, "" if it is not there. */
void store_kit_head(const struct store *store, const char *environment, char text[32]);

#endif
