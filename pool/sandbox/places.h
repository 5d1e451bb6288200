/*
 * The launcher's own mount namespace: an almost empty tmpfs with the few things that sandboxes are
 * made of, so that cloning it is cheap and no host path is in reach. Everything under untrusted
 * influence is opened from these descriptors.
 */
#ifndef HOB_POOL_SANDBOX_PLACES_H
#define HOB_POOL_SANDBOX_PLACES_H

#include "base/error.h"

struct config;

#define PLACE_DEV "/dev" /* the template of every sandbox's /dev, never written after start */
#define PLACE_EMPTY "/empty" /* masks folders, and is /sys */
#define PLACE_USR "/usr" /* the host's, read-only */
#define PLACE_ROOT "/root" /* where a sandbox's root is put together, in its own namespace */
#define PLACE_OWN_PROC                                                                             \
	"/own-proc" /* where its /proc and /dev are put together until it is there                 \
		     */
#define PLACE_OWN_DEV "/own-dev"
#define PLACE_SCRATCH "/scratch" /* for mounts that only the old mount(2) can make */
#define PLACE_RESOLV                                                                               \
	"/resolv.conf" /* a copy of the host's, for sandboxes that share its network               \
			*/

struct places {
	int host_mounts_fd; /* the mount namespace we came from */
	int host_root_fd; /* and its root */
	int layers_fd, sandboxes_fd, staging_fd, spares_fd; /* of the store */
	int run_fd; /* <run>/sandboxes */
	int usr_fd; /* PLACE_USR; -1: the host has no /usr that can be id-mapped */
	int null_fd; /* /dev/null for standard streams */
};

#define PLACES_INIT                                                                                \
	((struct places){.host_mounts_fd = -1,                                                     \
		.host_root_fd = -1,                                                                \
		.layers_fd = -1,                                                                   \
		.sandboxes_fd = -1,                                                                \
		.staging_fd = -1,                                                                  \
		.spares_fd = -1,                                                                   \
		.run_fd = -1,                                                                      \
		.usr_fd = -1,                                                                      \
		.null_fd = -1})

/* Makes the folders of the store and of run that are missing, owned by config->user. As root. */
MUSTCHECK int places_make(const struct config *config, struct error *err);
/* Moves the calling process there. */
MUSTCHECK int places_enter(
	const struct config *config, struct places *ret_places, struct error *err);
/* Brings PLACE_RESOLV up to date. */
MUSTCHECK int places_resolv(const struct places *places, struct error *err);

#endif
