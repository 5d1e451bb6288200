/* Words of the command line into members of the request; hobd checks what they mean. */
#include "pool/cli/exec_request.h"

#include "base/memory.h"
#include "pool/cli/cli.h"

int exec_request_new(const struct exec_options *options, char *const *argv, json_t **ret_request,
	struct error *err)
{
	CLEANUP(json_decref_p) json_t *request = json_object();
	json_t *list = json_array();
	json_t *env = NULL;
	int status;

	json_object_set_new(request, "argv", list);
	for (; *argv != NULL; argv++) {
		if (json_array_append_new(list, json_string(*argv)) != 0) {
			return error_set(err, ERROR_USAGE, "the command is not UTF-8: %s", *argv);
		}
	}
	status = cli_pairs(options->env, "env", true, &env, err);
	if (status < 0) {
		return status;
	}
	json_object_set_new(request, "env", env);
	if (options->cwd != NULL) {
		json_object_set_new(request, "cwd", json_string(options->cwd));
	}
	if (options->user != NULL) {
		json_object_set_new(request, "user", json_string(options->user));
	}
	if (options->timeout_ms > 0) {
		json_object_set_new(request, "timeout_ms", json_integer(options->timeout_ms));
	}
	*ret_request = steal_ptr(request);
	return 0;
}
