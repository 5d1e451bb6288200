/* Fetching for hobd, and streams of changes for its sandboxes. */
#include "builder/source.h"

#include "base/clock.h"
#include "base/glob.h"
#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "builder/credentials/credential.h"
#include "builder/git/git_ancestry.h"
#include "builder/git/git_way.h"
#include "builder/local.h"
#include "builder/machine.h"
#include "configs/config.h"
#include "configs/environment.h"

#include <fcntl.h>
#include <stdio.h>

/* Somebody types meanwhile: a server that is silent for so long is not waited for. */
#define STALL_MS 20000

static struct git_source source_of(const struct environment_source *from,
	const struct local_files *files, const char *mirrors, char **ret_path)
{
	struct git_source source = {
		.url = from->url, .ref = from->ref, .mirrors = mirrors, .stall_ms = STALL_MS};
	const struct local_file *file;

	*ret_path = git_url_path(from->url);
	if (*ret_path != NULL) {
		file = files != NULL ? local_find(files, *ret_path) : NULL;
		source.local = file != NULL && file->mapped != NULL ? file->mapped : *ret_path;
	}
	return source;
}

static int fetch_one(struct machine *machine, const struct environment_source *from,
	const struct local_files *files, const char *mirrors, json_t *list, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *url = git_url_public(from->url);
	struct git_source source = source_of(from, files, mirrors, &path);
	struct git_found found = {.commit = ""};
	struct credential credential = {0};
	int status = credential_find(machine, &from->auth, &credential, err);

	if (status == 0) {
		source.credential = credential.kind != CREDENTIAL_NONE ? &credential : NULL;
		status = git_fetch(machine, &source, &found, err);
		source.credential = NULL;
		credential_done(&credential);
	}
	if (status < 0) {
		return error_wrap(err, "source %s", url);
	}
	json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "url", url, "ref", found.ref,
					    "commit", found.commit, "path", from->path));
	return 0;
}

int source_fetch(struct machine *machine, const struct environment *environment,
	const struct local_files *files, struct error *err)
{
	const char *store = machine->config->store;
	CLEANUP(free_p) char *mirrors = xasprintf("%s/mirrors", store);
	CLEANUP(free_p) char *path = xasprintf("%s/%s.json", mirrors, environment->name);
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(free_p) char *text = NULL;
	json_t *list = json_array();
	struct error failure = ERROR_INIT;
	int64_t started_ms = clock_real_ms();
	int status = 0;

	for (size_t i = 0; status == 0 && i < environment->source_count; i++) {
		status = fetch_one(
			machine, &environment->sources[i], files, mirrors, list, &failure);
	}
	json = status < 0 ? json_pack("{s:o}", "error", json_from_error(&failure))
			  : json_pack("{s:O}", "sources", list);
	json_decref(list);
	json_object_set_new(json, "started_ms", json_integer((json_int_t)started_ms));
	text = json_text(json);
	return io_write_file(AT_FDCWD, path, text, strlen(text), 0600, err);
}

/* ---- what depends on what changes ---- */

static json_t *stale_to_json(const struct environment *environment, uint64_t marks)
{
	json_t *list = json_array();

	for (size_t i = 0; i < environment->step_count && i < 64; i++) {
		if ((marks >> i & 1) != 0) {
			json_array_append_new(list, json_string(environment->steps[i].name));
		}
	}
	return list;
}

/* Which steps say that they read the path, as bits. */
static uint64_t mark_steps(void *context, const char *path)
{
	const struct environment *environment = context;
	uint64_t marks = 0;

	for (size_t i = 0; i < environment->step_count && i < 64; i++) {
		if (environment->steps[i].inputs != NULL &&
			glob_list_match(environment->steps[i].inputs, path)) {
			marks |= UINT64_C(1) << i;
		}
	}
	return marks;
}

static void tell(json_t *json)
{
	CLEANUP(free_p) char *text = json_text(json);

	fprintf(stderr, "%s\n", text);
	json_decref(json);
}

int source_sync(struct machine *machine, const struct environment *environment,
	const struct source_sync *sync, struct error *err)
{
	CLEANUP(free_p) char *mirrors = xasprintf("%s/mirrors", machine->config->store);
	CLEANUP(free_p) char *path = NULL;
	struct git_way way = {.from = sync->from,
		.to = sync->to,
		.ref = sync->ref,
		.fd = STDOUT_FILENO,
		.mark = mark_steps,
		.context = (void *)(uintptr_t)environment};
	struct git_way_result result;
	struct git_source source;
	int status;

	if (sync->index >= environment->source_count) {
		status = error_set(err, ERROR_NOT_FOUND, "%s has no source %zu", environment->name,
			sync->index);
	} else {
		source = source_of(&environment->sources[sync->index], NULL, mirrors, &path);
		way.modules = !streq(environment->sources[sync->index].submodules, "false");
		status = git_way_write(machine, &source, &way, &result, err);
	}
	if (status < 0) {
		tell(json_pack("{s:o}", "error", json_from_error(err)));
		return 0;
	}
	tell(json_pack("{s:I, s:I, s:I, s:o}", "changes", (json_int_t)result.changes, "bytes",
		(json_int_t)result.bytes, "commit_s", (json_int_t)result.to_time, "stale",
		stale_to_json(environment, result.marks)));
	return 0;
}

/* ---- history ---- */

static json_t *ancestry_to_json(const struct git_ancestry *ancestry, char *const *commits)
{
	json_t *of = json_object();

	for (size_t i = 0; ancestry->known && i < GIT_ANCESTRY_MAX && commits[i] != NULL; i++) {
		enum git_descent descent = ancestry->of[i];

		json_object_set_new(of, commits[i],
			descent == GIT_COMMIT_UNKNOWN ? json_null()
						      : json_boolean(descent == GIT_DESCENDS));
	}
	return json_pack("{s:b, s:o, s:o}", "known", ancestry->known, "commit",
		ancestry->known ? json_str_or_null(ancestry->commit) : json_null(), "of", of);
}

int source_ancestry(struct machine *machine, const struct environment *environment,
	const char *wanted, char *const *commits, struct error *err)
{
	CLEANUP(free_p) char *mirrors = xasprintf("%s/mirrors", machine->config->store);
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(free_p) char *path = NULL;
	struct git_ancestry ancestry;
	struct git_source source;
	int status;

	if (environment->source_count == 0) {
		status = error_set(err, ERROR_NOT_FOUND, "%s has no source", environment->name);
	} else {
		source = source_of(&environment->sources[0], NULL, mirrors, &path);
		status = git_ask_ancestry(machine, &source, wanted, commits,
			strv_count((char **)(uintptr_t)commits), &ancestry, err);
	}
	json = status < 0 ? json_pack("{s:o}", "error", json_from_error(err))
			  : ancestry_to_json(&ancestry, commits);
	json_print(json);
	return 0;
}
