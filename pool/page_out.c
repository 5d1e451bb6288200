/* When frozen sandboxes give their memory back. */
#include "pool/page_out.h"

#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/demand/demand.h"
#include "pool/entry.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>

#define SWAPS_MAX 65536
/* While another one does. */
#define TURN_MS 50

bool page_out_is_worth(const struct config *config)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;
	const char *line;

	if (config->page_out_after_ms == 0 || config->page_out_always) {
		return config->page_out_after_ms > 0;
	}
	buffer_init(&text, SWAPS_MAX);
	if (io_read_file(AT_FDCWD, "/proc/swaps", &text, &err) < 0) {
		return false;
	}
	line = strchr(buffer_text(&text), '\n'); /* of the headings */
	return line != NULL && line[1] != '\0';
}

void page_out_later(struct entry *entry)
{
	if (entry->frozen && entry->manager->pages_out) {
		bool at_once =
			entry->record.state == ENTRY_READY && demand_is_squeezed(entry->pool);

		loop_timer_later(
			entry->page_timer, at_once ? 0 : entry->manager->config->page_out_after_ms);
	} else {
		loop_timer_stop(entry->page_timer);
	}
}

static void on_paged_out(void *context, const struct error *err)
{
	struct manager *manager = context;
	struct entry *entry = manager_entry(manager, manager->paged);

	manager->paging = false;
	if (err == NULL && entry != NULL && entry->frozen) {
		entry->paged_out = true;
		entry->pool->page_outs++;
		demand_weigh(entry);
	}
	if (err != NULL && err->kind != ERROR_NOT_FOUND) {
		log_failure("sandbox.page_out_failed", err);
	}
}

void page_out_on_timer(void *context)
{
	struct entry *entry = context;
	struct manager *manager = entry->manager;

	if (!entry->frozen || entry->copying) {
		return;
	}
	if (manager->paging) {
		loop_timer_later(entry->page_timer, TURN_MS);
		return;
	}
	demand_weigh(entry);
	manager->paging = true;
	memcpy(manager->paged, entry->record.id, sizeof(manager->paged));
	log_debug("sandbox.page_out", "sandbox", entry->record.id);
	sandbox_page_out(manager->launcher, entry->record.id, on_paged_out, manager);
}
