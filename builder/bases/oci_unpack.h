/* Blobs in downloads/ become layers of the store. */
#ifndef HOB_BUILDER_BASES_OCI_UNPACK_H
#define HOB_BUILDER_BASES_OCI_UNPACK_H

#include "builder/bases/oci_image.h"
#include "snapshots/store.h"

struct machine;
struct range;

struct oci_unpacking {
	struct machine *machine;
	struct range *range;
	int folder_fd; /* downloads/ */
	uint64_t bytes_max; /* of all together; 0: no limit */
	uint64_t bytes; /* so far */
};

/* The key of one blob as a layer of its own, and of the first `count` in one. Into key[65]. */
void oci_layer_key(const struct oci_blob *blob, char *key);
void oci_merged_key(const struct oci_image *image, size_t count, char *key);

/* Unpacks the layers whose index is listed, two at a time, and keeps them. *ret_needs_below: how
 * many from the lowest on must be put into one, because of one that does not stand by itself; 0:
 * all is done. */
MUSTCHECK int oci_unpack(struct oci_unpacking *unpacking, const struct oci_image *image,
	const size_t *indices, size_t count, size_t *ret_needs_below, struct error *err);
/* The first `count` layers as one. */
MUSTCHECK int oci_unpack_merged(struct oci_unpacking *unpacking, const struct oci_image *image,
	size_t count, struct error *err);

#endif
