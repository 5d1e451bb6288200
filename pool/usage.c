/* The account's two files. Every line starts with its number and time in fixed places, so that a
 * search reads no JSON. */
#include "pool/usage.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/meter.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define NAME "usage.jsonl"
#define OLDER_NAME "usage.1.jsonl"
/* Its lines are at most some 20 kB; what was written last is among these. */
#define TAIL_BYTES (256 << 10)
#define NUMBER_KEY "{\"n\":"
#define ENDED_KEY ",\"ended_ms\":"
#define SANDBOX_KEY ",\"sandbox\":\""
#define STARTED_KEY "\",\"started_ms\":"

struct usage_log {
	int folder_fd, fd;
	int64_t bytes, last; /* number */
	bool torn; /* the last append was cut short */
};

struct line {
	const char *text;
	size_t length;
	int64_t number, ended_ms;
};

/* False for a line that is none of ours. */
static bool line_parse(const char *text, size_t length, struct line *ret)
{
	char *end;

	/* A whole line ends with '}'; strtoll stops before that. */
	if (length < strlen(NUMBER_KEY) + strlen(ENDED_KEY) + 4 || text[length - 1] != '}' ||
		strncmp(text, NUMBER_KEY, strlen(NUMBER_KEY)) != 0) {
		return false;
	}
	*ret = (struct line){.text = text, .length = length};
	ret->number = strtoll(text + strlen(NUMBER_KEY), &end, 10);
	if (strncmp(end, ENDED_KEY, strlen(ENDED_KEY)) != 0) {
		return false;
	}
	ret->ended_ms = strtoll(end + strlen(ENDED_KEY), NULL, 10);
	return ret->number > 0;
}

/* The next whole line from *at on; moves it past. False at the end. */
static bool line_next(const char **at, const char *end, struct line *ret)
{
	const char *stop;

	while (*at < end && (stop = memchr(*at, '\n', (size_t)(end - *at))) != NULL) {
		const char *start = *at;

		*at = stop + 1;
		if (line_parse(start, (size_t)(stop - start), ret)) {
			return true;
		}
	}
	return false;
}

static int read_all(
	const struct usage_log *log, const char *name, struct buffer *text, struct error *err)
{
	buffer_init(text, USAGE_FILE_BYTES * 2);
	if (io_read_file(log->folder_fd, name, text, err) < 0) {
		buffer_done(text);
		buffer_init(text, 0);
		return err->kind == ERROR_NOT_FOUND ? 0 : -(int)err->kind;
	}
	return 0;
}

static int last_find(struct usage_log *log, const char *name, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text;
	struct line line;
	const char *at;

	if (read_all(log, name, &text, err) < 0) {
		return -(int)err->kind;
	}
	at = buffer_text(&text);
	while (line_next(&at, buffer_text(&text) + text.length, &line)) {
		log->last = line.number > log->last ? line.number : log->last;
	}
	log->torn = text.length > 0 && text.data[text.length - 1] != '\n';
	return 0;
}

static int current_open(struct usage_log *log, struct error *err)
{
	struct stat stat;

	fd_done(&log->fd);
	log->fd =
		io_open(log->folder_fd, NAME, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0600, err);
	if (log->fd < 0) {
		return -(int)err->kind;
	}
	log->bytes = fstat(log->fd, &stat) == 0 ? stat.st_size : 0;
	return 0;
}

int usage_open(int folder_fd, struct usage_log **ret_log, struct error *err)
{
	struct usage_log *log = xcalloc(1, sizeof(*log));

	log->folder_fd = folder_fd;
	log->fd = -1;
	if (last_find(log, OLDER_NAME, err) < 0 || last_find(log, NAME, err) < 0 ||
		current_open(log, err) < 0) {
		usage_close(log);
		return error_wrap(err, "the account of sandboxes");
	}
	*ret_log = log;
	return 0;
}

void usage_close(struct usage_log *log)
{
	if (log != NULL) {
		fd_done(&log->fd);
		free(log);
	}
}

/* Only the last hobd's last lines can be of a sandbox that is still being ended. */
static bool has_written(const struct usage_log *log, const struct entry_record *record)
{
	CLEANUP(free_p)
	char *wanted = xasprintf(
		SANDBOX_KEY "%s" STARTED_KEY "%" PRId64 ",", record->id, record->meter.started_ms);
	CLEANUP(free_p) char *tail = xmalloc(TAIL_BYTES + 1);
	int64_t from = log->bytes > TAIL_BYTES ? log->bytes - TAIL_BYTES : 0;
	ssize_t got = pread(log->fd, tail, TAIL_BYTES, from);

	tail[got > 0 ? got : 0] = '\0';
	return strstr(tail, wanted) != NULL;
}

static void format(const struct entry *entry, int64_t number, struct buffer *line)
{
	const struct entry_record *record = &entry->record;
	struct meter_sums sums = meter_read(entry, NULL);
	CLEANUP(json_decref_p)
	json_t *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "environment",
		record->environment, "image", (json_int_t)record->image_id, "snapshot",
		(json_int_t)record->snapshot_id, "claimed_ms", (json_int_t)record->claimed_ms,
		"active_ms", (json_int_t)sums.active_ms, "paused_ms", (json_int_t)sums.paused_ms,
		"cpu_us", (json_int_t)sums.cpu_us, "memory_kib_s", (json_int_t)sums.memory_kib_s,
		"reason", entry->release_reason != NULL ? entry->release_reason : "");
	CLEANUP(free_p) char *text = NULL;

	if (record->metadata != NULL) {
		json_object_set(json, "metadata", record->metadata);
	}
	text = json_text(json);
	buffer_addf(line,
		NUMBER_KEY "%" PRId64 ENDED_KEY "%" PRId64 SANDBOX_KEY "%s" STARTED_KEY "%" PRId64
			   ",%s\n",
		number, record->meter.ended_ms, record->id, record->meter.started_ms, text + 1);
}

static int rotate(struct usage_log *log, struct error *err)
{
	if (log->bytes < USAGE_FILE_BYTES) {
		return 0;
	}
	if (renameat(log->folder_fd, NAME, log->folder_fd, OLDER_NAME) < 0) {
		return error_sys(err, errno, "rename " NAME);
	}
	return current_open(log, err);
}

int usage_add(struct usage_log *log, const struct entry *entry, struct error *err)
{
	CLEANUP(buffer_done) struct buffer line;
	int fault = fault_point("usage.add");
	ssize_t put;

	buffer_init(&line, 0);
	if (entry->adopt_as != ENTRY_GONE && has_written(log, &entry->record)) {
		return 0;
	}
	if (rotate(log, err) < 0) {
		return -(int)err->kind;
	}
	if (log->torn) {
		buffer_add(&line, "\n", 1);
	}
	format(entry, log->last + 1, &line);
	put = fault != 0 ? -1 : write(log->fd, line.data, line.length);
	if (put < 0) {
		return error_sys(err, fault != 0 ? fault : errno, "write " NAME);
	}
	log->bytes += put;
	log->torn = (size_t)put < line.length;
	if (log->torn) {
		return error_set(err, ERROR_NO_SPACE, "write " NAME ": cut short");
	}
	log->last++;
	return 0;
}

int usage_list(struct usage_log *log, const struct usage_query *query, struct buffer *out,
	struct error *err)
{
	static const char *const names[] = {OLDER_NAME, NAME};
	int64_t left = query->limit;

	for (size_t i = 0; i < ARRAY_SIZE(names) && left > 0; i++) {
		CLEANUP(buffer_done) struct buffer text;
		const char *at;
		struct line line;

		if (read_all(log, names[i], &text, err) < 0) {
			return -(int)err->kind;
		}
		at = buffer_text(&text);
		while (left > 0 && line_next(&at, buffer_text(&text) + text.length, &line)) {
			if (line.number > query->after && line.ended_ms >= query->since_ms) {
				buffer_add_str(out, out->length > 0 ? ",\n" : "");
				buffer_add(out, line.text, line.length);
				left--;
			}
		}
	}
	*err = ERROR_INIT;
	return 0;
}
