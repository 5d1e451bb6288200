/* What the verbs share: the options of all of them, the connection to hobd, and short ids. */
#ifndef HOB_POOL_CLI_CLI_H
#define HOB_POOL_CLI_CLI_H

#include "base/json.h"
#include "pool/cli/verb.h"

struct http;

struct cli {
	const char *socket_option; /* --socket */
	const char *config_option; /* --config */
	bool json;
	bool help;
	bool version;
	const struct verb *const *verbs; /* all, NULL-terminated */
	char *socket; /* known after cli_socket */
	struct http *http; /* known after cli_http */
};

/* Runs the verb that the arguments name; the exit code of the program. */
int cli_main(int argc, char **argv, const struct verb *const *verbs);

/* --socket, else $HOB_SOCKET, else what hob.yaml says. Owned by the cli. */
MUSTCHECK int cli_socket(struct cli *cli, const char **ret_path, struct error *err);
MUSTCHECK int cli_http(struct cli *cli, struct http **ret_http, struct error *err);
/* One request with a JSON reply (NULL: not wanted), which the caller owns. body may be NULL. */
MUSTCHECK int cli_call(struct cli *cli, const char *method, const json_t *body, json_t **ret_reply,
	struct error *err, const char *path_format, ...) PRINTF_LIKE(6, 7);

/* A full id from an id or the start of one, with or without "sb-". The caller frees it. */
MUSTCHECK int cli_sandbox_id(struct cli *cli, const char *text, char **ret_id, struct error *err);
/* A text as one segment of a path or value of a query. The caller frees it. */
char *cli_escape(const char *text);
/* The same for a path whose slashes stay. */
char *cli_escape_path(const char *path);

/* {"K": "V"} from K=V words. `inherit`: a bare K takes the value that it has here. */
MUSTCHECK int cli_pairs(char *const *list, const char *option, bool inherit, json_t **ret_object,
	struct error *err);

/* Calls `one` with each word, whether or not the one before failed: 0, or the last failure. Those
 * before it are printed here, that one by whoever called. */
MUSTCHECK int cli_each(struct call *call, char *const *words,
	int (*one)(struct call *call, const char *word, struct error *err), struct error *err);

/* Replaces this process by the sibling program; returns only on failure. Its arguments: `words`
 * (NULL-terminated, or NULL), --config and --json if they were given, then `args`. */
MUSTCHECK int cli_become(struct cli *cli, const char *program, const char *const *words,
	char *const *args, struct error *err);

/* Runs a part of this program that parses for itself, with the options that stood before the verb;
 * its exit code. */
int cli_run_part(
	struct cli *cli, const char *name, int (*part)(int argc, char **argv), char **args);

#endif
