/* What hobd does once, as root, before it becomes an ordinary user: folders, lock, socket, limits;
 * and what it tells systemd. */
#ifndef HOB_POOL_STARTUP_H
#define HOB_POOL_STARTUP_H

#include "base/error.h"

struct config;

/* Makes the store and run folders where they are missing, owned by config->user. */
MUSTCHECK int startup_folders(const struct config *config, struct error *err);
/* One hobd a run folder: ERROR_BUSY says which process holds it. Held until the descriptor closes.
 */
MUSTCHECK int startup_lock(const struct config *config, int *ret_fd, struct error *err);
/*
 * To be had once the launchers of the hobd before have ended, who may be making a sandbox still
 * when hobd is killed: what they make is to be seen by the next. It is for the launchers of this
 * one to keep. -1 after a long wait for one that hangs. ERROR_BUSY as startup_lock.
 */
MUSTCHECK int startup_launchers_lock(const struct config *config, int *ret_fd, struct error *err);
/* The listening socket: systemd's (LISTEN_FDS) or a new one at config->socket, 0660 for the group.
 */
/* The socket of config->hook_listen; -1 when there is none. */
MUSTCHECK int startup_hook_socket(const struct config *config, int *ret_fd, struct error *err);
MUSTCHECK int startup_socket(const struct config *config, int *ret_fd, struct error *err);
/* Opens a sibling program for process_spawn: its folder may be closed to config->user, and this
 * hobd goes on with its own version when another is installed. */
MUSTCHECK int startup_program(const char *name, int *ret_fd, struct error *err);
/* As many descriptors as the machine allows, up to what max_sandboxes can need. */
void startup_descriptors(const struct config *config);
/* "READY=1" and the like to systemd, when it listens. */
void startup_notify(const char *state);

#endif
