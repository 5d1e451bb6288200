/*
 * The last output of an exec, in order and with its stream, for a hob that comes back. A plain
 * block of records: it grows as needed, and when it is full with some slack its older part is
 * moved out, so that adding costs constant time on average.
 */
#include "pool/sandbox/init/init.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_FIRST 512
/* What a full one holds right after it moved its older part out, and what it grows to before. */
#define KEPT_WHOLE (INIT_REPLAY_MAX + sizeof(struct kept_record))
#define KEPT_ROOM (KEPT_WHOLE + INIT_REPLAY_MAX / 2)

struct kept_record {
	uint32_t type;
	uint32_t length;
};

static struct kept_record record_at(const struct kept *kept, size_t offset)
{
	struct kept_record record;

	memcpy(&record, kept->data + offset, sizeof(record));
	return record;
}

static void record_put(struct kept *kept, size_t offset, uint32_t type, size_t length)
{
	struct kept_record record = {.type = type, .length = (uint32_t)length};

	memcpy(kept->data + offset, &record, sizeof(record));
}

/* Drops the oldest output until at most `room` bytes, headers and all, are left. */
static void shrink(struct kept *kept, size_t room)
{
	size_t from = 0;

	while (kept->length - from > room) {
		struct kept_record record = record_at(kept, from);
		size_t excess = kept->length - from - room;

		if (record.length > excess) {
			/* Its header moves up over the bytes that go. */
			from += excess;
			record_put(kept, from, record.type, record.length - excess);
		} else {
			from += sizeof(record) + record.length;
		}
	}
	memmove(kept->data, kept->data + from, kept->length - from);
	kept->length -= from;
	kept->last = kept->last > from ? kept->last - from : 0;
}

static bool make_room(struct kept *kept, size_t length)
{
	size_t room = kept->room > 0 ? kept->room : KEPT_FIRST;
	size_t whole;
	char *grown;

	while (room < kept->length + length && room < KEPT_ROOM) {
		room = 2 * room < KEPT_ROOM ? 2 * room : KEPT_ROOM;
	}
	if (room != kept->room) {
		grown = realloc(kept->data, room);
		if (grown != NULL) {
			kept->data = grown;
			kept->room = room;
		}
	}
	if (kept->room < kept->length + length) {
		whole = kept->room < KEPT_WHOLE ? kept->room : KEPT_WHOLE;
		shrink(kept, whole > length ? whole - length : 0);
	}
	return kept->room >= kept->length + length;
}

void kept_add(struct kept *kept, uint32_t type, const void *data, size_t length)
{
	struct kept_record record;

	if (!make_room(kept, sizeof(record) + length)) {
		return;
	}
	record = kept->length > 0 ? record_at(kept, kept->last) : (struct kept_record){0, 0};
	if (record.type == type) {
		record_put(kept, kept->last, type, record.length + length);
	} else {
		kept->last = kept->length;
		record_put(kept, kept->last, type, length);
		kept->length += sizeof(record);
	}
	memcpy(kept->data + kept->length, data, length);
	kept->length += length;
	kept->total += length;
}

size_t kept_next(const struct kept *kept, struct kept_cursor *cursor, size_t max, uint32_t *type,
	const char **data)
{
	struct kept_record record;
	size_t length;

	if (cursor->record >= kept->length) {
		return 0;
	}
	record = record_at(kept, cursor->record);
	length = record.length - cursor->done;
	length = length < max ? length : max;
	*type = record.type;
	*data = kept->data + cursor->record + sizeof(record) + cursor->done;
	cursor->done += length;
	if (cursor->done == record.length) {
		cursor->record += sizeof(record) + record.length;
		cursor->done = 0;
	}
	return length;
}

static size_t kept_bytes(const struct kept *kept)
{
	size_t bytes = 0;

	for (size_t at = 0; at < kept->length;) {
		struct kept_record record = record_at(kept, at);

		bytes += record.length;
		at += sizeof(record) + record.length;
	}
	return bytes;
}

size_t kept_copy(const struct kept *kept, uint64_t *position, char *to, size_t max)
{
	uint64_t first = kept->total - kept_bytes(kept);
	size_t copied = 0;
	uint64_t skip;

	if (*position < first) {
		*position = first;
	}
	skip = *position - first;
	for (size_t at = 0; at < kept->length && copied < max;) {
		struct kept_record record = record_at(kept, at);
		size_t start = skip < record.length ? (size_t)skip : record.length;
		size_t length = record.length - start;

		length = length < max - copied ? length : max - copied;
		memcpy(to + copied, kept->data + at + sizeof(record) + start, length);
		copied += length;
		skip -= start;
		at += sizeof(record) + record.length;
	}
	*position += copied;
	return copied;
}

void kept_done(struct kept *kept)
{
	free(kept->data);
	*kept = (struct kept){.data = NULL};
}
