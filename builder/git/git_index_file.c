/*
 * git's index, format version 2, as plain bytes: an index of 70,000 entries is read by mapping it
 * and written in one piece, which costs libgit2 an allocation and a search for each entry. Entries
 * are sorted by path; extensions are not kept, git makes them anew. A delta's is stored whole, or
 * as the blocks that differ where the file system shares blocks; git's split index would be smaller
 * everywhere, but libgit2, JGit and go-git refuse it, and a sandbox is full of tools made of them.
 */
#include "builder/git/git_internal.h"

#include "base/digest.h"
#include "base/io.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HEADER_SIZE 12
#define TRAILER_SIZE 20
#define INDEX_VERSION 2
/* Of file systems that share blocks. */
#define CLONE_BLOCK 4096
#define NAME_MASK 0x0fff /* a longer path says this, and ends at its '\0' */
#define EXTENDED_FLAG 0x4000 /* of version 3 */

/* An entry as it lies in the file; its path follows, then one to eight '\0'. */
struct raw_entry {
	uint32_t ctime_s, ctime_ns, mtime_s, mtime_ns;
	uint32_t dev, ino, mode, uid, gid, size;
	unsigned char id[20];
	uint16_t flags;
	char path[];
} __attribute__((packed));
#define ENTRY_FIXED 62
static_assert(sizeof(struct raw_entry) == ENTRY_FIXED, "as git writes it");

static size_t entry_size(size_t path_length)
{
	return (ENTRY_FIXED + path_length + 8) & ~(size_t)7;
}

static const struct raw_entry *entry_at(const struct git_index_map *map, size_t position)
{
	return (const void *)(map->data + map->offsets[position]);
}

static int broken(struct error *err)
{
	return error_set(err, ERROR_CORRUPT, "an index of the store is damaged");
}

static int find_entries(struct git_index_map *map, struct error *err)
{
	size_t at = HEADER_SIZE, end = map->size - TRAILER_SIZE;

	for (size_t i = 0; i < map->count; i++) {
		const struct raw_entry *entry = (const void *)(map->data + at);
		size_t length;

		if (end - at < ENTRY_FIXED + 1 || (ntohs(entry->flags) & EXTENDED_FLAG) != 0) {
			return broken(err);
		}
		length = strnlen(entry->path, end - at - ENTRY_FIXED);
		if (length == 0 || length >= end - at - ENTRY_FIXED ||
			entry_size(length) > end - at) {
			return broken(err);
		}
		map->offsets[i] = (uint32_t)at;
		at += entry_size(length);
	}
	return 0;
}

int git_index_map_open(int fd, struct git_index_map *ret_map, struct error *err)
{
	struct git_index_map map = {0};
	struct stat seen;
	uint32_t header[3];
	void *data;
	int status;

	if (fstat(fd, &seen) < 0) {
		return error_sys(err, errno, "stat an index");
	}
	if (seen.st_size < HEADER_SIZE + TRAILER_SIZE || seen.st_size > UINT32_MAX) {
		return broken(err);
	}
	map.size = (size_t)seen.st_size;
	data = mmap(NULL, map.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		return error_sys(err, errno, "map an index");
	}
	map.data = data;
	memcpy(header, map.data, sizeof(header));
	map.count = ntohl(header[2]);
	if (memcmp(map.data, "DIRC", 4) != 0 || ntohl(header[1]) != INDEX_VERSION ||
		map.count > map.size / ENTRY_FIXED) {
		git_index_map_done(&map);
		return broken(err);
	}
	map.offsets = xcalloc(map.count + 1, sizeof(*map.offsets));
	status = find_entries(&map, err);
	if (status < 0) {
		git_index_map_done(&map);
		return status;
	}
	*ret_map = map;
	return 0;
}

void git_index_map_done(struct git_index_map *map)
{
	if (map->data != NULL) {
		munmap((void *)(uintptr_t)map->data, map->size);
	}
	free(map->offsets);
	*map = (struct git_index_map){0};
}

void git_index_map_get(const struct git_index_map *map, size_t position, git_index_entry *ret_entry)
{
	const struct raw_entry *raw = entry_at(map, position);

	*ret_entry = (git_index_entry){.path = raw->path,
		.mode = ntohl(raw->mode),
		.file_size = ntohl(raw->size),
		.mtime = {(int32_t)ntohl(raw->mtime_s), ntohl(raw->mtime_ns)}};
	memcpy(ret_entry->id.id, raw->id, sizeof(raw->id));
}

bool git_index_map_find(
	const struct git_index_map *map, const char *path, git_index_entry *ret_entry)
{
	size_t from = 0, to = map->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		int order = strcmp(path, entry_at(map, middle)->path);

		if (order == 0) {
			git_index_map_get(map, middle, ret_entry);
			return true;
		}
		if (order < 0) {
			to = middle;
		} else {
			from = middle + 1;
		}
	}
	return false;
}

/* ---- writing ---- */

void git_index_out_init(struct git_index_out *out)
{
	static const char room[HEADER_SIZE];

	*out = (struct git_index_out){0};
	buffer_init(&out->bytes, 0);
	buffer_add(&out->bytes, room, sizeof(room));
}

void git_index_out_done(struct git_index_out *out)
{
	buffer_done(&out->bytes);
}

void git_index_out_add(struct git_index_out *out, const git_index_entry *entry)
{
	static const char zeros[8];
	size_t length = strlen(entry->path);
	struct raw_entry raw = {.ctime_s = htonl((uint32_t)entry->ctime.seconds),
		.ctime_ns = htonl(entry->ctime.nanoseconds),
		.mtime_s = htonl((uint32_t)entry->mtime.seconds),
		.mtime_ns = htonl(entry->mtime.nanoseconds),
		.mode = htonl(entry->mode),
		.size = htonl(entry->file_size),
		.flags = htons((uint16_t)(length < NAME_MASK ? length : NAME_MASK))};

	memcpy(raw.id, entry->id.id, sizeof(raw.id));
	buffer_add(&out->bytes, &raw, ENTRY_FIXED);
	buffer_add(&out->bytes, entry->path, length);
	buffer_add(&out->bytes, zeros, entry_size(length) - ENTRY_FIXED - length);
	out->count++;
}

void git_index_out_copy(struct git_index_out *out, const struct git_index_map *map, size_t position)
{
	const struct raw_entry *raw = entry_at(map, position);

	buffer_add(&out->bytes, raw, entry_size(strlen(raw->path)));
	out->count++;
}

/* The blocks that differ from what the file is a clone of; it has that one's length. */
static int write_changed(
	int fd, const struct buffer *bytes, const struct git_index_map *like, struct error *err)
{
	for (size_t at = 0, end; at < bytes->length; at = end) {
		size_t length;

		end = at + CLONE_BLOCK < bytes->length ? at + CLONE_BLOCK : bytes->length;
		length = end - at;
		if (end <= like->size && memcmp(bytes->data + at, like->data + at, length) == 0) {
			continue;
		}
		if (lseek(fd, (off_t)at, SEEK_SET) < 0) {
			return error_sys(err, errno, "write the index");
		}
		if (io_write_full(fd, bytes->data + at, length, err) < 0) {
			return -(int)err->kind;
		}
	}
	return ftruncate(fd, (off_t)bytes->length) < 0 ? error_sys(err, errno, "write the index")
						       : 0;
}

int git_index_out_write(
	struct git_index_out *out, const struct git_index_map *like, int like_fd, struct error *err)
{
	const uint32_t numbers[2] = {htonl(INDEX_VERSION), htonl(out->count)};
	CLEANUP(close_p)
	int fd = io_open(AT_FDCWD, ".git/index", O_WRONLY | O_CREAT | O_EXCL, 0644, err);
	unsigned char sum[SHA1_SIZE];

	if (fd < 0) {
		return fd;
	}
	memcpy(out->bytes.data, "DIRC", 4);
	memcpy(out->bytes.data + 4, numbers, sizeof(numbers));
	digest_sha1(out->bytes.data, out->bytes.length, sum);
	buffer_add(&out->bytes, sum, sizeof(sum));
	return like_fd >= 0 && ioctl(fd, FICLONE, like_fd) == 0
		       ? write_changed(fd, &out->bytes, like, err)
		       : io_write_full(fd, out->bytes.data, out->bytes.length, err);
}
