/*
 * The native runtime: one sandbox from clone3 to the exec of hob-init. The launcher's part
 * (native.c) and the new process's own (native_child.c) work at the same time: while the child
 * mounts what is its own, the launcher puts the overlay together and then sends it over.
 */
#ifndef HOB_POOL_SANDBOX_NATIVE_H
#define HOB_POOL_SANDBOX_NATIVE_H

#include "base/error.h"
#include "pool/sandbox/cgroup.h"
#include "pool/sandbox/idmap.h"
#include "pool/sandbox/launcher/launcher_wire.h"
#include "pool/sandbox/netns.h"
#include "pool/sandbox/places.h"
#include "pool/sandbox/spares.h"

#include <stdint.h>
#include <sys/types.h>

#define NATIVE_SOCKET_NAME "init.sock" /* below <run>/sandboxes/<id> */

/* What the launcher keeps ready for all of them. */
struct native_means {
	struct places places;
	struct cgroups cgroups;
	struct idmaps idmaps;
	struct netns_pool nets;
	struct spares spares;
	int init_fd; /* sealed memory file with hob-init */
	int64_t id_base;
	uint32_t slots;
	uid_t uid; /* config->user, who may connect to the sandboxes' sockets */
	gid_t gid;
};

struct native {
	pid_t pid;
	int pidfd;
	int control_fd;
	int status_fd; /* readable when hob-init runs or could not be started */
};

#define NATIVE_INIT ((struct native){.pid = -1, .pidfd = -1, .control_fd = -1, .status_fd = -1})

/* Starts it; ask native_result once status_fd is readable. What a failure leaves behind (a cgroup,
 * a folder) is for a destroy of the same id to take away. */
MUSTCHECK int native_begin(struct native_means *means, const struct launcher_request *request,
	struct native *ret_native, struct error *err);
MUSTCHECK int native_result(struct native *native, struct error *err);
void native_done(struct native *native);

/* ---- between the two halves ---- */

/*
 * After NATIVE_MAPPED the child makes what is its own; it joins with the descriptors of NATIVE_JOIN
 * (the cgroups' files) and goes on with those of NATIVE_ROOT: the overlay, then /usr, then the
 * listening socket, the latter two only if it was asked for them.
 */
enum native_message { NATIVE_MAPPED = 1, NATIVE_JOIN, NATIVE_ROOT };

/* From the child, once; `sys` 0: everything but the exec has worked. */
struct native_outcome {
	int32_t sys;
	char step[60];
};

/* The child's half; never returns. `socket` goes to the launcher, whose end of it is `native`'s. */
_Noreturn void native_child(const struct native_means *means,
	const struct launcher_request *request, struct native *native, int socket, int control_fd);

/* The filter of every process in a sandbox. 0 or an errno. */
int seccomp_load(void);

#endif
