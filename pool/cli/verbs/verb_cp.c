/* hob cp: which side is the sandbox, what the target is to be called, and how far the copy is. */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/copy.h"
#include "pool/cli/http.h"
#include "pool/cli/human.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

/* A copy shorter than this shows nothing. */
#define PROGRESS_AFTER_MS 1000
#define PROGRESS_EVERY_MS 200

void copy_progress(struct copy *copy, size_t bytes)
{
	int64_t now = clock_mono_ms();
	char done[HUMAN_SIZE], rate[HUMAN_SIZE];

	copy->bytes += bytes;
	if (now - copy->started_ms < PROGRESS_AFTER_MS ||
		now - copy->shown_ms < PROGRESS_EVERY_MS || !isatty(STDERR_FILENO)) {
		return;
	}
	copy->shown_ms = now;
	human_bytes(done, (int64_t)copy->bytes);
	human_bytes(rate, (int64_t)copy->bytes * 1000 / (now - copy->started_ms));
	fprintf(stderr, "\r\033[K%s, %" PRIu64 " files, %s/s", done, copy->files, rate);
}

void copy_progress_end(struct copy *copy)
{
	if (copy->shown_ms > 0) {
		fputs("\r\033[K", stderr);
		copy->shown_ms = 0;
	}
}

char *copy_url(const struct copy *copy, const char *path)
{
	CLEANUP(free_p) char *escaped = cli_escape_path(path + strspn(path, "/"));

	return xasprintf("/v1/sandboxes/%s/files/%s", copy->id, escaped);
}

char *copy_join(const char *folder, const char *name)
{
	return xasprintf("%s%s%s", folder,
		folder[0] != '\0' && folder[strlen(folder) - 1] == '/' ? "" : "/", name);
}

static int on_first_data(void *context, const void *data, size_t length, struct error *err)
{
	bool *seen = context;

	(void)data;
	(void)length;
	*seen = true;
	return error_set(err, ERROR_CANCELLED, "its first bytes say that it is a file");
}

int copy_remote_kind(
	struct copy *copy, const char *path, enum remote_kind *ret_kind, struct error *err)
{
	CLEANUP(free_p) char *url = copy_url(copy, path);
	bool seen = false;
	const struct http_request request = {
		.method = "GET", .path = url, .data = on_first_data, .context = &seen};
	struct http_reply reply = {0};
	struct http *http = NULL;
	int status = cli_http(copy->cli, &http, err);

	if (status < 0) {
		return status;
	}
	status = http_run(http, &request, &reply, err);
	if (status < 0 && !seen && status != -(int)ERROR_NOT_FOUND) {
		return status;
	}
	*ret_kind = seen                              ? REMOTE_FILE
		    : status == -(int)ERROR_NOT_FOUND ? REMOTE_NONE
		    : reply.json != NULL              ? REMOTE_FOLDER
						      : REMOTE_FILE;
	json_decref(reply.json);
	return 0;
}

/* The path of "ID:path", NULL when there is none: a slash before the colon makes it a path here. */
static const char *remote_part(const char *word)
{
	size_t length = strcspn(word, ":/");

	return word[length] == ':' && length > 0 ? word + length + 1 : NULL;
}

/* Finds the sandbox of "ID:path" and makes the path absolute: a relative one starts where commands
 * start. */
static int remote_open(struct copy *copy, const char *word, char **ret_path, struct error *err)
{
	const char *path = remote_part(word);
	CLEANUP(free_p) char *start = xstrndup(word, (size_t)(path - word) - 1);
	CLEANUP(json_decref_p) json_t *sandbox = NULL;
	const char *cwd = NULL;
	int status = cli_sandbox_id(copy->cli, start, &copy->id, err);

	if (status < 0) {
		return status;
	}
	if (path[0] == '/') {
		*ret_path = xstrdup(path);
		return 0;
	}
	status = cli_call(copy->cli, "GET", NULL, &sandbox, err, "/v1/sandboxes/%s", copy->id);
	if (status >= 0) {
		cwd = json_string_value(json_object_get(sandbox, "cwd"));
		*ret_path = path[0] != '\0' ? copy_join(cwd != NULL ? cwd : "/", path)
					    : xstrdup(cwd != NULL ? cwd : "/");
	}
	return status;
}

/* What cp appends to a folder: the last name; nothing for "." and the like, whose content is meant.
 */
static char *last_name(const char *path)
{
	size_t end = strlen(path), begin;

	while (end > 0 && path[end - 1] == '/') {
		end--;
	}
	begin = end;
	while (begin > 0 && path[begin - 1] != '/') {
		begin--;
	}
	if (end == begin || (end - begin <= 2 && path[begin] == '.' && path[end - 1] == '.')) {
		return NULL;
	}
	return xstrndup(path + begin, end - begin);
}

static bool ends_with_slash(const char *path)
{
	size_t length = strlen(path);

	return length > 0 && path[length - 1] == '/';
}

/* `target`, or its child of the source's name when it is a folder. The caller frees it. */
static char *final_target(const char *source, const char *target, bool is_folder)
{
	CLEANUP(free_p)
	char *name = is_folder || ends_with_slash(target) ? last_name(source) : NULL;

	return name != NULL ? copy_join(target, name) : xstrdup(target);
}

static int cp_in(struct copy *copy, const char *source, const char *target, struct error *err)
{
	CLEANUP(free_p) char *final = NULL;
	enum remote_kind kind = REMOTE_NONE;
	int status = copy_remote_kind(copy, target, &kind, err);

	if (status < 0) {
		return status;
	}
	if (streq(source, "-")) {
		if (kind == REMOTE_FOLDER || ends_with_slash(target)) {
			return error_set(err, ERROR_INVALID, "%s is a folder", target);
		}
		return copy_in_stream(copy, target, err);
	}
	final = final_target(source, target, kind == REMOTE_FOLDER);
	return copy_in(copy, source, final, kind == REMOTE_FOLDER, err);
}

static int cp_out(struct copy *copy, const char *source, const char *target, struct error *err)
{
	CLEANUP(free_p) char *final = NULL;
	struct stat stat_;
	bool is_folder;

	if (streq(target, "-")) {
		return copy_out_stream(copy, source, err);
	}
	is_folder = stat(target, &stat_) == 0 && S_ISDIR(stat_.st_mode);
	if (!is_folder && ends_with_slash(target)) {
		return error_set(err, ERROR_NOT_FOUND, "there is no folder %s", target);
	}
	final = final_target(source, target, is_folder);
	return copy_out(copy, source, final, err);
}

static int cp_run(struct call *call, struct error *err)
{
	const char *source = call->operands[0], *target = call->operands[1];
	bool out = remote_part(source) != NULL;
	struct copy copy = {.cli = call->cli, .started_ms = clock_mono_ms()};
	CLEANUP(free_p) char *remote = NULL;
	int status;

	if (out == (remote_part(target) != NULL)) {
		error_set(err, ERROR_USAGE,
			out ? "both sides are in sandboxes" : "neither side is in a sandbox");
		return error_hint(
			err, "write the sandbox's side as ID:PATH, the other as a path here");
	}
	status = remote_open(&copy, out ? source : target, &remote, err);
	if (status >= 0) {
		status = out ? cp_out(&copy, remote, target, err)
			     : cp_in(&copy, source, remote, err);
	}
	copy_progress_end(&copy);
	if (status >= 0 && call->cli->json && !streq(target, "-")) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:I, s:I}", "files", (json_int_t)copy.files, "bytes",
			(json_int_t)copy.bytes);

		human_print_json(json);
	}
	free(copy.id);
	return status;
}

const struct verb verb_cp = {
	.name = "cp",
	.group = "Sandboxes",
	.operands = "SRC DST",
	.summary = "Copy files and folders into or out of a sandbox",
	.details =
		"One side is ID:PATH; a PATH without a leading slash starts where commands start.\n"
		"Into an existing folder a copy keeps its name. Modes and symbolic links are "
		"kept;\n"
		"coming out, set-uid bits are dropped. \"-\" is standard input or output.\n\n"
		"  hob cp ./patch.diff sb-0123:\n"
		"  hob cp sb-0123:/workspace/dist ./\n"
		"  tar c src | hob cp - sb-0123:/tmp/src.tar",
	.operands_min = 2,
	.operands_max = 2,
	.run = cp_run,
};
