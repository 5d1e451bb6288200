/* The services of the gate: they come up in the check's sandbox as they will in every warm one. */
#ifndef HOB_BUILDER_STEP_SERVICES_H
#define HOB_BUILDER_STEP_SERVICES_H

#include "base/error.h"

#include <stdbool.h>

struct environment;
struct init_client;
struct machine;
struct step_services;

/* Starts them, waits until all are ready and prime has run. ERROR_TIMEOUT or ERROR_FAILED name the
 * one that is not, after its log has gone to the report. *closed: the sandbox is gone; whoever sets
 * it sets *moved, and wakes the machine. */
MUSTCHECK int step_services_start(struct machine *machine, const struct environment *environment,
	struct init_client *client, const bool *closed, bool *moved,
	struct step_services **ret_services, struct error *err);
/* Before the client goes. NULL is fine. */
void step_services_end(struct step_services *services);

#endif
