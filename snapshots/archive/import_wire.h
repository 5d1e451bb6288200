/* What the child that parses an archive tells the process that writes: fixed heads, each followed
 * by as many bytes as it says. The reader trusts none of it. */
#ifndef HOB_SNAPSHOTS_IMPORT_WIRE_H
#define HOB_SNAPSHOTS_IMPORT_WIRE_H

#include "base/error.h"

#include <stdint.h>

#define IMPORT_PATH_MAX 4096
#define IMPORT_XATTRS_MAX (1024 * 1024) /* of one entry */
#define IMPORT_DATA_MAX (1024 * 1024) /* in one piece */

enum import_kind { IMPORT_ENTRY = 1, IMPORT_DATA, IMPORT_END, IMPORT_FAILED };

struct import_head {
	uint32_t kind;
	uint32_t mode; /* IMPORT_ENTRY from here on; with the type */
	int64_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t major, minor;
	uint32_t is_hardlink; /* the link is an earlier path, not a symbolic link's target */
	uint64_t size;
	uint64_t offset; /* IMPORT_DATA: where the piece belongs */
	uint32_t path_length; /* then the path, */
	uint32_t link_length; /* the link, */
	uint32_t xattr_length; /* and attributes: name\0, u32 size, value, each */
	uint32_t data_length; /* IMPORT_DATA: then the piece. IMPORT_FAILED: a struct error */
};

/* In the child: parses the archive at `fd` and writes to `out` until the end. Never fails by
 * itself: what is wrong goes over the wire. */
void import_parse(int fd, int out);

#endif
