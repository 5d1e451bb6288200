/* The next tier of idleness after freezing: what has stood still for page_out_after gives its
 * memory back to the system, one sandbox at a time. Only where there is somewhere to put it, swap
 * or zram, or where the operator says so; elsewhere nothing is armed and nothing is asked. */
#ifndef HOB_POOL_PAGE_OUT_H
#define HOB_POOL_PAGE_OUT_H

#include <stdbool.h>

struct config;
struct entry;

/* Looks at /proc/swaps, once at start. */
bool page_out_is_worth(const struct config *config);
/* It was frozen, or thawed. */
void page_out_later(struct entry *entry);
void page_out_on_timer(void *context);

#endif
