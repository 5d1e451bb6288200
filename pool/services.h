/*
 * Services of pool sandboxes: what turns "hob-init said hello" into "warm", keeps them running
 * after that, and takes them up again after a restart of hobd. What a sandbox was made with is
 * written beside its state, so that its services are started again as they were, whatever became of
 * the environment's file.
 */
#ifndef HOB_POOL_SERVICES_H
#define HOB_POOL_SERVICES_H

#include "base/error.h"
#include "configs/environment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct entry;
struct manager;
struct pool;

/* An environment with services or prime as it was when sandboxes were made; shared by count. */
struct warm_set {
	size_t users;
	struct environment *environment;
	char *text; /* the same as YAML */
};

/* NULL stays NULL. */
struct warm_set *warm_set_ref(struct warm_set *set);
void warm_set_put(struct warm_set *set);

/* The environment's file was read anew: ready sandboxes with other services are out of date. */
void pool_warm_refresh(struct pool *pool);

/* Of a new sandbox, before it is asked for: writes down what services it will have. */
MUSTCHECK int entry_warm_record(struct entry *entry, struct error *err);
/* Of an adopted one, from there. */
MUSTCHECK int entry_warm_load(struct entry *entry, struct error *err);
/* hob-init said hello: services start, prime runs, then entry_warmed. */
void entry_warm_begin(struct entry *entry);
/* hob-init of an adopted one said hello. */
void entry_services_adopt(struct entry *entry, const uint32_t *execs, size_t count);
/* Before the connection goes. */
void entry_services_drop(struct entry *entry);
/* All that it should have are ready; true without any. Only then may it be frozen. */
bool entry_services_up(const struct entry *entry);
/* It is frozen, or thawed. */
void entry_services_hold(struct entry *entry, bool held);
/* The source was brought to a newer commit in place. */
void entry_services_refreshed(struct entry *entry);

/* A service that was ready and then kept failing: the environment counts as failing for so long,
 * whatever becomes ready meanwhile. */
#define SERVICE_TROUBLE_MS 120000

#endif
