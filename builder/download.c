/*
 * libcurl in a child process writes downloads/<sha256>.part under a lock; the digest runs along.
 * Only a file with the right digest is renamed to its name. What broke off stays for the next
 * attempt.
 */
#include "builder/download.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"
#include "builder/child.h"
#include "gen/version.h"

#include <curl/curl.h>

#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define TRIES_MAX 5
#define PAUSE_FIRST_MS 250 /* doubled after each failure */
#define CONNECT_SECONDS 20L
#define SLOW_BYTES 1L /* a second, over SLOW_SECONDS: dead */
#define SLOW_SECONDS 30L
#define REDIRECTS_MAX 10L
#define COPY_BYTES (256 * 1024)

struct transfer {
	const struct download *task;
	struct child *child;
	int fd; /* the part */
	uint64_t have; /* bytes of it that are in `digest` */
	uint64_t total; /* 0: unknown */
	struct digest *digest;
	int write_sys; /* errno of a failed write */
	bool over; /* it is longer than it may be */
	CURL *curl;
	struct curl_slist *headers;
	char reason[CURL_ERROR_SIZE];
};

static bool add_bytes(struct transfer *transfer, const void *data, size_t length)
{
	struct error err = ERROR_INIT;
	uint64_t most = transfer->task->bytes_max;

	if (most > 0 && (transfer->have > most || length > most - transfer->have)) {
		transfer->over = true;
		return false;
	}
	if (io_write_full(transfer->fd, data, length, &err) < 0) {
		transfer->write_sys = err.sys;
		return false;
	}
	digest_add(transfer->digest, data, length);
	transfer->have += length;
	child_progress(transfer->child, "bytes", transfer->have, transfer->total, transfer->have);
	return true;
}

static size_t on_data(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	curl_off_t length = -1;

	if (transfer->total == 0 &&
		curl_easy_getinfo(transfer->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length) ==
			CURLE_OK &&
		length > 0) {
		transfer->total = transfer->have + (uint64_t)length;
	}
	return add_bytes(context, data, size * count) ? size * count : 0;
}

/* A server's words: one line, kept as it came. */
static size_t on_header(char *data, size_t size, size_t count, void *context)
{
	static const char name[] = "www-authenticate:";
	const struct download *task = ((struct transfer *)context)->task;
	size_t length = size * count, skip = sizeof(name) - 1;

	if (task->challenge != NULL && length > skip && strncasecmp(data, name, skip) == 0 &&
		length - skip < task->challenge_size) {
		memcpy(task->challenge, data + skip, length - skip);
		task->challenge[length - skip] = '\0';
		task->challenge[strcspn(task->challenge, "\r\n")] = '\0';
	}
	return length;
}

/* Forgets what is there. */
static int start_over(struct transfer *transfer, struct error *err)
{
	digest_free(transfer->digest);
	transfer->digest = digest_new();
	transfer->have = 0;
	if (ftruncate(transfer->fd, 0) < 0 || lseek(transfer->fd, 0, SEEK_SET) < 0) {
		return error_sys(err, errno, "empty the partial download");
	}
	return 0;
}

/* Digests what an earlier attempt left. */
static int take_up(struct transfer *transfer, struct error *err)
{
	CLEANUP(free_p) char *chunk = xmalloc(COPY_BYTES);
	ssize_t got;

	transfer->digest = digest_new();
	while ((got = read(transfer->fd, chunk, COPY_BYTES)) > 0) {
		digest_add(transfer->digest, chunk, (size_t)got);
		transfer->have += (uint64_t)got;
		child_progress(transfer->child, "bytes", 0, 0, transfer->have);
	}
	return got < 0 ? error_sys(err, errno, "read the partial download") : 0;
}

static void add_header(struct transfer *transfer, const char *name, const char *value)
{
	CLEANUP(free_p) char *line = xasprintf("%s: %s", name, value);
	struct curl_slist *more = curl_slist_append(transfer->headers, line);

	if (more == NULL) {
		abort(); /* as after any small allocation that fails */
	}
	transfer->headers = more;
}

/* libcurl keeps these from hosts that it is redirected to. */
static void set_headers(struct transfer *transfer)
{
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	if (transfer->task->authorization != NULL) {
		add_header(transfer, "Authorization", transfer->task->authorization);
	}
	if (transfer->task->accept != NULL) {
		add_header(transfer, "Accept", transfer->task->accept);
	}
	curl_easy_setopt(transfer->curl, CURLOPT_HTTPHEADER, transfer->headers);
	curl_easy_setopt(transfer->curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(transfer->curl, CURLOPT_HEADERDATA, transfer);
}

static void set_options(struct transfer *transfer)
{
	CURL *curl = transfer->curl;

	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_URL, transfer->task->location);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR,
		transfer->task->https_only ? "https" : "http,https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(curl, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SLOW_SECONDS);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "hob/" HOB_VERSION);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, transfer->reason);
	if (transfer->task->bytes_max > 0) {
		curl_easy_setopt(
			curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)transfer->task->bytes_max);
	}
	set_headers(transfer);
	if (transfer->have > 0) {
		curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)transfer->have);
	}
}

/* Worth another try? */
static bool is_passing(CURLcode code, long http)
{
	switch ((int)code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return true;
	case CURLE_HTTP_RETURNED_ERROR:
		return http == 408 || http == 429 || http >= 500;
	default:
		return false;
	}
}

static int attempt_error(
	const struct transfer *transfer, CURLcode code, long http, struct error *err)
{
	const char *why = transfer->reason[0] != '\0' ? transfer->reason : curl_easy_strerror(code);

	if (transfer->write_sys != 0) {
		return error_sys(err, transfer->write_sys, "store the download of %s",
			transfer->task->location);
	}
	if (transfer->over || code == CURLE_FILESIZE_EXCEEDED) {
		error_set(err, ERROR_LIMIT, "download %s: longer than %llu bytes",
			transfer->task->location, (unsigned long long)transfer->task->bytes_max);
		return error_hint(err, "raise its max_size if that is right");
	}
	error_set(err,
		code == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT
		: http == 401                    ? ERROR_DENIED
						 : ERROR_REMOTE,
		"download %s: %s", transfer->task->location, why);
	return error_hint(err, "check the url and the network; the last image stays in use");
}

/* Pauses with signs of life, so that waiting is not taken for hanging. */
static void pause_ms(struct child *child, int64_t ms)
{
	int64_t end = clock_mono_ms() + ms;
	const struct timespec slice = {.tv_nsec = 50 * 1000 * 1000};

	while (clock_mono_ms() < end) {
		child_progress(child, "waiting", 0, 0, 0);
		nanosleep(&slice, NULL);
	}
}

/* One request. 0: the body is whole; 1: try again; negative: given up. */
static int attempt(struct transfer *transfer, int number, struct error *err)
{
	long http = 0;
	CURLcode code;
	bool stale;

	set_options(transfer);
	code = curl_easy_perform(transfer->curl);
	if (code == CURLE_OK) {
		return 0;
	}
	curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &http);
	/* A server that cannot resume, or whose file is shorter than what we have. */
	stale = transfer->have > 0 && (code == CURLE_RANGE_ERROR || http == 416);
	if (stale && start_over(transfer, err) < 0) {
		return -(int)err->kind;
	}
	attempt_error(transfer, code, http, err);
	if (number >= TRIES_MAX || transfer->write_sys != 0 || transfer->over ||
		!(stale || is_passing(code, http))) {
		return -(int)err->kind;
	}
	child_line(transfer->child, "%s: trying again", err->message);
	return 1;
}

static int fetch_url(struct transfer *transfer, struct error *err)
{
	int64_t wait_ms = PAUSE_FIRST_MS;
	int status = 1;

	transfer->curl = curl_easy_init();
	if (transfer->curl == NULL) {
		return error_set(err, ERROR_INTERNAL, "libcurl does not start");
	}
	for (int number = 1; status == 1; number++) {
		if (number > 1) {
			pause_ms(transfer->child, wait_ms);
			wait_ms *= 2;
		}
		status = attempt(transfer, number, err);
	}
	curl_easy_cleanup(transfer->curl);
	curl_slist_free_all(transfer->headers);
	return status;
}

static int copy_local(struct transfer *transfer, struct error *err)
{
	CLEANUP(free_p) char *chunk = xmalloc(COPY_BYTES);
	int fd = transfer->task->local_fd;
	off_t offset = 0;
	ssize_t got;

	if (start_over(transfer, err) < 0) {
		return -(int)err->kind;
	}
	while ((got = pread(fd, chunk, COPY_BYTES, offset)) > 0) {
		offset += got;
		if (!add_bytes(transfer, chunk, (size_t)got)) {
			return transfer->over
				       ? error_set(err, ERROR_LIMIT, "%s is longer than %llu bytes",
						 transfer->task->location,
						 (unsigned long long)transfer->task->bytes_max)
				       : error_sys(err, transfer->write_sys, "copy %s",
						 transfer->task->location);
		}
	}
	return got < 0 ? error_sys(err, errno, "read %s", transfer->task->location) : 0;
}

static int bring(struct transfer *transfer, struct error *err)
{
	return transfer->task->local_fd >= 0 ? copy_local(transfer, err) : fetch_url(transfer, err);
}

/* A part taken up may be of an older file at the same place: then all of it again, once. */
static int bring_right(struct transfer *transfer, char *found, struct error *err)
{
	bool resumed = transfer->have > 0 && transfer->task->local_fd < 0;
	int status = bring(transfer, err);

	if (status < 0) {
		return status;
	}
	digest_end(transfer->digest, found);
	if (!resumed || streq(found, transfer->task->sha256)) {
		return 0;
	}
	status = start_over(transfer, err);
	if (status == 0) {
		status = bring(transfer, err);
	}
	if (status == 0) {
		digest_end(transfer->digest, found);
	}
	return status;
}

static int keep(struct transfer *transfer, const char *part, const char *found, struct error *err)
{
	const struct download *task = transfer->task;

	if (!streq(found, task->sha256)) {
		unlinkat(task->folder_fd, part, 0);
		error_set(err, ERROR_CORRUPT, "%s has sha256 %s, not %s", task->location, found,
			task->sha256);
		return error_hint(err,
			"if the new content is what you want, put its sha256 into the environment");
	}
	if (fault_point("download.verified") != 0 || fsync(transfer->fd) < 0 ||
		renameat(task->folder_fd, part, task->folder_fd, task->sha256) < 0) {
		return error_sys(err, errno, "keep the download of %s", task->location);
	}
	return io_fsync_dir(task->folder_fd, ".", err);
}

/* Opens the part locked; another build may be fetching the same, and may have finished meanwhile.
 */
static int open_part(struct transfer *transfer, const char *part, struct error *err)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	int folder = transfer->task->folder_fd;

	for (;;) {
		CLEANUP(close_p) int fd = io_open(folder, part, O_RDWR | O_CREAT, 0600, err);
		struct stat ours, named;

		if (fd < 0) {
			return fd;
		}
		while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			child_progress(transfer->child, "waiting", 0, 0, 0);
			nanosleep(&pause, NULL);
		}
		if (fstat(fd, &ours) == 0 && fstatat(folder, part, &named, 0) == 0 &&
			ours.st_ino == named.st_ino) {
			transfer->fd = steal_fd(&fd);
			return 0;
		}
		if (faccessat(folder, transfer->task->sha256, F_OK, 0) == 0) {
			transfer->fd = -1;
			return 0;
		}
	}
}

int download_here(struct child *child, const struct download *download, struct error *err)
{
	struct transfer transfer = {.task = download, .child = child, .fd = -1};
	char part[SHA256_TEXT_SIZE + 8], found[SHA256_TEXT_SIZE];
	int status;

	snprintf(part, sizeof(part), "%s.part", transfer.task->sha256);
	status = open_part(&transfer, part, err);
	if (status < 0 || transfer.fd < 0) {
		return status;
	}
	status = take_up(&transfer, err);
	if (status == 0 && download->bytes_max > 0 && transfer.have > download->bytes_max) {
		status = start_over(&transfer, err);
	}
	if (status == 0) {
		status = bring_right(&transfer, found, err);
	}
	if (status == 0) {
		status = keep(&transfer, part, found, err);
	}
	if (transfer.over) {
		unlinkat(download->folder_fd, part, 0);
	}
	digest_free(transfer.digest);
	close(transfer.fd);
	return status;
}

static int download_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	*(bool *)ret_result = true;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		return error_set(err, ERROR_INTERNAL, "libcurl does not start");
	}
	return download_here(child, context, err);
}

int download_get(
	struct machine *machine, const struct download *download, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("download %s", download->location);
	int fds[2] = {download->folder_fd, download->local_fd}, status, fd;
	bool done = false;
	struct child_spec spec = {
		.what = what,
		.run = download_child,
		.context = (void *)(uintptr_t)download,
		.result_size = sizeof(done),
		.fds = fds,
		.fd_count = download->local_fd >= 0 ? 2 : 1,
		.stall_ms = download->stall_ms,
	};

	if (!digest_is_valid(download->sha256)) {
		return error_set(
			err, ERROR_INVALID, "\"%s\" is no sha256 digest", download->sha256);
	}
	if (faccessat(download->folder_fd, download->sha256, F_OK, 0) < 0) {
		status = child_run(machine, &spec, &done, err);
		if (status < 0) {
			return status;
		}
	}
	fd = io_open(download->folder_fd, download->sha256, O_RDONLY | O_NOFOLLOW, 0, err);
	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}
