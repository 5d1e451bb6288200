/*
 * A snapshot as one file: a tar archive (pax, zstd). First comes hob-snapshot.json: environment,
 * reason, label, metadata, manifest, and the layers, lowest first, each with its digest and whether
 * it is in the archive. Then layers/<n>/…, the tree of layer n as it lies on disk: whiteouts are
 * devices 0:0, opaque folders have the attribute, owners count from 0.
 *
 * It holds nothing of this machine (no numbers of the catalog, no ids, no order of a folder), so
 * the same snapshot gives the same bytes. Attributes are in LIBARCHIVE.xattr headers, because a
 * name with "=" in it breaks SCHILY's; names are bytes (hdrcharset=BINARY).
 *
 * Rights: export reads with CAP_DAC_READ_SEARCH. Import parses in a child that is nobody and can do
 * nothing but read the archive and write to a socket; what comes out of it is checked again and
 * written beneath staging by this process, which may give files away but is not root.
 */
#ifndef HOB_SNAPSHOTS_ARCHIVE_H
#define HOB_SNAPSHOTS_ARCHIVE_H

#include "snapshots/snapshot.h"

#define ARCHIVE_HEADER_NAME "hob-snapshot.json"
#define ARCHIVE_HEADER_MAX (1024 * 1024)
#define IMPORT_ENTRIES_MAX 20000000ULL
#define IMPORT_BYTES_MAX (1ULL << 40) /* of files' data, unpacked */

/* To a descriptor. with_parents: all layers, else only its own. *ret_left_out: sockets, which an
 * archive cannot hold. */
MUSTCHECK int snapshot_export(struct store *store, const struct snapshot *snapshot,
	bool with_parents, int fd, uint64_t *ret_left_out, struct error *err);

/* A child that parses the archive at `fd`: nobody, when started by root, and without rights. So it
 * is started before anything else is opened and before root is given up. */
struct import_source {
	int wire;
	pid_t child;
};

#define IMPORT_SOURCE_INIT ((struct import_source){.wire = -1})

MUSTCHECK int import_source_open(int fd, struct import_source *ret_source, struct error *err);
void import_source_close(struct import_source *source);

/*
 * Unpacks, compares every layer with its digest, then commits. Layers that the
 * store has already are taken from it. New ones are owned from id_base on. ERROR_NOT_FOUND when a
 * layer is neither in the archive nor in the store; ERROR_INVALID names an entry that would leave
 * its place; ERROR_CORRUPT when a digest differs or the archive is damaged.
 */
MUSTCHECK int snapshot_import(struct store *store, struct import_source *source, int64_t id_base,
	struct snapshot *ret_snapshot, struct error *err);

#endif
