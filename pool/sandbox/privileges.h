/* Who hob is when it is not root. */
#ifndef HOB_POOL_SANDBOX_PRIVILEGES_H
#define HOB_POOL_SANDBOX_PRIVILEGES_H

#include "base/error.h"

#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

struct config;

/* config->user and its own group; ERROR_NOT_FOUND with what to do. */
MUSTCHECK int user_find(
	const struct config *config, uid_t *ret_uid, gid_t *ret_gid, struct error *err);
/* First id of the sandboxes and how many slots of ID_RANGE fit: config->id_base, or the range that
 * /etc/subuid gives config->user. */
MUSTCHECK int id_range_find(
	const struct config *config, int64_t *ret_base, uint32_t *ret_slots, struct error *err);

/* Keeps only these capabilities, for good; root stays root in name. Any number of them, NULL: none.
 */
MUSTCHECK int capabilities_limit(const int *kept, size_t count, struct error *err);

#endif
