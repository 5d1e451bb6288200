/*
 * The index of a workspace: read whatever git has written (versions 2 to 4), checked against the
 * old commit for the paths that change, written anew as version 2 or 3 without its extensions,
 * which git makes again. Entries of other paths keep what they know, so that their files are not
 * read.
 */
#include "pool/sandbox/init/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
#define LOCK_NAME "index.lock"
#define OWN_LOCK "lock"
#define HEADER_SIZE 12
#define STAT_SIZE 40
#define FIXED_SIZE (STAT_SIZE + APPLY_ID_SIZE + 2)
#define INDEX_MAX (UINT64_C(1) << 30)
#define FLAG_EXTENDED 0x4000u
#define FLAG_STAGE 0x3000u
#define NAME_MASK 0x0fffu

struct entry {
	const char *path; /* of `length`, without an end in older versions */
	size_t length;
	uint8_t fixed[FIXED_SIZE];
	uint16_t more; /* flags of version 3 */
};

struct index {
	uint8_t *data;
	size_t size, at;
	uint32_t version, count;
	struct entry *entries;
};

static struct index old_index;

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put32(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 24);
	at[1] = (uint8_t)(value >> 16);
	at[2] = (uint8_t)(value >> 8);
	at[3] = (uint8_t)value;
}

static uint32_t flags_of(const struct entry *entry)
{
	const uint8_t *at = entry->fixed + STAT_SIZE + APPLY_ID_SIZE;

	return (uint32_t)at[0] << 8 | at[1];
}

static void __attribute__((noreturn)) broken(struct apply *apply)
{
	apply_fail(apply, 0, "%s/.git/index cannot be read", apply->workspace);
}

/* ---- reading ---- */

static void index_load(struct apply *apply, struct index *index)
{
	int fd = path_open(apply->git_fd, "index", O_RDONLY | O_NONBLOCK | O_NOCTTY, BENEATH);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		apply_fail(apply, fd < 0 ? -fd : EINVAL, "%s/.git/index", apply->workspace);
	}
	if (st.st_size < HEADER_SIZE + APPLY_ID_SIZE || (uint64_t)st.st_size > INDEX_MAX) {
		broken(apply);
	}
	index->size = (size_t)st.st_size;
	index->data = apply_alloc(apply, NULL, index->size, 1);
	while (index->at < index->size) {
		ssize_t got = read(fd, index->data + index->at, index->size - index->at);

		if (got <= 0) {
			broken(apply);
		}
		index->at += (size_t)got;
	}
	close(fd);
	index->size -= APPLY_ID_SIZE; /* its checksum */
	index->at = HEADER_SIZE;
	index->version = get32(index->data + 4);
	index->count = get32(index->data + 8);
	if (memcmp(index->data, "DIRC", 4) != 0 || index->version < 2 || index->version > 4 ||
		index->count > index->size / (FIXED_SIZE + 1)) {
		broken(apply);
	}
}

static const uint8_t *take(struct apply *apply, struct index *index, size_t length)
{
	const uint8_t *at = index->data + index->at;

	if (length > index->size - index->at) {
		broken(apply);
	}
	index->at += length;
	return at;
}

/* Version 4: how much of the last path goes, then what is added to it. */
static void read_prefixed(
	struct apply *apply, struct index *index, const struct entry *previous, struct entry *entry)
{
	uint8_t byte = *take(apply, index, 1);
	size_t strip = byte & 127, kept;
	const char *suffix;
	size_t length;
	char *path;

	while ((byte & 128) != 0 && strip < INDEX_MAX) {
		byte = *take(apply, index, 1);
		strip = ((strip + 1) << 7) | (byte & 127);
	}
	suffix = (const char *)index->data + index->at;
	length = strnlen(suffix, index->size - index->at);
	(void)take(apply, index, length + 1);
	if (strip > (previous != NULL ? previous->length : 0)) {
		broken(apply);
	}
	kept = previous != NULL ? previous->length - strip : 0;
	if (kept + length > APPLY_PATH_MAX) {
		broken(apply);
	}
	path = apply_alloc(apply, NULL, kept + length + 1, 1);
	if (kept > 0) {
		memcpy(path, previous->path, kept);
	}
	memcpy(path + kept, suffix, length + 1);
	entry->path = path;
	entry->length = kept + length;
}

static void read_entry(struct apply *apply, struct index *index, uint32_t i)
{
	struct entry *entry = &index->entries[i];
	size_t start = index->at;

	memcpy(entry->fixed, take(apply, index, FIXED_SIZE), FIXED_SIZE);
	entry->more = 0;
	if ((flags_of(entry) & FLAG_EXTENDED) != 0) {
		const uint8_t *more = take(apply, index, 2);

		entry->more = (uint16_t)(more[0] << 8 | more[1]);
	}
	if (index->version == 4) {
		read_prefixed(apply, index, i > 0 ? entry - 1 : NULL, entry);
		return;
	}
	entry->path = (const char *)index->data + index->at;
	entry->length = strnlen(entry->path, index->size - index->at);
	/* Zeros up to a multiple of eight, one at least. */
	(void)take(apply, index,
		((index->at - start + entry->length + 8) & ~(size_t)7) - (index->at - start));
}

/* An extension that may not be ignored changes what the entries mean: a split or sparse index. */
static void check_extensions(struct apply *apply, struct index *index)
{
	while (index->size - index->at >= 8) {
		const uint8_t *head = take(apply, index, 8);

		if (head[0] < 'A' || head[0] > 'Z') {
			apply_fail(apply, 0,
				"%s has a split or sparse index, which hob cannot change",
				apply->workspace);
		}
		(void)take(apply, index, get32(head + 4));
	}
}

static void index_read(struct apply *apply, struct index *index)
{
	index_load(apply, index);
	index->entries = apply_alloc(apply, NULL, index->count + 1, sizeof(*index->entries));
	for (uint32_t i = 0; i < index->count; i++) {
		read_entry(apply, index, i);
	}
	check_extensions(apply, index);
}

/* ---- putting together ---- */

static int compare(const struct entry *entry, const struct apply_change *change)
{
	size_t shorter = entry->length < change->length ? entry->length : change->length;
	int order = memcmp(entry->path, change->path, shorter);

	return order != 0 ? order
			  : (entry->length > change->length) - (entry->length < change->length);
}

static bool is_at(const struct entry *entry, uint32_t mode, const uint8_t id[APPLY_ID_SIZE])
{
	return get32(entry->fixed + 24) == mode &&
	       memcmp(entry->fixed + STAT_SIZE, id, APPLY_ID_SIZE) == 0 &&
	       (flags_of(entry) & FLAG_STAGE) == 0;
}

/* What the index says of a path that changes: NULL when nothing. */
static void check_entry(
	struct apply *apply, const struct entry *entry, const struct apply_change *change)
{
	const struct apply_record *record = &change->record;
	bool fine = entry == NULL ? record->old_mode == 0 || record->new_mode == 0
				  : (record->old_mode != 0 &&
					    is_at(entry, record->old_mode, record->old_id)) ||
					    (record->new_mode != 0 &&
						    is_at(entry, record->new_mode, record->new_id));

	if (!fine) {
		apply_conflict(apply, change->path);
	}
}

static void entry_make(struct apply *apply, const struct apply_change *change, struct entry *entry)
{
	uint32_t flags = change->length < NAME_MASK ? (uint32_t)change->length : NAME_MASK;
	uint8_t *end = entry->fixed + STAT_SIZE + APPLY_ID_SIZE;

	*entry = (struct entry){.path = change->path, .length = change->length};
	if (change->staged != 0) {
		struct stat st;
		char name[16];

		apply_staged_name(change->staged, name);
		if (fstatat(apply->staging_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			apply_fail(apply, errno, "look at what is staged for %s", change->path);
		}
		put32(entry->fixed, (uint32_t)st.st_mtime);
		put32(entry->fixed + 8, (uint32_t)st.st_mtime);
		put32(entry->fixed + 36, (uint32_t)st.st_size);
	}
	put32(entry->fixed + 24, change->record.new_mode);
	memcpy(entry->fixed + STAT_SIZE, change->record.new_id, APPLY_ID_SIZE);
	end[0] = (uint8_t)(flags >> 8);
	end[1] = (uint8_t)flags;
}

/* The entries of before without those that change, and the new ones, in order. */
static struct entry *merge(struct apply *apply, const struct index *index, uint32_t *ret_count)
{
	struct entry *merged =
		apply_alloc(apply, NULL, index->count + apply->change_count + 1, sizeof(*merged));
	uint32_t from = 0, count = 0;

	for (size_t i = 0; i < apply->change_count; i++) {
		const struct apply_change *change = &apply->changes[i];
		const struct entry *found = NULL;

		while (from < index->count && compare(&index->entries[from], change) < 0) {
			merged[count++] = index->entries[from++];
		}
		while (from < index->count && compare(&index->entries[from], change) == 0) {
			found = &index->entries[from++];
		}
		check_entry(apply, found, change);
		if (change->record.new_mode != 0) {
			entry_make(apply, change, &merged[count++]);
		}
	}
	while (from < index->count) {
		merged[count++] = index->entries[from++];
	}
	*ret_count = count;
	return merged;
}

/* ---- writing ---- */

struct output {
	int fd;
	struct apply_sha1 sha1;
	size_t length;
};

static void flush(struct apply *apply, struct output *out)
{
	size_t done = 0;

	while (done < out->length) {
		ssize_t put = write(out->fd, scratch + done, out->length - done);

		if (put < 0 && errno != EINTR) {
			apply_fail(apply, errno, "write .git/" LOCK_NAME);
		}
		done += put > 0 ? (size_t)put : 0;
	}
	out->length = 0;
}

static void put(struct apply *apply, struct output *out, const void *data, size_t length)
{
	apply_sha1_add(&out->sha1, data, length);
	if (length > sizeof(scratch) - out->length) {
		flush(apply, out);
	}
	memcpy(scratch + out->length, data, length);
	out->length += length;
}

static void put_entry(struct apply *apply, struct output *out, const struct entry *entry)
{
	static const uint8_t zeros[8];
	size_t size = FIXED_SIZE + entry->length;

	put(apply, out, entry->fixed, FIXED_SIZE);
	if ((flags_of(entry) & FLAG_EXTENDED) != 0) {
		const uint8_t more[2] = {(uint8_t)(entry->more >> 8), (uint8_t)entry->more};

		put(apply, out, more, sizeof(more));
		size += sizeof(more);
	}
	put(apply, out, entry->path, entry->length);
	put(apply, out, zeros, ((size + 8) & ~(size_t)7) - size);
}

static void index_write(struct apply *apply, int fd, const struct entry *entries, uint32_t count)
{
	struct output out = {.fd = fd};
	uint8_t header[HEADER_SIZE] = "DIRC", id[APPLY_ID_SIZE];
	uint32_t version = 2;

	for (uint32_t i = 0; i < count; i++) {
		version = (flags_of(&entries[i]) & FLAG_EXTENDED) != 0 ? 3 : version;
	}
	put32(header + 4, version);
	put32(header + 8, count);
	apply_sha1_start(&out.sha1);
	put(apply, &out, header, sizeof(header));
	for (uint32_t i = 0; i < count; i++) {
		put_entry(apply, &out, &entries[i]);
	}
	apply_sha1_end(&out.sha1, id);
	put(apply, &out, id, sizeof(id));
	flush(apply, &out);
}

/* The second name tells a later sync, should this one be killed, that the lock is not git's. */
static int lock_make(struct apply *apply)
{
	int fd = openat(apply->git_fd, LOCK_NAME,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0) {
		apply_fail(apply, errno == EEXIST ? 0 : errno,
			errno == EEXIST ? "git is at work in %s, or was killed (.git/index.lock)"
					: "lock the index of %s",
			apply->workspace);
	}
	if (linkat(apply->git_fd, LOCK_NAME, apply->staging_fd, OWN_LOCK, 0) < 0) {
		int sys = errno;

		(void)unlinkat(apply->git_fd, LOCK_NAME, 0);
		apply_fail(apply, sys, "lock the index of %s", apply->workspace);
	}
	apply->index_locked = true;
	return fd;
}

void apply_index_stage(struct apply *apply)
{
	int fd = lock_make(apply);
	struct entry *merged;
	uint32_t count;

	index_read(apply, &old_index);
	merged = merge(apply, &old_index, &count);
	if (apply->conflicts == 0) {
		index_write(apply, fd, merged, count);
	}
	close(fd);
}

void apply_index_commit(struct apply *apply)
{
	if (renameat(apply->git_fd, LOCK_NAME, apply->git_fd, "index") < 0) {
		apply_fail(apply, errno, "place the index of %s", apply->workspace);
	}
	apply->index_locked = false;
}
