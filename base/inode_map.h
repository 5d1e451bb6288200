/* What is known of files with several names, by their inode. */
#ifndef HOB_BASE_INODE_MAP_H
#define HOB_BASE_INODE_MAP_H

#include <stddef.h>
#include <sys/types.h>

/* {0} is an empty one. */
struct inode_map {
	struct inode_map_slot *slots; /* open addressing; `room` is a power of two */
	size_t count, room;
};

/* The place of an inode's value, NULL until it is set; good until the next call. */
void **inode_map_at(struct inode_map *map, dev_t device, ino_t inode);
/* `free_value` of each value that is set, if it is not NULL. */
void inode_map_done(struct inode_map *map, void (*free_value)(void *value));

#endif
