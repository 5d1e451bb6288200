/* Reading the setting, and the file system against it. */
#include "configs/free_space.h"

#include "base/memory.h"
#include "base/text.h"
#include "configs/config.h"
#include "configs/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define PERCENT_MAX 50

bool free_space_parse(const char *text, int64_t *ret_bytes, int64_t *ret_percent)
{
	size_t digits = strspn(text, "0123456789");
	int64_t percent;

	*ret_bytes = *ret_percent = 0;
	if (text[digits] != '%') {
		return size_parse(text, ret_bytes);
	}
	percent = strtoll(text, NULL, 10);
	if (digits == 0 || digits > 2 || text[digits + 1] != '\0' || percent > PERCENT_MAX) {
		return false;
	}
	*ret_percent = percent;
	return true;
}

uint64_t free_in_sparse(uint64_t free, uint64_t size, uint64_t stored, uint64_t host_free)
{
	uint64_t holes = size > stored ? size - stored : 0;
	uint64_t behind = holes < host_free ? holes : host_free;
	uint64_t inside = free > holes ? free - holes : 0;

	return free < inside + behind ? free : inside + behind;
}

/* Of a store's own file system, in a sparse file. */
static uint64_t free_really(const char *folder, uint64_t free)
{
	CLEANUP(free_p) char *file = xasprintf(STORE_VOLUME_FORMAT, folder);
	struct stat about, inside;
	struct statvfs below;

	if (stat(file, &about) < 0 || stat(folder, &inside) < 0 || about.st_dev == inside.st_dev ||
		statvfs(file, &below) < 0) {
		return free;
	}
	return free_in_sparse(free, (uint64_t)about.st_size, (uint64_t)about.st_blocks * 512,
		(uint64_t)below.f_bavail * below.f_frsize);
}

int free_space_look(
	const char *folder, const char *setting, struct free_space *ret_space, struct error *err)
{
	struct free_space space = {0};
	int64_t bytes = 0, percent = 0;
	struct statvfs fs;

	if (statvfs(folder, &fs) < 0) {
		return error_sys(err, errno, "look for free space at %s", folder);
	}
	if (!free_space_parse(setting, &bytes, &percent)) {
		return error_set(
			err, ERROR_INVALID, "free_space is no share and no size: %s", setting);
	}
	space.total = (uint64_t)fs.f_blocks * fs.f_frsize;
	space.free = free_really(folder, (uint64_t)fs.f_bavail * fs.f_frsize);
	space.mark = percent > 0 ? space.total / 100 * (uint64_t)percent : (uint64_t)bytes;
	space.low = space.free < space.mark;
	*ret_space = space;
	return 0;
}

void free_space_text(const struct free_space *space, char *text)
{
	char free[TEXT_BYTES_SIZE], total[TEXT_BYTES_SIZE], mark[TEXT_BYTES_SIZE];

	text_bytes(free, space->free);
	text_bytes(total, space->total);
	text_bytes(mark, space->mark);
	snprintf(text, FREE_SPACE_TEXT_SIZE, "%s of %s free, %s than free_space (%s)", free, total,
		space->low ? "less" : "more", mark);
}

int free_space_check(const struct free_space *space, struct error *err)
{
	char text[FREE_SPACE_TEXT_SIZE];

	if (!space->low) {
		return 0;
	}
	free_space_text(space, text);
	error_set(err, ERROR_NO_SPACE, "the store's file system is too full: %s", text);
	return error_hint(err, "hob snapshots du shows what takes space, hob snapshots rm and hob "
			       "images rm free it");
}
