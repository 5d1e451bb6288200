/* What a package without an exact version would be now, for the message that refuses it. */
#ifndef HOB_BUILDER_PACKAGES_ADVICE_H
#define HOB_BUILDER_PACKAGES_ADVICE_H

#include "base/error.h"

struct config;

/* Puts it into the hint, if the machine's package managers can say; they run as user hob. */
void advice_add(const struct config *config, const char *file, struct error *err);

#endif
