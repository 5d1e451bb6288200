/*
 * The probes of `hob doctor`. Each tries one thing and says what it found; a row of the table in
 * doctor.c says what is lost without it. Probes that change anything run in a forked child with a
 * mount namespace of its own, and below `scratch`, which is deleted afterwards.
 */
#ifndef HOB_POOL_CLI_DOCTOR_PROBE_H
#define HOB_POOL_CLI_DOCTOR_PROBE_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

struct config;

enum finding_state {
	FINDING_OK,
	FINDING_WARN, /* works, but not as well as it could */
	FINDING_LACKING, /* shown as "missing" when it is required, else as "warn" */
	FINDING_UNTRIED, /* needs root, or something that is missing itself */
	FINDING_STATES
};

/* Without pointers: it comes back from the child through shared memory. */
struct finding {
	enum finding_state state;
	char value[256];
	char advice[384]; /* in place of the row's, if not empty */
};

struct doctor {
	const struct config *config;
	const char *folder; /* the store, or the nearest folder above it that exists */
	const char *scratch; /* a temporary folder in it; NULL when none can be made */
};

typedef void probe_fn(const struct doctor *doctor, struct finding *finding);

void finding_set(struct finding *finding, enum finding_state state, const char *format, ...)
	PRINTF_LIKE(3, 4);
void finding_advise(struct finding *finding, const char *format, ...) PRINTF_LIKE(2, 3);
/* FINDING_LACKING with the error's message, and its hint as advice. */
void finding_fail(struct finding *finding, const struct error *err);
/* FINDING_LACKING with what failed and strerror(errno). */
void finding_fail_sys(struct finding *finding, const char *what);

/* doctor_kernel.c */
probe_fn probe_kernel, probe_root, probe_namespaces, probe_namespace_counts, probe_pidfd,
	probe_openat2, probe_seccomp;
/* doctor_store.c */
probe_fn probe_store, probe_space, probe_idmap, probe_overlay, probe_layers, probe_host_usr,
	probe_reflink, probe_quota, probe_run;
/* doctor_cgroup.c */
probe_fn probe_cgroups, probe_cpu, probe_memory, probe_pids, probe_clone_into, probe_freeze,
	probe_kill;
/* Removes what a probe that was killed as process `pid` left behind. */
void probe_cgroups_sweep(const struct doctor *doctor, pid_t pid);
/* doctor_machine.c */
probe_fn probe_user, probe_group, probe_ids, probe_files, probe_inotify, probe_swap, probe_programs,
	probe_environments, probe_hobd, probe_mmdebstrap;

/* A whole line of a small file of /proc or /sys, without its end; false if it cannot be read. */
bool probe_read_line(const char *path, char *text, size_t size);

#endif
