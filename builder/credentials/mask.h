/*
 * What a step says, with *** in place of its secrets: as they are, in base64, in base64 of urls and
 * percent-encoded, however the text comes in pieces. The end of a piece that could be the start of
 * a secret waits for the next one.
 */
#ifndef HOB_BUILDER_CREDENTIALS_MASK_H
#define HOB_BUILDER_CREDENTIALS_MASK_H

#include "base/memory.h"

#include <stddef.h>

struct mask;
struct step_secrets;

/* Takes what may be shown. */
typedef void mask_out_fn(void *context, const char *data, size_t length);

/* For all of the secrets (NULL: none, and everything goes through at once). */
struct mask *mask_new(const struct step_secrets *secrets, mask_out_fn *out, void *context);
/* Without what still waits: mask_end first. NULL is fine. */
void mask_free(struct mask *mask);
DEFINE_CLEANUP(mask_free_p, struct mask, mask_free)

void mask_add(struct mask *mask, const void *data, size_t length);
/* No more comes: what waits goes out. */
void mask_end(struct mask *mask);

#endif
