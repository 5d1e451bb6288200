/* The function is called at the start of a phase and with every step of it; it is cheap, or it
 * looks at the clock first. */
#include "snapshots/progress.h"
#include "snapshots/store_private.h"

void store_on_progress(struct store *store, store_progress_fn *fn, void *context)
{
	store->progress = (struct store_progress){.phase = "read"};
	store->progress_fn = fn;
	store->progress_context = context;
}

static void tell(const struct store *store)
{
	if (store->progress_fn != NULL) {
		store->progress_fn(store->progress_context, &store->progress);
	}
}

void store_phase(struct store *store, const char *phase, uint64_t entries_all, uint64_t bytes_all)
{
	store->progress = (struct store_progress){
		.phase = phase, .entries_all = entries_all, .bytes_all = bytes_all};
	tell(store);
}

void store_advance(struct store *store, uint64_t entries, uint64_t bytes)
{
	store->progress.entries += entries;
	store->progress.bytes += bytes;
	tell(store);
}
