/* Taking a sandbox, for `hob create`, `hob restore` and `hob shell`. */
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
	bool quiet; /* claim_print only prints the id */
};

extern const struct claim_options claim_defaults;

/* Option rows of verbs whose values are a struct claim_options. */
/* clang-format off */
#define CLAIM_OPTION_ROWS \
	{"env", 'e', OPTION_LIST, "K=V", offsetof(struct claim_options, env), \
		"set a variable for all its commands; K alone passes on the value it has here"}, \
	{"timeout", '\0', OPTION_DURATION, "DUR", offsetof(struct claim_options, timeout_ms), \
		"end it after this long, 0 never (default: the environment's max_age)"}, \
	{"idle", '\0', OPTION_DURATION, "DUR", offsetof(struct claim_options, idle_ms), \
		"end it when unused this long, 0 never (default: the environment's idle)"}, \
	{"metadata", 'm', OPTION_LIST, "K=V", offsetof(struct claim_options, metadata), \
		"remember this with it"}, \
	{"quiet", 'q', OPTION_FLAG, NULL, offsetof(struct claim_options, quiet), \
		"print only the id"}
/* clang-format on */

/* environment NULL: options->image or ->snapshot says it all. The caller owns the reply. */
MUSTCHECK int claim_sandbox(struct cli *cli, const char *environment,
	const struct claim_options *options, json_t **ret_reply, struct error *err);
/* Does it, and prints the id and claim_explain, or the reply with --json. */
MUSTCHECK int claim_and_print(struct cli *cli, const char *environment,
	const struct claim_options *options, struct error *err);
/* "warm in 84 µs: webapp, img-3 at 1a2b3c4d5e6f", on standard error. */
void claim_explain(const json_t *reply);

#endif
