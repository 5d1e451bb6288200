/* Filling in a command's surroundings. */
#include "pool/api/exec_start.h"

#include "base/memory.h"
#include "pool/api/body.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/run.h"

int exec_start(struct entry *entry, const struct exec_body *body, bool capture, bool stdin_open,
	struct run_sink *sink, struct run **ret_run, struct error *err)
{
	const struct pool_image *image = entry->image;
	char *const *const lists[] = {
		image != NULL ? image->env : NULL, entry->record.env, body->env};
	CLEANUP(strv_free_p) char **env = env_merge(lists, ARRAY_SIZE(lists));
	struct run_spec spec = {.argv = body->argv,
		.env = env,
		.cwd = body->cwd != NULL ? body->cwd
		       : image != NULL   ? image->cwd
					 : NULL,
		.user = body->user != NULL ? body->user
			: image != NULL    ? image->user
					   : NULL,
		.tty = body->tty,
		.rows = (uint16_t)body->rows,
		.cols = (uint16_t)body->cols,
		.timeout_ms = body->timeout_ms,
		.capture = capture,
		.detach = body->detach,
		.stdin_open = stdin_open,
		.stdin_data = body->stdin_text,
		.stdin_length = body->stdin_text != NULL ? strlen(body->stdin_text) : 0};

	return run_start(entry, &spec, sink, ret_run, err);
}
