/*
 * `base: deb:…`: a minimal Debian (what is essential, and apt), made by mmdebstrap from an archive
 * as of one date. It runs as root of the build's range of ids in namespaces of its own, where it
 * sees this machine's /usr, the few files that every sandbox with base: host has, and its tree.
 */
#ifndef HOB_BUILDER_BASES_DEB_H
#define HOB_BUILDER_BASES_DEB_H

#include "base/digest.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct child;
struct environment;
struct layer;
struct machine;
struct range;
struct staging;

/* What its layer depends on, as a text for the key. The caller owns it. */
char *deb_base_text(const struct environment *environment);
/* Fills staging's tree, and writes the list of what is installed beside it. ERROR_UNAVAILABLE: no
 * mmdebstrap here; ERROR_REMOTE: the mirror cannot be reached, or has no such suite;
 * ERROR_CORRUPT: not signed as it should be; ERROR_CONFLICT: the mirror is newer than the date;
 * ERROR_NO_SPACE: over limits.disk. */
MUSTCHECK int deb_base_write(struct machine *machine, const struct environment *environment,
	struct staging *staging, struct range *range, struct layer *layer, struct error *err);

/* ---- deb_room.c: where mmdebstrap runs ---- */

#define DEB_ROOM_TREE "/target" /* the layer's tree */
#define DEB_ROOM_KEYRING "/etc/apt/keyrings/hob-base.gpg" /* when one was given */
#define DEB_ROOM_WORK "/work" /* the scripts, and what they write */

struct deb_script {
	const char *name, *text;
};

struct deb_room {
	int tree_fd;
	const struct deb_script *scripts; /* in DEB_ROOM_WORK */
	size_t script_count;
	const char *keyring; /* its bytes; NULL: Debian's, of /usr */
	size_t keyring_length;
};

/* Makes the calling process see the room only. It is root of a user namespace, which owns the new
 * namespaces; its children are in a new process namespace. */
MUSTCHECK int deb_room_enter(const struct deb_room *room, struct error *err);

/* ---- deb_run.c: in the room ---- */

struct deb_run {
	char *const *argv;
	char *const *env;
	int tree_fd;
	uint64_t bytes_max; /* of the tree, in use; 0: no limit */
};

/* Runs it to its end; each line of its output is one of the child's. ERROR_FAILED and the others
 * of deb_base_write, by what it said. */
MUSTCHECK int deb_run(struct child *child, const struct deb_run *run, struct error *err);
/* "Sat, 11 Jul 2026 10:16:37 UTC", as a release has it, is not after the date? ERROR_CONFLICT,
 * ERROR_CORRUPT. */
MUSTCHECK int deb_check_release(const char *release, const char *date, struct error *err);

#endif
