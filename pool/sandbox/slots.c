/*
 * The set is a ring of free slots: taken at its head, given back at its tail, so each rests for as
 * long as there are others. Build slots are locks on files, which no crash can leave taken.
 */
#include "pool/sandbox/slots.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/sandbox/privileges.h"
#include "pool/sandbox/sandbox.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

struct slot_set {
	uint32_t count;
	uint32_t *free; /* ring of `count` places */
	uint32_t head, free_count;
	bool *taken;
};

struct slot_set *slot_set_new(uint32_t count)
{
	struct slot_set *set = xcalloc(1, sizeof(*set));

	set->count = count;
	set->free_count = count;
	set->free = xcalloc(count > 0 ? count : 1, sizeof(*set->free));
	set->taken = xcalloc(count > 0 ? count : 1, sizeof(*set->taken));
	for (uint32_t i = 0; i < count; i++) {
		set->free[i] = i;
	}
	return set;
}

void slot_set_free(struct slot_set *set)
{
	if (set != NULL) {
		free(set->free);
		free(set->taken);
		free(set);
	}
}

int slot_take(struct slot_set *set, uint32_t *ret_slot, struct error *err)
{
	uint32_t slot;

	if (set->free_count == 0) {
		error_set(err, ERROR_LIMIT, "all %u ranges of user ids are in use", set->count);
		return error_hint(err, "raise id_slots and the range in /etc/subuid");
	}
	slot = set->free[set->head];
	set->head = (set->head + 1) % set->count;
	set->free_count--;
	set->taken[slot] = true;
	*ret_slot = slot;
	return 0;
}

bool slot_take_this(struct slot_set *set, uint32_t slot)
{
	uint32_t kept = 0;

	if (slot >= set->count || set->taken[slot]) {
		return false;
	}
	/* Closes the gap that it leaves in the ring. */
	for (uint32_t i = 0; i < set->free_count; i++) {
		uint32_t one = set->free[(set->head + i) % set->count];

		if (one != slot) {
			set->free[(set->head + kept++) % set->count] = one;
		}
	}
	set->free_count = kept;
	set->taken[slot] = true;
	return true;
}

void slot_give_back(struct slot_set *set, uint32_t slot)
{
	assert(slot < set->count && set->taken[slot]);
	set->taken[slot] = false;
	set->free[(set->head + set->free_count++) % set->count] = slot;
}

static int slot_lock(int folder_fd, uint32_t number, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	char name[16];

	snprintf(name, sizeof(name), "%u", number);
	fd = io_open(folder_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);
	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return errno == EWOULDBLOCK
			       ? error_set(err, ERROR_BUSY, "build slot %u is taken", number)
			       : error_sys(err, errno, "lock build slot %u", number);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int build_slot_take(const struct config *config, uint32_t preference, uint32_t *ret_slot,
	int *ret_lock_fd, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/slots", config->run);
	CLEANUP(close_p) int folder = -1;
	int64_t base;
	uint32_t slots;

	if (id_range_find(config, &base, &slots, err) < 0) {
		return -(int)err->kind;
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir %s", path);
	}
	folder = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);
	if (folder < 0) {
		return folder;
	}
	for (uint32_t i = 0; i < BUILD_SLOTS; i++) {
		uint32_t number = (preference % BUILD_SLOTS + i) % BUILD_SLOTS;
		int status = slot_lock(folder, number, ret_lock_fd, err);

		if (status == 0) {
			*ret_slot = slots - BUILD_SLOTS + number;
			return 0;
		}
		if (status != -ERROR_BUSY) {
			return status;
		}
	}
	return error_set(err, ERROR_BUSY, "all %d build slots are taken: as many steps run already",
		BUILD_SLOTS);
}
