/*
 * The launcher process: root, one thread, in its own mount namespace. It takes requests one after
 * the other and never waits for one: a start that is under way, a sandbox that is dying, a deletion
 * are `pending` while the next request is served.
 */
#ifndef HOB_POOL_SANDBOX_LAUNCHER_SERVER_H
#define HOB_POOL_SANDBOX_LAUNCHER_SERVER_H

#include "pool/sandbox/launcher/launcher_wire.h"
#include "pool/sandbox/native.h"
#include "pool/sandbox/worker.h"

#include <sys/resource.h>

/* Beyond this, requests wait in the socket. */
#define SERVER_PENDING_MAX 64

struct pending {
	struct launcher_request request; /* op 0: free. Its layers are not kept. */
	int64_t started_us;
	int64_t next_us, deadline_us; /* of what is looked at again and again; 0: not by time */
	struct native native; /* LAUNCHER_SNAPSHOT: pidfd and status_fd are the copier's */
	int root_fd; /* of what is being destroyed; -1: not held */
	bool freezing; /* LAUNCHER_SNAPSHOT: its copier has the sandbox frozen */
	bool sealed; /* LAUNCHER_KEEP: what is to be kept is where it belongs */
};

struct server {
	int socket;
	struct native_means means;
	struct worker workers[WORKERS];
	struct pending pending[SERVER_PENDING_MAX];
	size_t pending_count;
	size_t ahead; /* to be made at once, as many creations are about to be asked for */
	char builds[BUILD_SLOTS][LAUNCHER_NAME_SIZE]; /* build sandboxes of ours; "" is free */
	/* For hob-build and hob-snapshots, which are started as if by hand. */
	char *build_program, *snapshots_program,
		*config_file; /* config_file NULL: the default one */
	struct rlimit limits[RLIM_NLIMITS];
};

/* Serves until the socket closes, then ends the build sandboxes. */
_Noreturn void server_run(struct server *server);

/* Answers; `fds` are sent, not closed. */
void server_reply(struct server *server, const struct launcher_request *request, pid_t pid,
	int64_t started_us, const int *fds, size_t fd_count, const struct error *err);

/* Answers a snapshot, or a measurement, that succeeded. */
void server_reply_copied(
	struct server *server, const struct pending *pending, const struct sandbox_copied *copied);

/* One look at a pending destroy or freeze. True: it has ended, with `err` or without. */
bool destroy_step(struct server *server, struct pending *pending, struct error *err);
bool freeze_step(struct server *server, struct pending *pending, struct error *err);
/* The same of a keep before it is sealed. True: with `err`, or it is time to seal. */
bool keep_step(struct server *server, struct pending *pending, struct error *err);
/* Starts the process that copies; see copier.c. */
MUSTCHECK int copier_start(struct server *server, struct pending *pending, struct error *err);
/* Its word, or its end; then it replies. True: it has ended. */
bool copier_step(struct server *server, struct pending *pending);
/* Starts the process that gives memory back; status_fd is readable at its end. */
MUSTCHECK int page_out_start(struct server *server, struct pending *pending, struct error *err);
void page_out_end(const struct pending *pending, struct error *err);
/* Takes away whatever there is of a sandbox, waiting for at most a second. */
void sandbox_end(struct server *server, const char *id);

/* fork and exec of hob-build. */
MUSTCHECK int build_spawn(const struct server *server, const char *environment,
	enum build_mode mode, pid_t *ret_pid, int *ret_pidfd, struct error *err);
/* The same of hob-snapshots; snapshot: the one to flatten, empty: all upkeep. */
MUSTCHECK int upkeep_spawn(const struct server *server, const char *snapshot, pid_t *ret_pid,
	int *ret_pidfd, struct error *err);

/* The same of its other verbs; fds: pidfd, socket, pipe, the caller's to close. */
MUSTCHECK int store_spawn(const struct server *server, const struct launcher_request *request,
	pid_t *ret_pid, int fds[3], struct error *err);

/* From here on what is made by clone is not given what it has no use for; see lighten.c. */
void launcher_lighten(void);
/* fork with all of it, for a child that goes on as hob. */
pid_t launcher_fork(void);

/* Closes every descriptor above the standard ones but these. */
void descriptors_keep(const int *fds, size_t count);

#endif
