/*
 * Claims: the sandbox that the key had reserved, ready or not yet; else one ready sandbox of the
 * head image, oldest first, bound in memory and by one appended line; or, when there is none, the
 * next that becomes ready. Waiting claims are served in order; the reconciler sees them and makes
 * what they need.
 */
#ifndef HOB_POOL_CLAIM_H
#define HOB_POOL_CLAIM_H

#include "base/error.h"
#include "base/json.h"
#include "pool/choose.h"
#include "pool/manager.h"

struct claim_spec {
	struct choice choice;
	struct terms terms; /* TERMS_ANY but for an environment */
	const struct caller *caller; /* NULL: without a key */
	const char *key; /* of the caller's hint; NULL: none */
	char **env; /* KEY=value; NULL: none; the claim takes it */
	json_t *metadata; /* NULL: none; the claim takes it */
	int64_t timeout_ms; /* 0: none */
	int64_t idle_ms; /* -1: as the environment says; 0: never */
};

struct claim_result {
	struct entry *entry;
	enum cold_reason reason; /* COLD_NONE: it was warm, or restored as was asked */
	bool restored;
	bool hinted; /* the one that its key had reserved */
	int64_t took_us;
};

/* Exactly one of result and err. May run before claim_start returns. */
typedef void claim_done_fn(
	void *context, const struct claim_result *result, const struct error *err);

/* NULL when it was answered before the return; else claim_cancel gives it up. */
struct claim *claim_start(
	struct manager *manager, struct claim_spec *spec, claim_done_fn *fn, void *context);
/* Its sandbox, if one is under way, goes to the pool. No call of fn from here on. */
void claim_cancel(struct claim *claim);

/* A sandbox became ready: gives it to the first claim that waits for its image. */
void claims_serve(struct entry *entry);
/* A creation failed: so does the claim that has waited longest for that image, and of one that is
 * reserved its key's. `entry` NULL: it had got no further than its name. */
void claims_creation_failed(struct pool *pool, struct pool_image *image, const struct entry *entry,
	const struct error *err);
/* It ends: a claim that waits for this very one waits for any from here on. */
void claims_release(struct entry *entry);
/* Writes into the log what was claimed since the last call: not before the claims are answered. */
void claims_log(struct manager *manager);
/* Makes what waiting claims need and no creation under way will bring. */
void claims_provide(struct pool *pool);

#endif
