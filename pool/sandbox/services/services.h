/*
 * The services of one sandbox, driven over its connection to hob-init: started one after the other,
 * each when those before it are ready; looked at until they are; started again with back-off when
 * they end. hobd and hob-build use the same code. Nothing here blocks, and a sandbox that lies or
 * keeps silent harms only itself.
 */
#ifndef HOB_POOL_SANDBOX_SERVICES_H
#define HOB_POOL_SANDBOX_SERVICES_H

#include "base/error.h"
#include "base/memory.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct environment;
struct loop;
struct services;

/* Numbers of commands from here on are hob's own; those of users end below. */
#define SERVICE_EXEC_FIRST 0x40000000u
/* One that ran for so long was fine: its restarts are counted anew. */
#define SERVICE_STABLE_MS 60000
#define SERVICE_LOG_MAX 65536

enum service_state {
	SERVICE_WAITING, /* for those before it */
	SERVICE_STARTING, /* runs, not ready yet */
	SERVICE_READY,
	SERVICE_RESTARTING, /* ended; is started again after a while, or is being stopped */
	SERVICE_FAILED, /* ended too often, or was not ready in time */
	SERVICE_SKIPPED, /* not wanted in a restored sandbox */
	SERVICE_STATES
};
const char *service_state_name(enum service_state state);

/* `fn`s may free the services. */
struct services_events {
	/* All are ready, for the first time. */
	void (*ready)(void *context);
	/* One was given up; once for each. `log` is what it said last, for as long as this call. */
	void (*failed)(void *context, const char *name, const struct error *err, const char *log,
		size_t length);
	/* The end of services_prime; err NULL: it went well. */
	void (*primed)(void *context, const struct error *err);
	/* For logs; may be NULL. */
	void (*changed)(void *context, const char *name, enum service_state state);
};

/* How commands of an image are run, which its environment may leave to a base. */
struct services_home {
	char *const *env;
	const char *user, *cwd;
};
/* The environment and what home points to must outlive them. `restored`: only those that want it
 * are started. home NULL: as the environment says. */
struct services *services_new(struct loop *loop, const struct environment *environment,
	const struct services_home *home, bool restored, const struct services_events *events,
	void *context);
/* The commands go on, or end with the sandbox. */
void services_free(struct services *services); /* NULL is fine */
DEFINE_CLEANUP(services_free_p, struct services, services_free)

/* The client must outlive them or be gone for good. `ready` may run before the return. */
void services_start(struct services *services, struct init_client *client);
/* The same for a sandbox that has run before: `execs` are hob-init's. Those that are not hob's own
 * are left alone. */
void services_adopt(
	struct services *services, struct init_client *client, const uint32_t *execs, size_t count);
/* Runs the environment's prime once; `primed` tells. */
void services_prime(struct services *services);

/* The sandbox is frozen, or goes on: clocks stand still meanwhile, and nothing is looked at. */
void services_hold(struct services *services, bool held);

/* Each is ready or not wanted. */
bool services_are_up(const struct services *services);
size_t services_count(const struct services *services);
struct service_view {
	const char *name;
	enum service_state state;
	uint32_t pid; /* inside; 0: does not run */
	uint64_t restarts;
	int64_t since_ms; /* real: in this state */
	const char *why; /* of its last failure; NULL: none yet */
};
void service_view(const struct services *services, size_t index, struct service_view *ret_view);
/* ERROR_NOT_FOUND, naming those that there are. */
MUSTCHECK int services_find(
	const struct services *services, const char *name, size_t *ret_index, struct error *err);

/* Ends it politely, then not, and starts it again. */
MUSTCHECK int service_restart(struct services *services, size_t index, struct error *err);
/* The source was brought to a newer commit: each as its on_refresh says. */
void services_refresh(struct services *services);
/* As init_log_read: its starts one after the other are one log. */
MUSTCHECK int service_log(struct services *services, size_t index, bool follow,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);

/* Before the next start: doubles from `first_ms` with each failure in a row, up to `max_ms`. */
int64_t service_delay_ms(int64_t first_ms, int64_t max_ms, unsigned failures);

#endif
