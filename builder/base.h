/*
 * Bases: the lowest layer of an image. Each has a step_key of what it is made from, by which all
 * environments with the same base share one layer.
 *
 *     host      a skeleton; the launcher adds this machine's /usr, read-only
 *     tar       an archive, unpacked with the owners it names
 *     scratch   the mount points only
 *     oci       the mount points, and each layer of a container image (builder/bases/oci.h)
 *     deb       a minimal Debian of one date (builder/bases/deb.h)
 */
#ifndef HOB_BUILDER_BASE_H
#define HOB_BUILDER_BASE_H

#include "base/error.h"
#include "base/memory.h"

#include <stdint.h>

struct environment;
struct layer;
struct machine;
struct range;

/* The key of an environment's base as it would be made now, into key[65]. */
MUSTCHECK int base_key(const struct environment *environment, char *key, struct error *err);

/* What people call it: "host", "deb:bookworm@20240601T000000Z". The caller owns it. */
char *base_text(const struct environment *environment);
/* Finds the layer or makes it. tar_fd: the archive, opened by somebody who may; -1 for a url. Takes
 * a range of ids when the archive needs one. */
MUSTCHECK int base_prepare(struct machine *machine, const struct environment *environment,
	const char *key, int tar_fd, struct range *range, struct layer *ret_layer,
	struct error *err);

/* The layer of `scratch`, for below others. */
MUSTCHECK int base_skeleton(
	struct machine *machine, struct range *range, struct layer *ret_layer, struct error *err);

/* ---- skeletons ---- */

/* Mount points and folders that every sandbox needs, made where they are missing. ERROR_INVALID
 * when something else is in their place. */
MUSTCHECK int skeleton_write(int tree_fd, struct error *err);
/* The skeleton of `host`, from the machine whose root is root_fd. */
MUSTCHECK int skeleton_host_write(int root_fd, int tree_fd, struct error *err);
/* What skeleton_host_write would read: names, modes, sizes, times. Into key[65]. */
MUSTCHECK int skeleton_host_key(int root_fd, char *key, struct error *err);
/* The text of an npmrc without what may be a credential; free() it. Returns the lines left out. */
size_t skeleton_npmrc(const char *text, char **ret_text);

#endif
