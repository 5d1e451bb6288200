/*
 * Unpacks a tar archive (plain, gzip, bzip2, xz, lz4, zstd) so that every entry stays inside a
 * folder. hob-build calls it in a child that is confined to that folder and to a range of ids
 * besides; what is promised here holds without that too.
 */
#ifndef HOB_BUILDER_ARCHIVE_H
#define HOB_BUILDER_ARCHIVE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct child;

#define ARCHIVE_ENTRIES_MAX 10000000ULL /* more files than any distribution has */
#define ARCHIVE_BYTES_MAX                                                                          \
	(256ULL * 1024 * 1024 * 1024) /* unpacked, when the caller says nothing                    \
				       */
#define ARCHIVE_NOBODY 65534

/* A layer of a container image: .wh.NAME and .wh..wh..opq say what is not there any more. */
enum archive_form {
	ARCHIVE_PLAIN,
	ARCHIVE_LAYER, /* they become whiteouts of overlayfs; opaque folders are listed */
	ARCHIVE_CLEAR, /* what they name is deleted, and nothing else is done */
	ARCHIVE_OVER, /* they are passed over: ARCHIVE_CLEAR has been there */
};

struct archive_options {
	enum archive_form form;
	int opaque_fd; /* ARCHIVE_LAYER: a file that opaque folders are added to, each with '\0' */
	bool owners; /* give entries their owners (needs the rights); else all are the caller's */
	uint64_t bytes_max; /* unpacked; 0: ARCHIVE_BYTES_MAX */
	int64_t ids; /* owners at or above become ARCHIVE_NOBODY; 0: no limit */
};

struct archive_counts {
	uint64_t entries, bytes;
	uint64_t devices; /* device nodes and sockets, left out */
	uint64_t foreign; /* owners beyond the range, now nobody's */
	uint64_t opaque; /* folders */
	/* ARCHIVE_LAYER: it does not stand by itself. It holds a hard link to a file of a lower
	 * layer, or a folder of which nothing is said. What was unpacked is to be thrown away. */
	bool needs_below;
};

/*
 * Reads the archive from fd into the folder tree_fd, which becomes the working folder.
 * ERROR_INVALID names the entry: absolute, with "..", through a symbolic link, or a hard link to
 * such; ERROR_LIMIT over a cap; ERROR_CORRUPT when it is damaged, cut or no archive. `child` may be
 * NULL.
 */
MUSTCHECK int archive_unpack(int fd, int tree_fd, const struct archive_options *options,
	struct child *child, struct archive_counts *ret_counts, struct error *err);

#endif
