/* Taking a sandbox, for `hob create` and `hob shell`. */
#ifndef HOB_POOL_CLI_CLAIM_H
#define HOB_POOL_CLI_CLAIM_H

#include "base/json.h"

struct cli;

struct claim_options {
	const char *image;
	const char *snapshot;
	char **env;
	char **metadata;
	int64_t timeout_ms; /* -1: not given */
	int64_t idle_ms; /* -1: not given */
	const char *key;
	int64_t max_age_ms; /* -1: not given */
	const char *min_commit;
};

/* environment NULL: options->image or ->snapshot says it all. The caller owns the reply. */
MUSTCHECK int claim_sandbox(struct cli *cli, const char *environment,
	const struct claim_options *options, json_t **ret_reply, struct error *err);
/* "warm in 84 µs: webapp, img-3 at 1a2b3c4d5e6f", on standard error. */
void claim_explain(const json_t *reply);

#endif
