/*
 * Who makes a request, as a text that is compared whole: "uid:1000" for a user of this machine on
 * the unix socket, as the kernel names the peer. Whatever else authenticates (a bearer token) gives
 * a text with a prefix of its own, so that no two ways can name the same caller.
 */
#ifndef HOB_POOL_HINTS_CALLER_H
#define HOB_POOL_HINTS_CALLER_H

#include "base/io.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define CALLER_SIZE (NAME_MAX_LENGTH + 8)

struct caller {
	char name[CALLER_SIZE];
};

static inline void caller_from_uid(struct caller *caller, uid_t uid)
{
	snprintf(caller->name, sizeof(caller->name), "uid:%u", (unsigned)uid);
}

/* What a caller calls a hint: 1 to 100 of [A-Za-z0-9] and "._:@=+~-", so that it needs no escaping
 * in a path. */
#define HINT_KEY_SIZE 101
bool hint_key_is_valid(const char *key);

#endif
