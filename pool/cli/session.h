/* One command in a sandbox with this process's standard streams, terminal and signals. */
#ifndef HOB_POOL_CLI_SESSION_H
#define HOB_POOL_CLI_SESSION_H

#include "base/buffer.h"
#include "base/json.h"

struct session_spec {
	const char *socket; /* of hobd */
	const char *sandbox; /* full id */
	json_t *request; /* as for POST …/exec; the terminal's members are added here */
	bool tty;
	bool forward_stdin;
	bool collect; /* keep the output instead of writing it */
	int *ret_refused; /* the exit code of a shell for a command that could not be run, in which
			     session_run fails; untouched otherwise */
};

struct session_result {
	int exit_code;
	json_t *exit; /* what hobd said about the end; NULL when this side gave up */
	struct buffer out, err;
	bool out_cut, err_cut; /* more came than is kept */
};

/* Runs it to its end. While it runs, signals that would end this process go to the command; the
 * third gives up, and hobd then kills the command. Release the result with session_result_done. */
MUSTCHECK int session_run(
	const struct session_spec *spec, struct session_result *ret_result, struct error *err);
void session_result_done(struct session_result *result);

#endif
