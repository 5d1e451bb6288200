/* The kept output of quiet execs, read like a file, once or as it grows. A reader that is too slow
 * for what comes loses the middle: the exec never waits for it. */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <string.h>

void log_request(uint32_t id, const char *body, size_t length)
{
	static const char path[] = "log";
	struct init_log log;
	struct exec *exec;
	struct file_job *job;

	if (length != sizeof(log)) {
		wire_refuse(id, EINVAL, "malformed request");
		return;
	}
	memcpy(&log, body, sizeof(log));
	exec = exec_find(log.exec);
	if (exec == NULL || !exec->quiet) {
		wire_refuse(id, ENOENT, "no command %u here that keeps a log", log.exec);
		return;
	}
	job = file_job_new(INIT_LOG, id, path, sizeof(path) - 1);
	if (job != NULL) {
		job->log = log;
		job->grant = INIT_WINDOW_DEFAULT;
	}
}

bool log_is_runnable(const struct file_job *job)
{
	const struct exec *exec = exec_find(job->log.exec);

	if (exec == NULL || (job->log.follow == 0 && job->position >= exec->kept.total)) {
		return true;
	}
	return job->grant > 0 && job->position < exec->kept.total;
}

void log_run(struct file_job *job)
{
	const struct exec *exec = exec_find(job->log.exec);
	size_t max = job->grant < PAYLOAD_MAX ? (size_t)job->grant : PAYLOAD_MAX;
	size_t length = exec != NULL ? kept_copy(&exec->kept, &job->position, scratch, max) : 0;

	scratch_used((ssize_t)length);
	if (length > 0) {
		job->bytes += length;
		job->grant -= length;
		wire_send(INIT_FILE_DATA, job->id, NULL, 0, scratch, length);
	} else if (exec == NULL || (job->log.follow == 0 && job->position >= exec->kept.total)) {
		file_done(job, job->bytes);
	}
}
