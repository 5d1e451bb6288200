/* What the files of services share. */
#ifndef HOB_POOL_SANDBOX_SERVICES_PRIVATE_H
#define HOB_POOL_SANDBOX_SERVICES_PRIVATE_H

#include "base/buffer.h"
#include "configs/environment.h"
#include "pool/sandbox/services/services.h"

/* Numbers: index and count of starts in those of services; short-lived ones above them. */
#define INDEX_SHIFT 20
#define GENERATION_MASK ((1u << INDEX_SHIFT) - 1)
#define HELPER_EXEC_FIRST 0x50000000u
#define HELPER_EXEC_END 0x60000000u

struct service {
	struct services *services;
	const struct environment_service *conf;
	size_t index;
	enum service_state state;
	int64_t since_ms; /* real */
	uint32_t generation; /* of its last start */
	uint32_t log_id; /* the exec that has its log; 0: none yet */
	struct init_exec_handle *exec; /* NULL: does not run */
	uint32_t pid;
	int64_t started_ms; /* monotonic */
	unsigned failures; /* in a row */
	uint64_t restarts;
	bool was_ready;
	bool stopping; /* on request: starts again at its end, without counting */
	char *why;
	/* Readiness. */
	char *request;
	uint16_t port;
	int64_t ready_by_ms; /* monotonic */
	int64_t look_ms; /* how long the latest look may take */
	int64_t pause_ms; /* before the next look */
	char *missing; /* what the last look said */
	struct init_file_handle *probe;
	struct init_exec_handle *asking; /* ready_command */
	struct loop_timer *timer; /* the next look, the next start, or the end of politeness */
	struct loop_timer *deadline; /* of readiness, or of reading the log */
	bool timer_due, deadline_due; /* while it was held */
	/* Given up: its log, for whoever is told. */
	struct init_file_handle *log;
	struct buffer log_text;
	struct error failure;
};

struct services {
	struct loop *loop;
	const struct environment *environment;
	struct services_home home;
	struct init_client *client;
	const struct services_events *events;
	void *context;
	uint32_t next_helper;
	bool told_ready;
	bool held;
	struct init_exec_handle *prime;
	struct loop_timer *prime_timer;
	struct buffer prime_tail;
	size_t count;
	struct service services[];
};

/* services.c */
void service_start(struct service *service);
void service_set_state(struct service *service, enum service_state state);
/* It counts as ready from now on, and the next one starts. */
void service_is_ready(struct service *service);
/* It will not become ready: told to the owner, with its log. */
void service_give_up(struct service *service, const struct error *err);
/* Not ready in time. */
void service_too_late(struct service *service);
uint32_t helper_id(struct services *services);
/* `sh -c run` with the environment's surroundings, or the service's where it has its own. */
MUSTCHECK int services_exec(struct services *services, const struct environment_service *conf,
	const char *run, uint32_t id, uint32_t follows, const struct exec_events *events,
	void *context, struct init_exec_handle **ret_exec, struct error *err);

/* readiness.c */
/* Its time begins. */
void readiness_arm(struct service *service);
/* It runs. */
void readiness_begin(struct service *service);
/* The timer fired while it was starting. */
void readiness_look(struct service *service);
void readiness_end(struct service *service);

#endif
