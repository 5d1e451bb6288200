/*
 * `base: oci:…`: a container image as layers of hob, found by the digests of its blobs, so that
 * images share them. A layer that does not stand by itself (hard links into lower layers, folders
 * that it does not describe, a folder emptied at its root) is put into one with all below it.
 */
#ifndef HOB_BUILDER_BASES_OCI_H
#define HOB_BUILDER_BASES_OCI_H

#include "builder/bases/oci_image.h"
#include "snapshots/store.h"

struct environment;
struct machine;
struct range;

#define OCI_BASE_LAYERS_MAX 12 /* those below are put into one, so that the chain stays short */

struct oci_base {
	struct layer layers[OCI_BASE_LAYERS_MAX]; /* the lowest first */
	size_t layer_count;
	size_t made; /* of them, now */
	struct oci_image image;
};

/* oci_resolve.c: the digest that a base without one stands for now, into sha256[]. local_fd: of a
 * layout, opened by somebody who may; else -1. */
MUSTCHECK int oci_base_resolve(struct machine *machine, const struct environment *environment,
	int local_fd, char *sha256, struct error *err);
/* ERROR_INVALID for a base that is not pinned: with file and line, and if the registry answers, the
 * digest that it has now. */
MUSTCHECK int oci_base_check(
	struct machine *machine, const struct environment *environment, struct error *err);
/* resolve_main.c: hob-build --resolve-base. */
int resolve_main(int argc, char **argv);
/* Finds or makes its layers. ERROR_NOT_FOUND, ERROR_DENIED, ERROR_REMOTE, ERROR_UNSUPPORTED (made
 * for another machine), ERROR_LIMIT over limits.disk, ERROR_CORRUPT, ERROR_INVALID (hostile). */
MUSTCHECK int oci_base_prepare(struct machine *machine, const struct environment *environment,
	int local_fd, struct range *range, struct oci_base *ret_base, struct error *err);

/* What there is of it, without asking anybody: its image and the layers found; *ret_missing, of how
 * many blobs there are none. ERROR_NOT_FOUND: nobody has read its manifest yet. */
MUSTCHECK int oci_base_look(struct machine *machine, const struct environment *environment,
	struct oci_base *ret_base, size_t *ret_missing, struct error *err);

/* A shallow copy of `from` in which what it leaves open is as the image says: variables that it
 * does not set, and its user and workdir. oci_defaults_done frees what the copy owns. */
void oci_defaults(
	const struct oci_image *image, const struct environment *from, struct environment *ret_own);
void oci_defaults_done(struct environment *own);

#endif
