/*
 * Where the blobs of an image come from: a registry by the distribution API, or an image layout (a
 * folder, or a tar archive of one). Used in a child. What it brings is in downloads/ by its digest,
 * which was checked on the way.
 */
#ifndef HOB_BUILDER_BASES_OCI_SOURCE_H
#define HOB_BUILDER_BASES_OCI_SOURCE_H

#include "base/buffer.h"
#include "builder/bases/oci_image.h"
#include "configs/oci_reference.h"

struct child;
struct oci_source;

struct oci_place {
	const struct oci_reference *reference;
	const char *user, *password; /* for the registry; NULL: nobody */
	int local_fd; /* of a layout: its folder or archive; else -1 */
	int folder_fd; /* downloads/; -1: only oci_source_resolve */
};

MUSTCHECK int oci_source_open(struct child *child, const struct oci_place *place,
	struct oci_source **ret_source, struct error *err);
void oci_source_close(struct oci_source *source);
DEFINE_CLEANUP(oci_source_close_p, struct oci_source, oci_source_close)

/* Has it in downloads/, of bytes_max bytes at the most. manifest: it is one, which registries keep
 * elsewhere. */
MUSTCHECK int oci_source_bring(struct oci_source *source, const char *sha256, bool manifest,
	uint64_t bytes_max, struct error *err);
/* The digest that the reference's tag stands for now, or that of the only image in a layout, into
 * sha256[]. */
MUSTCHECK int oci_source_resolve(struct oci_source *source, char *sha256, struct error *err);

/* ---- oci_archive.c ---- */
/* A descriptor with the bytes of a file in the tar archive place->local_fd, whatever they are.
 * ERROR_NOT_FOUND. */
MUSTCHECK int oci_archive_file(struct child *child, const struct oci_place *place, const char *path,
	uint64_t bytes_max, int *ret_fd, struct error *err);

#endif
