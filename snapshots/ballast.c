/* A file that only takes up room. On a full disk it is given up, so that the catalog can still be
 * written to while something is deleted; afterwards it is made again. Without it a full disk could
 * not be emptied: removing an image starts with a transaction. */
#include "snapshots/store_private.h"

#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <sys/stat.h>

#define BALLAST_FILE "ballast"
/* The catalog's shared memory, and a WAL that holds the largest transaction of a removal. */
#define BALLAST_BYTES ((off_t)4 << 20)

void ballast_make(int store_fd)
{
	CLEANUP(close_p) int fd = -1;
	struct error err = ERROR_INIT;
	struct stat status;

	if (fstatat(store_fd, BALLAST_FILE, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		status.st_size == BALLAST_BYTES) {
		return;
	}
	fd = io_open(store_fd, BALLAST_FILE, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600, &err);
	if (fd >= 0 && posix_fallocate(fd, 0, BALLAST_BYTES) != 0) {
		(void)!unlinkat(store_fd, BALLAST_FILE, 0); /* no room: half of it is of no use */
	}
}

bool ballast_release(int store_fd)
{
	bool released = unlinkat(store_fd, BALLAST_FILE, 0) == 0;

	if (released) {
		log_warn("store.disk_full", "released", "ballast");
	}
	return released;
}
