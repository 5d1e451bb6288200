/* The request of an exec, as `hob exec` and `hob shell` make it. */
#ifndef HOB_POOL_CLI_EXEC_REQUEST_H
#define HOB_POOL_CLI_EXEC_REQUEST_H

#include "base/json.h"

struct exec_options {
	char **env; /* K=V, or K for the value that it has here */
	const char *cwd;
	const char *user;
	int64_t timeout_ms; /* 0: none */
};

/* `argv` is NULL-terminated. The caller owns the object. */
MUSTCHECK int exec_request_new(const struct exec_options *options, char *const *argv,
	json_t **ret_request, struct error *err);

#endif
