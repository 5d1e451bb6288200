/* Sources of a build are fetched and resolved first, all of them, because the commits decide
 * whether there is anything to do. */
#include "builder/job_private.h"

#include "builder/credentials/credential.h"
#include "builder/local.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <stdio.h>

#define STALL_MS 60000 /* a server that sends nothing for a minute has gone */

struct git_source job_git_source(const struct job *job, size_t index, char **ret_path)
{
	const struct environment_source *from = &job->environment->sources[index];
	const struct local_file *file;
	int64_t limit = job->environment->build_timeout_ms;
	struct git_source source = {.url = from->url,
		.ref = from->ref,
		.mirrors = job->mirrors,
		.stall_ms = limit > 0 && limit < STALL_MS ? limit : STALL_MS};

	*ret_path = git_url_path(from->url);
	if (*ret_path != NULL) {
		file = local_find(job->files, *ret_path);
		source.local = file != NULL && file->mapped != NULL ? file->mapped : *ret_path;
	}
	return source;
}

/* A credential lives for this one fetch. */
int job_fetch_source(struct job *job, size_t index, struct git_source *source, bool trusted,
	struct git_found *found, struct error *err)
{
	const struct environment_auth *auth = &job->environment->sources[index].auth;
	struct credential credential = {0};
	int status = trusted ? credential_find(job->machine, auth, &credential, err) : 0;

	if (status < 0) {
		return status;
	}
	source->credential = credential.kind != CREDENTIAL_NONE ? &credential : NULL;
	status = git_fetch(job->machine, source, found, err);
	source->credential = NULL;
	credential_done(&credential);
	return status;
}

static int fetch_one(struct job *job, size_t index, struct error *err)
{
	struct git_found *found = &job->sources[index].found;
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *url = git_url_public(job->environment->sources[index].url);
	struct git_source source = job_git_source(job, index, &path);
	int status;

	report_stage(job->machine->report, "fetch", "%s", url);
	status = job_fetch_source(job, index, &source, true, found, err);
	if (status < 0) {
		return error_wrap(err, "source %s", url);
	}
	report_stage_end(job->machine->report, "%.12s%s%s%s", found->commit,
		found->ref[0] != '\0' ? " " : "", found->ref, found->fetched ? "" : ", as before");
	return 0;
}

int job_fetch(struct job *job, struct error *err)
{
	size_t count = job->environment->source_count;

	job->sources = xcalloc(count, sizeof(*job->sources));
	for (size_t i = 0; i < count; i++) {
		if (fetch_one(job, i, err) < 0) {
			return -(int)err->kind;
		}
	}
	if (count > 0) {
		snprintf(job->build.commit, sizeof(job->build.commit), "%s",
			job->sources[0].found.commit);
	}
	return job_fault("build.fetched", err);
}

int job_refetch(struct job *job, size_t index, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, index, &path);
	int status = git_mirror_drop(&source, err);

	if (status == 0) {
		status = job_modules_refetch(job, index, err);
	}
	return status < 0 ? status
			  : job_fetch_source(
				    job, index, &source, true, &job->sources[index].found, err);
}
