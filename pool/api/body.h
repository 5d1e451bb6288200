/*
 * JSON bodies to request structs, strictly: an unknown member, a wrong type or a value out of range
 * is ERROR_INVALID with a message that names it. Pure: what is asked for is decided elsewhere. Text
 * points into the json, which must live as long; lists are owned (…_done).
 */
#ifndef HOB_POOL_API_BODY_H
#define HOB_POOL_API_BODY_H

#include "base/error.h"
#include "base/json.h"
#include "snapshots/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

#define ENV_VARIABLES_MAX 1024
#define METADATA_MAX 64
#define METADATA_BYTES_MAX 16384
#define ARGUMENTS_MAX 4096
#define SECONDS_MAX INT64_C(315360000) /* ten years */
#define TERMINAL_SIDE_MAX 4096
#define COMMIT_DIGITS_MIN 7 /* fewer name too many commits */

struct claim_body {
	const char *environment; /* exactly one of the three */
	const char *image;
	const char *snapshot;
	char **env; /* NULL: none */
	json_t *metadata; /* borrowed; NULL: none */
	int64_t timeout_s; /* 0: none */
	int64_t idle_s; /* -1: not said */
	const char *key; /* of a hint; NULL: none */
	int64_t max_age_s; /* -1: any */
	const char *min_commit; /* 7 to 64 hex digits; NULL: any */
};

MUSTCHECK int claim_body_parse(const json_t *json, struct claim_body *ret_body, struct error *err);
void claim_body_done(struct claim_body *body);

struct warm_body {
	const char *environment; /* exactly one of the two */
	const char *snapshot;
	const char *key;
	int64_t ttl_s; /* 0: not said */
};
MUSTCHECK int warm_body_parse(const json_t *json, struct warm_body *ret_body, struct error *err);
/* A hint's key, of a body or a path. ERROR_INVALID. */
MUSTCHECK int key_check(const char *key, struct error *err);

struct exec_body {
	char **argv;
	char **env; /* NULL: none */
	const char *cwd; /* NULL: the image's */
	const char *user;
	const char *stdin_text; /* NULL: none */
	int64_t timeout_ms; /* 0: none */
	bool tty, detach;
	int64_t rows, cols;
};

MUSTCHECK int exec_body_parse(const json_t *json, struct exec_body *ret_body, struct error *err);
void exec_body_done(struct exec_body *body);

struct snapshot_body {
	const char *label; /* NULL: none */
	enum snapshot_reason reason; /* manual unless said: manual or session */
	const json_t *metadata; /* borrowed; NULL: none */
	int64_t max_pause_ms; /* 0: not said */
};
MUSTCHECK int snapshot_body_parse(
	const json_t *json, struct snapshot_body *ret_body, struct error *err);

#define FORK_CHILDREN_MAX 100
struct fork_body {
	int64_t count; /* 1 to FORK_CHILDREN_MAX */
	const char *label;
	const json_t *metadata; /* of the children; NULL: their parent's */
	int64_t max_pause_ms; /* 0: not said */
};
MUSTCHECK int fork_body_parse(const json_t *json, struct fork_body *ret_body, struct error *err);

/* An image to go back to; NULL: the one before. */
MUSTCHECK int rollback_body_parse(const json_t *json, const char **ret_image, struct error *err);
MUSTCHECK int timeout_body_parse(const json_t *json, int64_t *ret_seconds, struct error *err);

/* What a WebSocket client says in text frames. */
struct terminal_message {
	bool resize, stdin_end;
	int64_t rows, cols;
	int signal; /* 0: none */
};
MUSTCHECK int terminal_message_parse(
	const json_t *json, struct terminal_message *ret_message, struct error *err);

#endif
