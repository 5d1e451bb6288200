/*
 * Where objects lie in the packs of a workspace. Objects that are kept as differences from one
 * another lie side by side, so reading them in this order applies each difference once. It is
 * advice only: an index of a pack that cannot be read gives none, and objects are found without.
 */
#include "builder/git/git_internal.h"

#include "base/io.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Version 2: magic, version, 256 counts, then the ids, their checksums, their offsets. */
#define FANOUT_AT 8
#define IDS_AT (FANOUT_AT + 256 * 4)
#define BYTES_PER_OBJECT 28
#define TRAILER_SIZE 40
#define PACK_SHIFT 48

struct pack_index {
	const unsigned char *data;
	size_t size;
	uint32_t count;
};

struct git_pack_order {
	struct pack_index *packs;
	size_t count, room;
};

static uint32_t number_at(const struct pack_index *pack, size_t at)
{
	uint32_t number;

	memcpy(&number, pack->data + at, sizeof(number));
	return ntohl(number);
}

static void add_pack(struct git_pack_order *order, int dir_fd, const char *name)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(close_p) int fd = io_open(dir_fd, name, O_RDONLY, 0, &ignored);
	struct pack_index pack = {0};
	struct stat seen;
	void *data;

	if (fd < 0 || fstat(fd, &seen) < 0 || seen.st_size < IDS_AT + TRAILER_SIZE) {
		return;
	}
	pack.size = (size_t)seen.st_size;
	data = mmap(NULL, pack.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		return;
	}
	pack.data = data;
	pack.count = number_at(&pack, IDS_AT - 4);
	if (memcmp(pack.data, "\377tOc\0\0\0\2", FANOUT_AT) != 0 ||
		pack.count > (pack.size - IDS_AT - TRAILER_SIZE) / BYTES_PER_OBJECT) {
		munmap(data, pack.size);
		return;
	}
	*array_add(&order->packs, &order->count, &order->room) = pack;
}

struct git_pack_order *git_pack_order_new(const char *folder)
{
	struct git_pack_order *order = xcalloc(1, sizeof(*order));
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, folder, &ignored);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		size_t length = strlen(entry->d_name);

		if (length > 4 && streq(entry->d_name + length - 4, ".idx")) {
			add_pack(order, dirfd(dir), entry->d_name);
		}
	}
	return order;
}

void git_pack_order_free(struct git_pack_order *order)
{
	for (size_t i = 0; order != NULL && i < order->count; i++) {
		munmap((void *)(uintptr_t)order->packs[i].data, order->packs[i].size);
	}
	if (order != NULL) {
		free(order->packs);
	}
	free(order);
}

static bool find_in(const struct pack_index *pack, const git_oid *id, uint64_t *ret_offset)
{
	uint32_t from = id->id[0] > 0 ? number_at(pack, FANOUT_AT + (id->id[0] - 1) * 4U) : 0;
	uint32_t to = number_at(pack, FANOUT_AT + id->id[0] * 4U);

	to = to < pack->count ? to : pack->count;
	while (from < to) {
		uint32_t middle = from + (to - from) / 2;
		int cmp = memcmp(id->id, pack->data + IDS_AT + (size_t)middle * GIT_OID_RAWSZ,
			GIT_OID_RAWSZ);

		if (cmp == 0) {
			/* Beyond 2 GiB it is a place in a further table, in the same order. */
			*ret_offset = number_at(
				pack, IDS_AT + (size_t)pack->count * 24 + (size_t)middle * 4);
			return true;
		}
		if (cmp < 0) {
			to = middle;
		} else {
			from = middle + 1;
		}
	}
	return false;
}

uint64_t git_pack_order_of(const struct git_pack_order *order, const git_oid *id)
{
	for (size_t i = 0; i < order->count; i++) {
		uint64_t offset = 0;

		if (find_in(order->packs + i, id, &offset)) {
			return (uint64_t)i << PACK_SHIFT | offset;
		}
	}
	return UINT64_MAX;
}
