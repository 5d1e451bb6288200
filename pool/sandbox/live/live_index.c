/*
 * What a live copy remembers: a tree of entries in one array, found by folder and name through a
 * hash table of numbers. Entries are not freed one by one; a removed one is only out of reach. All
 * of it is sized by the sandbox, so everything has a cap.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/memory.h"

#include <xxhash.h>

#define BUCKETS_FIRST 1024
#define SHARES_FIRST 256
/* Offsets of names are 32 bits. */
#define NAMES_MAX (2U * 1024 * 1024 * 1024)

void live_index_init(struct live_index *index)
{
	struct live_entry *root;

	*index = (struct live_index){.bucket_count = BUCKETS_FIRST};
	index->buckets = xmalloc(BUCKETS_FIRST * sizeof(*index->buckets));
	memset(index->buckets, 0xff, BUCKETS_FIRST * sizeof(*index->buckets));
	root = array_add(&index->entries, &index->count, &index->room);
	*root = (struct live_entry){.parent = LIVE_NONE,
		.child = LIVE_NONE,
		.next = LIVE_NONE,
		.chain = LIVE_NONE,
		.flags = LIVE_FOLDER};
	index->names = xcalloc(1, 1);
	index->names_length = index->names_room = 1;
}

void live_index_done(struct live_index *index)
{
	free(index->entries);
	free(index->names);
	free(index->buckets);
}

static uint32_t hash_of(uint32_t parent, const char *name)
{
	return (uint32_t)XXH3_64bits_withSeed(name, strlen(name), parent);
}

const char *live_index_name(const struct live_index *index, uint32_t entry)
{
	return index->names + index->entries[entry].name;
}

uint32_t live_index_find(const struct live_index *index, uint32_t parent, const char *name)
{
	uint32_t hash = hash_of(parent, name);
	uint32_t at = index->buckets[hash & (index->bucket_count - 1)];

	while (at != LIVE_NONE) {
		const struct live_entry *entry = &index->entries[at];

		if (entry->hash == hash && entry->parent == parent &&
			streq(index->names + entry->name, name)) {
			return at;
		}
		at = entry->chain;
	}
	return LIVE_NONE;
}

static void buckets_grow(struct live_index *index)
{
	size_t count = index->bucket_count * 2;

	index->buckets = xreallocarray(index->buckets, count, sizeof(*index->buckets));
	memset(index->buckets, 0xff, count * sizeof(*index->buckets));
	index->bucket_count = count;
	for (uint32_t i = 1; i < index->count; i++) {
		struct live_entry *entry = &index->entries[i];
		uint32_t *bucket = &index->buckets[entry->hash & (count - 1)];

		/* A removed one has no parent. */
		if (entry->parent != LIVE_NONE) {
			entry->chain = *bucket;
			*bucket = i;
		}
	}
}

static int name_add(struct live_index *index, const char *name, uint32_t *ret_at, struct error *err)
{
	size_t size = strlen(name) + 1;

	if (size > NAMES_MAX - index->names_length) {
		return error_set(err, ERROR_LIMIT, "more than 2 GiB of file names");
	}
	if (size > index->names_room - index->names_length) {
		index->names_room = index->names_room * 2 + size;
		index->names = xrealloc(index->names, index->names_room);
	}
	memcpy(index->names + index->names_length, name, size);
	*ret_at = (uint32_t)index->names_length;
	index->names_length += size;
	return 0;
}

int live_index_add(struct live_index *index, uint32_t parent, const char *name, uint32_t *ret_entry,
	struct error *err)
{
	uint32_t number = (uint32_t)index->count, at = 0, *bucket;
	struct live_entry *entry;

	if (index->count >= LIVE_ENTRIES_MAX) {
		error_set(err, ERROR_LIMIT, "more than %u changed files", LIVE_ENTRIES_MAX);
		return error_hint(err, "delete what need not be kept, or end the sandbox first");
	}
	if (name_add(index, name, &at, err) < 0) {
		return -(int)err->kind;
	}
	if (index->count >= index->bucket_count) {
		buckets_grow(index);
	}
	entry = array_add(&index->entries, &index->count, &index->room);
	*entry = (struct live_entry){
		.parent = parent, .child = LIVE_NONE, .name = at, .hash = hash_of(parent, name)};
	bucket = &index->buckets[entry->hash & (index->bucket_count - 1)];
	entry->chain = *bucket;
	*bucket = number;
	entry->next = index->entries[parent].child;
	index->entries[parent].child = number;
	*ret_entry = number;
	return 0;
}

/* What lies below it is out of reach, as no other entry will ever have its number. */
void live_index_remove(struct live_index *index, uint32_t *link)
{
	uint32_t number = *link;
	struct live_entry *entry = &index->entries[number];
	uint32_t *chain = &index->buckets[entry->hash & (index->bucket_count - 1)];

	while (*chain != number) {
		chain = &index->entries[*chain].chain;
	}
	*chain = entry->chain;
	*link = entry->next;
	entry->parent = LIVE_NONE;
}

/* ---- inodes with several names ---- */

static struct live_shared *share_slot(const struct live_shares *shares, uint64_t inode)
{
	size_t at = (size_t)XXH3_64bits(&inode, sizeof(inode)) & (shares->room - 1);

	while (shares->slots[at].inode != 0 && shares->slots[at].inode != inode) {
		at = (at + 1) & (shares->room - 1);
	}
	return &shares->slots[at];
}

struct live_shared *live_shares_find(const struct live_shares *shares, uint64_t inode)
{
	struct live_shared *slot = shares->room > 0 ? share_slot(shares, inode) : NULL;

	return slot != NULL && slot->inode == inode ? slot : NULL;
}

static void shares_grow(struct live_shares *shares)
{
	struct live_shares old = *shares;

	shares->room = old.room > 0 ? old.room * 2 : SHARES_FIRST;
	shares->slots = xcalloc(shares->room, sizeof(*shares->slots));
	for (size_t i = 0; i < old.room; i++) {
		if (old.slots[i].inode != 0) {
			*share_slot(shares, old.slots[i].inode) = old.slots[i];
		}
	}
	free(old.slots);
}

struct live_shared *live_shares_put(struct live_shares *shares, uint64_t inode)
{
	struct live_shared *slot = live_shares_find(shares, inode);

	if (slot != NULL) {
		return slot;
	}
	if (shares->count * 2 >= shares->room) {
		shares_grow(shares);
	}
	shares->count++;
	slot = share_slot(shares, inode);
	slot->inode = inode;
	return slot;
}
