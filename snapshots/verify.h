/*
 * Reading every byte of layers against what they were. layers/<id>/digests has an XXH3 of each
 * entry's content and of its attributes, with size and time, in the order of layer_walk, and one of
 * itself at its end; it is written the first time that a layer is verified, whole or not at all.
 *
 * A run over the whole store leaves a mark until it has ended: the next one skips what the
 * interrupted one has read.
 */
#ifndef HOB_SNAPSHOTS_VERIFY_H
#define HOB_SNAPSHOTS_VERIFY_H

#include "snapshots/store.h"

#define VERIFY_FILE "digests"

enum verify_outcome { VERIFY_SOUND, VERIFY_RECORDED, VERIFY_DAMAGED };

struct verify_events {
	void (*damage)(
		void *context, const struct layer *layer, const char *path, const char *what);
	void (*progress)(void *context, uint64_t entries, uint64_t bytes); /* now and then */
	void *context;
};

/* quick: sizes, times and attributes only, no content. Fails only when it cannot look. */
MUSTCHECK int layer_verify(struct store *store, const struct layer *layer, bool quick,
	const struct verify_events *events, enum verify_outcome *ret_outcome, struct error *err);

/* When the run over the whole store that goes on has begun; a new one begins if none is marked. */
MUSTCHECK int verify_run_begin(
	struct store *store, int64_t *ret_started_ms, bool *ret_resumed, struct error *err);
MUSTCHECK int verify_run_end(struct store *store, struct error *err);
/* Ready layers that the run has not read; 0: all. Free the array. */
MUSTCHECK int verify_run_layers(struct store *store, int64_t started_ms, struct layer **ret_layers,
	size_t *ret_count, struct error *err);
MUSTCHECK int layer_verified(struct store *store, int64_t id, struct error *err);

#endif
