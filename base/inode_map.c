/* A hash table that only grows. No file system gives out inode 0, so it marks a free slot. */
#include "base/inode_map.h"

#include "base/memory.h"

#define ROOM_FIRST 256

struct inode_map_slot {
	dev_t device;
	ino_t inode;
	void *value;
};

static struct inode_map_slot *find(const struct inode_map *map, dev_t device, ino_t inode)
{
	size_t at = (size_t)((inode ^ device) * 0x9e3779b97f4a7c15ULL >> 20) & (map->room - 1);

	while (map->slots[at].inode != 0 &&
		(map->slots[at].inode != inode || map->slots[at].device != device)) {
		at = (at + 1) & (map->room - 1);
	}
	return &map->slots[at];
}

static void grow(struct inode_map *map)
{
	struct inode_map larger = {.room = map->room > 0 ? map->room * 2 : ROOM_FIRST};

	larger.slots = xcalloc(larger.room, sizeof(*larger.slots));
	for (size_t i = 0; i < map->room; i++) {
		const struct inode_map_slot *slot = &map->slots[i];

		if (slot->inode != 0) {
			*find(&larger, slot->device, slot->inode) = *slot;
		}
	}
	larger.count = map->count;
	free(map->slots);
	*map = larger;
}

void **inode_map_at(struct inode_map *map, dev_t device, ino_t inode)
{
	struct inode_map_slot *slot;

	if (map->count * 2 >= map->room) {
		grow(map);
	}
	slot = find(map, device, inode);
	map->count += slot->inode == 0;
	slot->device = device;
	slot->inode = inode;
	return &slot->value;
}

void inode_map_done(struct inode_map *map, void (*free_value)(void *value))
{
	for (size_t i = 0; free_value != NULL && i < map->room; i++) {
		if (map->slots[i].value != NULL) {
			free_value(map->slots[i].value);
		}
	}
	free(map->slots);
	*map = (struct inode_map){0};
}
