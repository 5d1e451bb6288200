/* Files, hob's end: requests out, what init says about them checked against what it may say now. */
#include "pool/sandbox/client/init_client_internal.h"

#include <sys/stat.h>

#define PATH_LENGTH_MAX 4095
#define NAME_LENGTH_MAX 255

struct init_file_handle *file_find(const struct init_client *client, uint32_t id)
{
	struct init_file_handle *file = client->files;

	while (file != NULL && file->id != id) {
		file = file->next;
	}
	return file;
}

void file_unlink(struct init_file_handle *file)
{
	struct init_client *client = file->client;
	struct init_file_handle **at = &client->files;

	while (*at != NULL && *at != file) {
		at = &(*at)->next;
	}
	if (*at == NULL) {
		return;
	}
	*at = file->next;
	if (client->depth > 0) {
		file->next = client->dead_files;
		client->dead_files = file;
	} else {
		free(file);
	}
}

/* ---- requests ---- */

static uint32_t free_id(struct init_client *client)
{
	do {
		client->next_file_id = client->next_file_id == UINT32_MAX
					       ? INIT_FILE_ID_FIRST
					       : client->next_file_id + 1;
	} while (file_find(client, client->next_file_id) != NULL);
	return client->next_file_id;
}

static const uint32_t kind_types[] = {
	[FILE_READ] = INIT_FILE_READ,
	[FILE_WRITE] = INIT_FILE_WRITE,
	[FILE_LIST] = INIT_FILE_LIST,
	[FILE_REMOVE] = INIT_FILE_REMOVE,
	[FILE_LOG] = INIT_LOG,
	[FILE_PROBE] = INIT_PROBE,
};

struct file_request {
	enum file_kind kind;
	struct init_file head;
	const char *path;
	const struct file_events *events;
	void *context;
};

/* Sends the request; the handle's events and context are the caller's to set. */
static int handle_new(struct init_client *client, enum file_kind kind, const struct part *parts,
	struct init_file_handle **ret_file, struct error *err)
{
	uint32_t id = free_id(client);
	struct init_file_handle *file;
	int result = client_request(client, kind_types[kind], id, parts, 2, err);

	if (result < 0) {
		return result;
	}
	file = xcalloc(1, sizeof(*file));
	file->client = client;
	file->id = id;
	file->kind = kind;
	file->in.credit = INIT_WINDOW_DEFAULT;
	file->next = client->files;
	client->files = file;
	*ret_file = file;
	return 0;
}

static int request(struct init_client *client, const struct file_request *request,
	struct init_file_handle **ret_file, struct error *err)
{
	size_t length = strlen(request->path);
	struct part parts[2] = {{&request->head, sizeof(request->head)}, {request->path, length}};
	int result;

	if (request->path[0] != '/' || length > PATH_LENGTH_MAX) {
		return error_set(err, ERROR_INVALID,
			"\"%.200s\": not an absolute path of at most %d bytes", request->path,
			PATH_LENGTH_MAX);
	}
	result = handle_new(client, request->kind, parts, ret_file, err);
	if (result == 0) {
		(*ret_file)->events = request->events;
		(*ret_file)->context = request->context;
	}
	return result;
}

int init_file_read(struct init_client *client, const char *path, uint64_t bytes_max,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	struct file_request what = {FILE_READ, {.bytes_max = bytes_max}, path, events, context};

	return request(client, &what, ret_file, err);
}

int init_file_write(struct init_client *client, const char *path, uint32_t mode, uint64_t bytes_max,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	struct file_request what = {FILE_WRITE,
		{.flags = INIT_FILE_PARENTS, .mode = mode, .bytes_max = bytes_max}, path, events,
		context};

	return request(client, &what, ret_file, err);
}

int init_file_list(struct init_client *client, const char *path, const struct file_events *events,
	void *context, struct init_file_handle **ret_file, struct error *err)
{
	struct file_request what = {FILE_LIST, {.flags = 0}, path, events, context};

	return request(client, &what, ret_file, err);
}

int init_file_remove(struct init_client *client, const char *path, bool recursive,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	struct file_request what = {
		FILE_REMOVE, {.flags = recursive ? INIT_FILE_RECURSIVE : 0}, path, events, context};

	return request(client, &what, ret_file, err);
}

int init_log_read(struct init_client *client, uint32_t exec, bool follow,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	struct init_log log = {.exec = exec, .follow = follow ? 1 : 0};
	struct part parts[2] = {{&log, sizeof(log)}, {NULL, 0}};
	int result = handle_new(client, FILE_LOG, parts, ret_file, err);

	if (result == 0) {
		(*ret_file)->events = events;
		(*ret_file)->context = context;
	}
	return result;
}

int init_probe(struct init_client *client, const struct probe_spec *spec,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	struct init_probe probe = {.kind = spec->path != NULL   ? INIT_PROBE_FILE
					   : spec->http != NULL ? INIT_PROBE_HTTP
								: INIT_PROBE_TCP,
		.port = spec->port,
		.timeout_ms = (uint32_t)spec->timeout_ms};
	const char *text = spec->path != NULL ? spec->path : spec->http != NULL ? spec->http : "";
	struct part parts[2] = {{&probe, sizeof(probe)}, {text, strlen(text)}};
	int result;

	if (parts[1].length > INIT_PROBE_TEXT_MAX) {
		return error_set(
			err, ERROR_INVALID, "a probe of more than %d bytes", INIT_PROBE_TEXT_MAX);
	}
	result = handle_new(client, FILE_PROBE, parts, ret_file, err);
	if (result == 0) {
		(*ret_file)->events = events;
		(*ret_file)->context = context;
	}
	return result;
}

void init_file_consumed(struct init_file_handle *file, size_t bytes)
{
	uint32_t grant = inflow_give(&file->in, bytes);

	if (grant > 0) {
		client_control(file->client, INIT_WINDOW, file->id, &grant, sizeof(grant));
	}
}

int init_file_send(
	struct init_file_handle *file, const void *data, size_t length, struct error *err)
{
	if (file->kind != FILE_WRITE || file->end_sent) {
		return error_set(err, ERROR_CONFLICT, "this file takes no data");
	}
	if (length > file->room) {
		return error_set(
			err, ERROR_LIMIT, "%zu bytes for a file, room for %u", length, file->room);
	}
	while (length > 0) {
		size_t size = length < PAYLOAD_MAX ? length : PAYLOAD_MAX;
		struct part part = {data, size};
		int result = client_request(file->client, INIT_FILE_DATA, file->id, &part, 1, err);

		if (result < 0) {
			return result;
		}
		file->room -= (uint32_t)size;
		file->moved += size;
		data = (const char *)data + size;
		length -= size;
	}
	return 0;
}

void init_file_send_end(struct init_file_handle *file)
{
	if (file->kind == FILE_WRITE && !file->end_sent) {
		file->end_sent = true;
		client_control(file->client, INIT_FILE_END, file->id, NULL, 0);
	}
}

void init_file_cancel(struct init_file_handle *file)
{
	client_control(file->client, INIT_FILE_CANCEL, file->id, NULL, 0);
	file_unlink(file);
}

/* ---- what comes back ---- */

static void file_end(struct init_file_handle *file, uint64_t bytes, const struct error *err)
{
	const struct file_events *events = file->events;
	void *context = file->context;

	/* Off the list first: a callback that cancels its own handle then finds nothing to do. */
	file_unlink(file);
	if (events->done != NULL) {
		events->done(context, bytes, err);
	}
}

void file_end_with(struct init_file_handle *file, const struct error *err)
{
	file_end(file, 0, err);
}

static void info_read(const void *body, struct file_info *info)
{
	struct init_file_info wire;

	memcpy(&wire, body, sizeof(wire));
	*info = (struct file_info){
		.mode = wire.mode,
		.uid = wire.uid,
		.gid = wire.gid,
		.size = wire.size,
		.mtime_ns = wire.mtime_ns,
	};
}

static const char *info_packet(struct init_file_handle *file, const void *body, size_t length)
{
	struct file_info info;

	if (file->info_seen || length != sizeof(struct init_file_info) ||
		(file->kind != FILE_READ && file->kind != FILE_LIST)) {
		return "information that was not asked for";
	}
	info_read(body, &info);
	if ((file->kind == FILE_READ) != S_ISREG(info.mode) ||
		(file->kind == FILE_LIST) != S_ISDIR(info.mode) || info.size > INT64_MAX) {
		return "information about another kind of file";
	}
	file->info_seen = true;
	if (file->events->info != NULL) {
		file->events->info(file->context, &info);
	}
	return NULL;
}

/* A name as a folder can hold it, so that nobody who uses it is led elsewhere. */
static bool name_is_entry(const char *name, size_t length)
{
	return length > 0 && length <= NAME_LENGTH_MAX && memchr(name, '/', length) == NULL &&
	       !(length == 1 && name[0] == '.') &&
	       !(length == 2 && name[0] == '.' && name[1] == '.');
}

static const char *entry_packet(struct init_file_handle *file, const void *body, size_t length)
{
	const char *names = (const char *)body + sizeof(struct init_file_info);
	char name[NAME_LENGTH_MAX + 1];
	char target[PATH_LENGTH_MAX + 1];
	struct file_info info;
	size_t name_length, target_length = 0;
	const char *end;

	if (file->kind != FILE_LIST || !file->info_seen ||
		length <= sizeof(struct init_file_info)) {
		return "an entry that was not asked for";
	}
	info_read(body, &info);
	length -= sizeof(struct init_file_info);
	end = memchr(names, '\0', length);
	name_length = end != NULL ? (size_t)(end - names) : length;
	if (end != NULL) {
		target_length = length - name_length - 1;
	}
	if (!name_is_entry(names, name_length) || target_length > PATH_LENGTH_MAX ||
		(end != NULL) != S_ISLNK(info.mode) || info.size > INT64_MAX ||
		(end != NULL && memchr(end + 1, '\0', target_length) != NULL)) {
		return "an entry that cannot be in a folder";
	}
	memcpy(name, names, name_length);
	name[name_length] = '\0';
	if (end != NULL) {
		memcpy(target, end + 1, target_length);
		target[target_length] = '\0';
		info.target = target;
	}
	info.name = name;
	if (file->events->entry != NULL) {
		file->events->entry(file->context, &info);
	}
	return NULL;
}

static const char *data_packet(struct init_file_handle *file, const void *body, size_t length)
{
	bool may = file->kind == FILE_LOG || (file->kind == FILE_READ && file->info_seen);

	if (!may || !inflow_take(&file->in, length)) {
		return "data that was not asked for";
	}
	file->moved += length;
	if (file->events->data == NULL) {
		init_file_consumed(file, length);
	} else {
		file->events->data(file->context, body, length);
	}
	return NULL;
}

static const char *room_packet(struct init_file_handle *file, const void *body, size_t length)
{
	uint32_t bytes;

	if (file->kind != FILE_WRITE || !u32_read(body, length, 1, &bytes) ||
		bytes > INIT_WINDOW_DEFAULT - file->room) {
		return "more room for a file than there can be";
	}
	file->room += bytes;
	if (!file->end_sent && file->events->room != NULL) {
		file->events->room(file->context, bytes);
	}
	return NULL;
}

static const char *done_packet(struct init_file_handle *file, const void *body, size_t length)
{
	uint64_t bytes;

	if (length != sizeof(bytes)) {
		return "an end that cannot be";
	}
	memcpy(&bytes, body, sizeof(bytes));
	if ((file->kind == FILE_WRITE && !file->end_sent) ||
		((file->kind == FILE_READ || file->kind == FILE_LIST) && !file->info_seen) ||
		((file->kind == FILE_READ || file->kind == FILE_WRITE || file->kind == FILE_LOG) &&
			bytes != file->moved)) {
		return "an end before the end";
	}
	file_end(file, bytes, NULL);
	return NULL;
}

const char *file_packet(
	struct init_file_handle *file, uint32_t type, const void *body, size_t length)
{
	enum init_step ignored;
	struct error err = ERROR_INIT;

	switch (type) {
	case INIT_FILE_INFO:
		return info_packet(file, body, length);
	case INIT_FILE_ENTRY:
		return entry_packet(file, body, length);
	case INIT_FILE_DATA:
		return data_packet(file, body, length);
	case INIT_STDIN_WINDOW:
		return room_packet(file, body, length);
	case INIT_FILE_DONE:
		return done_packet(file, body, length);
	case INIT_REFUSED:
		if (!refusal_read(body, length, true, &ignored, &err)) {
			return "a refusal that cannot be";
		}
		file_end(file, 0, &err);
		return NULL;
	default:
		return "a message about commands for a file";
	}
}
