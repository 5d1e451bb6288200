/* The API's objects as JSON. Everything returned is the caller's. */
#ifndef HOB_POOL_API_OBJECT_JSON_H
#define HOB_POOL_API_OBJECT_JSON_H

#include "base/json.h"
#include "snapshots/store.h"

#include <stdint.h>

struct buffer;
struct claim_result;
struct entry;
struct error;
struct pool;
struct run;
struct snapshot_result;

/* "img-3", or null for 0. */
json_t *json_numbered(const char *prefix, int64_t id);
/* RFC 3339, or null for 0. */
json_t *json_time(int64_t real_ms);
/* Sets `key` to bytes of output: text, or base64 with `key`_encoding beside it. */
void json_set_bytes(
	json_t *object, const char *key, const char *encoding_key, const void *data, size_t length);

json_t *entry_to_json(const struct entry *entry);
/* The reply to a claim: the sandbox, and how it was come by. handle_sandboxes.c */
json_t *claim_to_json(const struct claim_result *result);
/* The reply to a snapshot that was taken. handle_snapshots.c */
json_t *taken_to_json(const struct snapshot_result *result);
json_t *layers_to_json(const struct layer *layers, size_t count);
json_t *run_to_json(const struct run *run);
json_t *runs_to_json(const struct entry *entry);
/* handle_services.c */
json_t *services_to_json(const struct entry *entry);
/* How an ended command ended; `output` with what is kept of its output. */
json_t *run_result_to_json(const struct run *run, bool output);
/* Why it did not start or was lost, as an error of the API, with `step` and, where the program is
 * what is wrong, the `exit_code` of a shell. */
json_t *run_error_to_json(const struct run *run);
json_t *pool_to_json(const struct pool *pool);
json_t *environment_to_json(const struct pool *pool);
json_t *build_to_json(const struct build *build);
json_t *image_to_json(struct store *store, const struct image *image, struct error *err);

struct manager;
/* What is free for the store, and whether that is too little. */
json_t *space_to_json(const struct manager *manager);

#endif
