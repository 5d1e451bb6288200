/*
 * Files of a sandbox, read and written by its hob-init: no path is looked at out here. What is read
 * comes as fast as the client takes it, what is written goes as fast as init does.
 */
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

/* Entries of a listing: a JSON answer of a few hundred megabytes helps nobody. */
#define ENTRIES_MAX 100000
#define FILE_MODE_DEFAULT 0644

struct transfer {
	struct entry_use use;
	struct http_request *request;
	struct init_file_handle *file; /* NULL once it is done */
	char *path; /* inside, absolute */
	/* read */
	struct http_stream *stream; /* NULL before the first bytes */
	/* list */
	json_t *entries;
	struct error failure; /* too many entries */
	/* write */
	size_t room;
};

static void transfer_free(struct transfer *transfer)
{
	entry_use_end(&transfer->use);
	if (transfer->file != NULL) {
		init_file_cancel(transfer->file);
	}
	json_decref(transfer->entries);
	free(transfer->path);
	free(transfer);
}

static void on_client_gone(void *work)
{
	transfer_free(work);
}

/* Ends it with the error, as an answer or, when that has begun, by breaking it off. */
static void transfer_fail(struct transfer *transfer, const struct error *err)
{
	struct http_request *request = transfer->request;
	struct http_stream *stream = transfer->stream;

	http_request_work_done(request);
	transfer_free(transfer);
	request->take_body = NULL;
	request->end_body = NULL;
	if (stream != NULL) {
		http_stream_end(stream, false);
	} else {
		http_reply_error(request, err);
	}
}

static void on_sandbox_lost(struct entry_use *use, const struct error *err)
{
	transfer_fail(container_of(use, struct transfer, use), err);
}

/* NULL: answered. */
static struct transfer *transfer_new(struct http_request *request, bool only_looks)
{
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;
	struct transfer *transfer;

	if (entry == NULL) {
		return NULL;
	}
	if (entry_wake(entry, only_looks, &err) < 0) {
		http_reply_error(request, &err);
		return NULL;
	}
	transfer = xcalloc(1, sizeof(*transfer));
	transfer->request = request;
	transfer->path = xasprintf("/%s", request->match.rest);
	entry_use_begin(entry, &transfer->use, only_looks, on_sandbox_lost);
	http_request_work(request, transfer, on_client_gone);
	return transfer;
}

static struct init_client *client_of(const struct transfer *transfer)
{
	return transfer->use.entry->client;
}

/* ---- folders ---- */

static const char *type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "dir";
	case S_IFLNK:
		return "symlink";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	case S_IFCHR:
		return "char";
	case S_IFBLK:
		return "block";
	default:
		return "file";
	}
}

static void on_entry(void *context, const struct file_info *info)
{
	struct transfer *transfer = context;
	char mode[8];
	json_t *json;

	if (json_array_size(transfer->entries) >= ENTRIES_MAX) {
		error_set(&transfer->failure, ERROR_LIMIT, "%s has over %d entries", transfer->path,
			ENTRIES_MAX);
		return;
	}
	snprintf(mode, sizeof(mode), "%04o", (unsigned)(info->mode & 07777));
	json = json_pack("{s:o, s:s, s:s, s:I, s:o, s:I, s:I}", "name",
		json_str_or_null(info->name), "type", type_name(info->mode), "mode", mode, "size",
		(json_int_t)info->size, "mtime", json_time(info->mtime_ns / 1000000), "uid",
		(json_int_t)info->uid, "gid", (json_int_t)info->gid);
	if (info->target != NULL) {
		json_object_set_new(json, "target", json_str_or_null(info->target));
	}
	json_array_append_new(transfer->entries, json);
}

static void on_list_done(void *context, uint64_t bytes, const struct error *err)
{
	struct transfer *transfer = context;
	struct http_request *request = transfer->request;
	json_t *json;

	(void)bytes;
	transfer->file = NULL;
	if (err == NULL && transfer->failure.kind != ERROR_NONE) {
		err = &transfer->failure;
	}
	if (err != NULL) {
		struct error copy;

		error_copy(&copy, err);
		transfer_fail(transfer, &copy);
		return;
	}
	json = json_pack("{s:o, s:O}", "path", json_str_or_null(transfer->path), "entries",
		transfer->entries);
	http_request_work_done(request);
	transfer_free(transfer);
	http_reply_json(request, MHD_HTTP_OK, json);
}

static void start_list(struct transfer *transfer)
{
	static const struct file_events events = {.entry = on_entry, .done = on_list_done};
	struct error err = ERROR_INIT;

	transfer->entries = json_array();
	if (init_file_list(client_of(transfer), transfer->path, &events, transfer, &transfer->file,
		    &err) < 0) {
		transfer->file = NULL;
		transfer_fail(transfer, &err);
	}
}

/* ---- reading ---- */

static void on_drained(void *context, size_t bytes)
{
	struct transfer *transfer = context;

	if (transfer->file != NULL) {
		init_file_consumed(transfer->file, bytes);
	}
}

static void on_read_info(void *context, const struct file_info *info)
{
	struct transfer *transfer = context;
	char mode[16], mtime[32];
	const char *headers[] = {"X-Hob-Mode", mode, "X-Hob-Mtime", mtime, NULL};
	struct http_stream_spec spec = {.status = MHD_HTTP_OK,
		.content_type = "application/octet-stream",
		/* Files of /proc say 0 and have something all the same. */
		.size = info->size > 0 ? info->size : MHD_SIZE_UNKNOWN,
		.headers = headers,
		.drained = on_drained,
		.context = transfer};

	snprintf(mode, sizeof(mode), "%04o", (unsigned)(info->mode & 07777));
	snprintf(mtime, sizeof(mtime), "%" PRId64 ".%09" PRId64, info->mtime_ns / 1000000000,
		info->mtime_ns % 1000000000);
	transfer->stream = http_stream_open(transfer->request, &spec);
}

static void on_read_data(void *context, const void *data, size_t length)
{
	struct transfer *transfer = context;

	http_stream_write(transfer->stream, data, length);
}

static void on_read_done(void *context, uint64_t bytes, const struct error *err)
{
	struct transfer *transfer = context;
	struct http_stream *stream = transfer->stream;
	struct error copy;

	(void)bytes;
	transfer->file = NULL;
	if (err != NULL && err->sys == EISDIR && stream == NULL) {
		start_list(transfer);
		return;
	}
	if (err != NULL) {
		error_copy(&copy, err);
		transfer_fail(transfer, &copy);
		return;
	}
	http_stream_end(stream, true);
	transfer_free(transfer);
}

void handle_file_get(struct http_request *request)
{
	static const struct file_events events = {
		.info = on_read_info, .data = on_read_data, .done = on_read_done};
	struct transfer *transfer = transfer_new(request, true);
	struct error err = ERROR_INIT;

	if (transfer == NULL) {
		return;
	}
	if (init_file_read(client_of(transfer), transfer->path, INT64_MAX, &events, transfer,
		    &transfer->file, &err) < 0) {
		transfer->file = NULL;
		transfer_fail(transfer, &err);
	}
}

/* ---- writing ---- */

static void on_write_room(void *context, size_t bytes)
{
	struct transfer *transfer = context;

	transfer->room += bytes;
	/* Asleep over a body that did not fit: it goes on. Asleep for the end: only `done` ends
	 * that. */
	if (transfer->request->take_body != NULL) {
		http_request_wake(transfer->request);
	}
}

static size_t take_body(struct http_request *request, const char *data, size_t length)
{
	struct transfer *transfer = request->work;
	size_t part = length < transfer->room ? length : transfer->room;
	struct error err = ERROR_INIT;

	if (part > 0 && init_file_send(transfer->file, data, part, &err) < 0) {
		transfer_fail(transfer, &err);
		return length;
	}
	transfer->room -= part;
	return part;
}

static void end_body(struct http_request *request)
{
	struct transfer *transfer = request->work;

	request->take_body = NULL;
	init_file_send_end(transfer->file);
}

static void on_write_done(void *context, uint64_t bytes, const struct error *err)
{
	struct transfer *transfer = context;
	struct http_request *request = transfer->request;
	struct error copy;
	json_t *json;

	transfer->file = NULL;
	if (err != NULL) {
		error_copy(&copy, err);
		transfer_fail(transfer, &copy);
		return;
	}
	json = json_pack(
		"{s:o, s:I}", "path", json_str_or_null(transfer->path), "bytes", (json_int_t)bytes);
	http_request_work_done(request);
	transfer_free(transfer);
	http_reply_json(request, MHD_HTTP_CREATED, json);
}

static int read_mode(struct http_request *request, uint32_t *ret_mode, struct error *err)
{
	const char *text = http_query(request, "mode");
	char *end = NULL;
	unsigned long mode;

	if (text == NULL) {
		*ret_mode = FILE_MODE_DEFAULT;
		return 0;
	}
	mode = strtoul(text, &end, 8);
	if (*text < '0' || *text > '7' || *end != '\0' || mode > 07777) {
		return error_set(
			err, ERROR_INVALID, "?mode must be octal like 0644, not \"%s\"", text);
	}
	*ret_mode = (uint32_t)mode;
	return 0;
}

static int check_length(struct http_request *request, struct error *err)
{
	const char *length = http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
	int64_t max = request->server->config->file_bytes_max;

	if (length != NULL && strtoull(length, NULL, 10) > (uint64_t)max) {
		error_set(err, ERROR_LIMIT, "the file is over %" PRId64 " bytes", max);
		return error_hint(err, "raise file_bytes_max in hob.yaml");
	}
	return 0;
}

void handle_file_put(struct http_request *request)
{
	static const struct file_events events = {.room = on_write_room, .done = on_write_done};
	struct transfer *transfer;
	struct error err = ERROR_INIT;
	uint32_t mode = FILE_MODE_DEFAULT;

	if (read_mode(request, &mode, &err) < 0 || check_length(request, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	transfer = transfer_new(request, false);
	if (transfer == NULL) {
		return;
	}
	if (init_file_write(client_of(transfer), transfer->path, mode,
		    (uint64_t)request->server->config->file_bytes_max, &events, transfer,
		    &transfer->file, &err) < 0) {
		transfer->file = NULL;
		transfer_fail(transfer, &err);
		return;
	}
	request->take_body = take_body;
	request->end_body = end_body;
}

/* ---- deleting ---- */

static void on_remove_done(void *context, uint64_t bytes, const struct error *err)
{
	struct transfer *transfer = context;
	struct http_request *request = transfer->request;
	struct error copy;
	json_t *json;

	(void)bytes;
	transfer->file = NULL;
	if (err != NULL) {
		error_copy(&copy, err);
		transfer_fail(transfer, &copy);
		return;
	}
	json = json_pack("{s:o}", "path", json_str_or_null(transfer->path));
	http_request_work_done(request);
	transfer_free(transfer);
	http_reply_json(request, MHD_HTTP_OK, json);
}

void handle_file_delete(struct http_request *request)
{
	static const struct file_events events = {.done = on_remove_done};
	const char *recursive = http_query(request, "recursive");
	struct transfer *transfer = transfer_new(request, false);
	struct error err = ERROR_INIT;

	if (transfer == NULL) {
		return;
	}
	if (init_file_remove(client_of(transfer), transfer->path,
		    recursive != NULL && !streq(recursive, "0"), &events, transfer, &transfer->file,
		    &err) < 0) {
		transfer->file = NULL;
		transfer_fail(transfer, &err);
	}
}
