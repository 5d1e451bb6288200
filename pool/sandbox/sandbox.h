/*
 * Sandboxes as the programs that use them see them: a launcher (root, forked early, tiny) makes and
 * ends them, and hob-init inside runs commands and moves files. Nothing here blocks: replies come
 * through the event loop. hobd and hob-build use the same code; only `kind` differs.
 */
#ifndef HOB_POOL_SANDBOX_SANDBOX_H
#define HOB_POOL_SANDBOX_SANDBOX_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;
struct config;
struct layer;

#define SANDBOX_ID_PREFIX "sb-"
#define BUILD_SANDBOX_ID_PREFIX "bs-"
#define SANDBOX_LAYERS_MAX 64
#define ID_RANGE 65536 /* ids that one sandbox has */
/* The last slots are for build sandboxes, whose layers keep the range on disk. */
#define BUILD_SLOTS 32

/* ---- the launcher ---- */
struct launcher;

/*
 * Forks the launcher processes; call it as root, early, before threads and large allocations. They
 * end when the last descriptor to them closes, and take the build sandboxes they made with them;
 * other sandboxes live on. keep_fd, unless it is -1, stays open in them for as long as they live.
 * ERROR_DENIED when not root, ERROR_UNSUPPORTED naming what the kernel lacks.
 */
MUSTCHECK int launcher_start(const struct config *config, int keep_fd,
	struct launcher **ret_launcher, struct error *err);
/* Gives up root for config->user and group (no capability is kept) in the calling process. */
MUSTCHECK int privileges_drop(const struct config *config, struct error *err);
/* From now on replies are delivered by this loop. `lost` is called once when a launcher died. */
MUSTCHECK int launcher_attach(struct launcher *launcher, struct loop *loop,
	void (*lost)(void *context), void *context, struct error *err);
void launcher_stop(struct launcher *launcher);
DEFINE_CLEANUP(launcher_stop_p, struct launcher, launcher_stop)

/* First id of a slot's range. */
int64_t launcher_slot_base(const struct launcher *launcher, uint32_t slot);

enum sandbox_kind {
	SANDBOX_SESSION, /* sandboxes/<id>/{upper,work}; outlives its launcher */
	SANDBOX_BUILD, /* staging/<staging>/{tree,work}, volatile; dies with its launcher */
};

struct sandbox_limits {
	int64_t cpu_millis; /* 0: none, in all of them */
	int64_t memory_bytes;
	int64_t pids;
	int64_t background; /* 1: gets CPU and disk when others leave it */
};

struct sandbox_spec {
	enum sandbox_kind kind;
	const char *id; /* also the cgroup's name and the folder's below <run>/sandboxes */
	const char *staging; /* SANDBOX_BUILD: name of the staging folder */
	const char *hostname;
	uint32_t slot; /* the caller's to keep unique: see slots.h */
	const struct layer *layers; /* lowest first; id, id_base, id_count, host_usr are read */
	size_t layer_count;
	bool network_host; /* share the host's network namespace; else loopback only */
	struct sandbox_limits limits;
};

/* A reply: err is NULL on success. Descriptors are the receiver's from then on. */
struct sandbox_created {
	pid_t pid; /* of hob-init, on the host */
	int pidfd; /* readable when the sandbox is dead */
	int control_fd; /* connected to hob-init: give it to init_client_new */
	int64_t took_us;
};
typedef void sandbox_created_fn(
	void *context, const struct sandbox_created *created, const struct error *err);
typedef void sandbox_done_fn(void *context, const struct error *err);

/* All of these send a request and return; `fn` runs later, exactly once, unless the launcher is
 * stopped first. */
void sandbox_create(struct launcher *launcher, const struct sandbox_spec *spec,
	sandbox_created_fn *fn, void *context);
void sandbox_freeze(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context);
void sandbox_thaw(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context);
/* Lets the system have the memory of one that is frozen; takes as long as the kernel needs for it.
 */
void sandbox_page_out(
	struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context);
/* What a SANDBOX_SESSION has written: bytes in use on disk and how many files those are, hard links
 * once. Walked in the background, by a process that can do no more than read; what changes
 * meanwhile may count or not. ERROR_NOT_FOUND when it has ended. */
typedef void sandbox_measured_fn(
	void *context, int64_t bytes, int64_t files, const struct error *err);
void sandbox_measure(
	struct launcher *launcher, const char *id, sandbox_measured_fn *fn, void *context);
/* Kills everything inside, waits until it is gone, removes the cgroups, and moves sandboxes/<id>
 * away to be deleted in the background (SANDBOX_SESSION). ERROR_BUSY: not gone yet, ask again.
 * Succeeds for a sandbox that does not exist. */
void sandbox_destroy(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context);
/* For a destroyed SANDBOX_BUILD: proves that nothing writes to its layer any more (ERROR_BUSY if it
 * does), removes `work` and overlayfs's marks of origin, and syncs. Then the staging folder may be
 * given to layer_seal. */
void sandbox_seal(
	struct launcher *launcher, const char *staging, sandbox_done_fn *fn, void *context);

/*
 * Copies what a running SANDBOX_SESSION has changed to staging/<staging>/tree, which must not be
 * there yet, as of one instant: the sandbox is frozen only for what changed during the copying, and
 * for 5 s at the most (ERROR_TIMEOUT then). A frozen one stays frozen. Then the staging folder,
 * which is synced and holds nothing else, may be given to layer_seal with the ids of the sandbox's
 * slot; after a failure it is to be thrown away. previous_layer: the layer that the copy before
 * this one of the same sandbox has become, so that unchanged files are stored once; 0: none. It
 * must stay until the reply, and nobody may freeze, thaw or destroy the sandbox until then.
 * ERROR_BUSY: one is being taken already, or it does not freeze; ERROR_CONFLICT: it ended or was
 * thawed under way.
 */
/* As long as anybody may have to wait for an answer from inside. */
#define SNAPSHOT_PAUSE_MS_MAX INT64_C(5000)
/* A folder of this name in staging/<staging> makes the copy end early, with ERROR_CANCELLED. */
#define SNAPSHOT_CANCEL_NAME "cancel"
struct sandbox_copied {
	uint64_t files; /* entries of the copy, folders too */
	uint64_t bytes; /* apparent sizes of its regular files, hard links once */
	uint64_t copied, linked, cloned; /* regular files by bytes, by link to the previous copy, by
					    shared blocks */
	uint64_t skipped; /* sockets, and devices that may not be made */
	int64_t pause_us; /* frozen */
	int64_t expected_us; /* of that, as foreseen for looking at many files; 0: not */
	int64_t total_us;
	uint32_t passes; /* the frozen one too */
};
typedef void sandbox_copied_fn(
	void *context, const struct sandbox_copied *copied, const struct error *err);
void sandbox_snapshot(struct launcher *launcher, const char *id, const char *staging,
	int64_t previous_layer, int64_t max_pause_us, sandbox_copied_fn *fn, void *context);
/*
 * As sandbox_destroy, but what it has changed becomes staging/<staging>/tree, by rename, sealed as
 * by sandbox_seal: for layer_seal, with the ids of its slot. ERROR_BUSY: not gone yet, ask again,
 * with the same staging folder; whatever step failed, asking again goes on. Giving up:
 * sandbox_destroy. ERROR_NOT_FOUND: there is nothing to keep.
 */
void sandbox_keep(struct launcher *launcher, const char *id, const char *staging,
	sandbox_done_fn *fn, void *context);

/*
 * For trees that hob-build writes itself with owners (tar bases): makes staging/<staging>/tree
 * owned by the first id of `slot`, and gives a user namespace with that range, which the caller's
 * process may setns() into. The descriptor is the receiver's.
 */
typedef void userns_fn(void *context, int userns_fd, const struct error *err);
void launcher_prepare_tree(struct launcher *launcher, const char *staging, uint32_t slot,
	userns_fn *fn, void *context);
/* Many creations will be asked for as soon as something else is over: what they need and what does
 * not depend on them is made meanwhile. */
void launcher_make_ahead(struct launcher *launcher, size_t count);
/* Deletes `name` below the store's "staging" or "layers". In the background of the launcher. */
void launcher_remove(struct launcher *launcher, const char *room, const char *name,
	sandbox_done_fn *fn, void *context);
/* Starts `hob-build <environment>` with root rights of its own; its log goes to the store.
 */
enum build_mode {
	BUILD_ASKED,
	BUILD_SCHEDULED, /* nobody asked: what has failed before is not tried again at once */
	BUILD_FETCH, /* only brings its mirrors up to date */
};
typedef void build_started_fn(void *context, pid_t pid, int pidfd, const struct error *err);
void launcher_build(struct launcher *launcher, const char *environment, enum build_mode mode,
	build_started_fn *fn, void *context);
/* Starts `hob-snapshots upkeep` in the same way. */
void launcher_upkeep(struct launcher *launcher, build_started_fn *fn, void *context);
/* `hob-snapshots flatten SNAPSHOT`. */
void launcher_flatten(
	struct launcher *launcher, const char *snapshot, build_started_fn *fn, void *context);
/*
 * Starts `hob-snapshots --json --events VERB` for work that takes long or reads what only root may.
 * Its input and output are one end of a socket, its events and errors come out of a pipe; both are
 * the receiver's, as the pidfd is. Closing them ends it.
 */
enum store_tool {
	STORE_VERIFY, /* name or all; option: quick */
	STORE_FLATTEN, /* name */
	STORE_GC, /* option: dry run */
	STORE_EXPORT, /* name; option: with parents */
	STORE_IMPORT,
	STORE_DIFF, /* name, second */
	STORE_TREE, /* name or all */
	STORE_DU,
	STORE_DEDUPE,
	STORE_IMAGES_DIFF, /* name, second; option: sums only */
	STORE_TOOLS
};
struct store_order {
	enum store_tool tool;
	const char *name, *second; /* NULL: none */
	bool option;
};
struct store_started {
	int pidfd, io_fd, events_fd;
};
typedef void store_started_fn(
	void *context, const struct store_started *started, const struct error *err);
void launcher_store(struct launcher *launcher, const struct store_order *order,
	store_started_fn *fn, void *context);

/* What the cgroup says now. ERROR_NOT_FOUND when it is gone. No launcher needed. */
struct sandbox_usage {
	int64_t memory_bytes;
	int64_t cpu_us;
	int64_t pids;
	int64_t oom_kills;
	bool frozen;
	bool populated;
};
MUSTCHECK int sandbox_usage_read(const struct config *config, const char *id,
	struct sandbox_usage *ret_usage, struct error *err);
/* Only what is metered, from two files instead of six. */
MUSTCHECK int sandbox_sums_read(const struct config *config, const char *id, int64_t *ret_cpu_us,
	int64_t *ret_memory_bytes, struct error *err);

/* Freezes or thaws a SANDBOX_SESSION by a write of our own, in some 20 us; what freezes stands
 * still a moment later (sandbox_state_read). ERROR_DENIED: one whose cgroup is not ours to write,
 * which sandbox_freeze and sandbox_thaw can. ERROR_NOT_FOUND when it is gone. */
MUSTCHECK int sandbox_freeze_now(
	const struct config *config, const char *id, bool frozen, struct error *err);
/* As sandbox_usage_read, but only `frozen` and `populated`. */
MUSTCHECK int sandbox_state_read(const struct config *config, const char *id,
	struct sandbox_usage *ret_usage, struct error *err);

/* What there is of sandboxes on this machine, whole or left over: the names of cgroups and of the
 * store's sandboxes/ folders, each once; sandbox_destroy takes any of them away. Free with
 * strv_free. */
MUSTCHECK int sandbox_cgroups_list(const struct config *config, char ***ret_ids, struct error *err);

/* ---- hob-init ---- */
struct init_client;
struct init_exec_handle;

struct init_client_events {
	/* First message of a connection; `execs` are those that were running before it. */
	void (*ready)(void *context, const uint32_t *execs, size_t count);
	/* hob-init is gone or talks nonsense; free the client. Called once, and every exec and file
	 * request has ended with ERROR_UNAVAILABLE before. */
	void (*closed)(void *context);
};

/* Takes the connected socket. The client is the caller's. */
MUSTCHECK int init_client_new(struct loop *loop, int fd, const struct init_client_events *events,
	void *context, struct init_client **ret_client, struct error *err);
/* Connects to <run>/sandboxes/<id>/init.sock of an adopted sandbox. */
MUSTCHECK int init_client_connect(const char *run, const char *id, int *ret_fd, struct error *err);
/* Ends the connection; commands inside go on. No event is called from here on. */
void init_client_free(struct init_client *client);

struct exec_spec {
	char *const *argv;
	char *const *env; /* nothing is inherited; PATH, HOME, USER (TERM) are added when missing */
	const char *cwd; /* NULL: / */
	const char *user; /* "name[:group]" or "uid[:gid]" inside; NULL: root */
	bool pty;
	bool stdin_open;
	bool apply; /* INIT_EXEC_APPLY: argv[0] is a workspace; user and cwd do not count */
	uint16_t rows, cols;
	/* Its output is kept inside for init_log_read and never sent, nobody need listen for it to
	 * go on, its process group ends with it, and it is known inside until init_exec_forget. */
	bool service;
	uint32_t follows; /* service: the ended exec whose log it goes on with, and which is
			     forgotten; 0: none */
};

struct exec_result {
	int code; /* 0 to 255, or 128 + signal */
	int signal;
	int64_t user_us, system_us, took_us;
	int64_t max_rss_bytes;
};

enum exec_stream { EXEC_STDOUT = 1, EXEC_STDERR = 2 };

struct exec_events {
	void (*started)(void *context, uint32_t pid);
	/* Call init_exec_consumed for the bytes when they have gone on: that lets more come. */
	void (*output)(void *context, enum exec_stream stream, const void *data, size_t length);
	/* `bytes` more may be written to stdin. */
	void (*stdin_room)(void *context, size_t bytes);
	/* The end: result, or err (not started, connection lost). The handle is freed after it. */
	void (*ended)(void *context, const struct exec_result *result, const struct error *err);
};

/* `id`, 1 to 2^31-1 and not in use, names the exec for adoption later. ERROR_LIMIT, ERROR_INVALID
 * (arguments over 60 kB). What is wrong inside comes through `ended`: ERROR_INVALID for a command,
 * cwd or user that is not there. */
MUSTCHECK int init_exec(struct init_client *client, uint32_t id, const struct exec_spec *spec,
	const struct exec_events *events, void *context, struct init_exec_handle **ret_exec,
	struct error *err);
/* Takes up an exec of `ready`'s list: kept output again, then what comes. */
MUSTCHECK int init_exec_adopt(struct init_client *client, uint32_t id,
	const struct exec_events *events, void *context, struct init_exec_handle **ret_exec,
	struct error *err);
/* What did not work, in `ended` with ERROR_INVALID: err->sys is why. */
enum exec_step { EXEC_STEP_OTHER, EXEC_STEP_USER, EXEC_STEP_CWD, EXEC_STEP_EXEC };
enum exec_step init_exec_refused(const struct init_exec_handle *exec);
/* An adopted one was started as a service. */
void init_exec_keep(struct init_exec_handle *exec);
/* Of one without a handle: kills it if it runs, and its log goes. */
void init_exec_forget(struct init_client *client, uint32_t id);
void init_exec_consumed(struct init_exec_handle *exec, size_t bytes);
/* At most what stdin_room said, taken off it. */
MUSTCHECK int init_exec_write(
	struct init_exec_handle *exec, const void *data, size_t length, struct error *err);
void init_exec_write_end(struct init_exec_handle *exec);
void init_exec_signal(struct init_exec_handle *exec, int signal);
void init_exec_resize(struct init_exec_handle *exec, uint16_t rows, uint16_t cols);
/* No more events. kill: end the command too; otherwise it goes on and its output is dropped. */
void init_exec_detach(struct init_exec_handle *exec, bool kill);

/* Files, by path inside the sandbox, as its root. One request, one handle, freed after `done`.
 * err->sys is the errno inside: EISDIR tells that `read` met a folder, EFBIG that it is too large.
 */
struct init_file_handle;
struct file_info {
	const char *name; /* of an entry; NULL for the file itself */
	const char *target; /* of a symbolic link */
	uint32_t mode, uid, gid;
	uint64_t size;
	int64_t mtime_ns;
};
struct file_events {
	void (*info)(void *context, const struct file_info *info); /* read, list: the file itself */
	void (*entry)(void *context, const struct file_info *entry); /* list */
	void (*data)(
		void *context, const void *data, size_t length); /* read; then init_file_consumed */
	void (*room)(void *context, size_t bytes); /* write: more may be sent */
	void (*done)(void *context, uint64_t bytes, const struct error *err);
};
MUSTCHECK int init_file_read(struct init_client *client, const char *path, uint64_t bytes_max,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);
MUSTCHECK int init_file_write(struct init_client *client, const char *path, uint32_t mode,
	uint64_t bytes_max, const struct file_events *events, void *context,
	struct init_file_handle **ret_file, struct error *err);
MUSTCHECK int init_file_list(struct init_client *client, const char *path,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);
MUSTCHECK int init_file_remove(struct init_client *client, const char *path, bool recursive,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);
/* What is kept of a service's output, both streams as they came: data, then done; `follow`: what
 * comes too, until the service is forgotten. */
MUSTCHECK int init_log_read(struct init_client *client, uint32_t exec, bool follow,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);
/* One look at whether something is ready: `done`, its error saying what is missing. */
struct probe_spec {
	const char *path; /* there is something; or, when NULL, */
	uint16_t port; /* of 127.0.0.1 or ::1: somebody accepts, and */
	const char *http; /* answers this whole request with a status of 2xx or 3xx; NULL: tcp */
	int64_t timeout_ms;
};
MUSTCHECK int init_probe(struct init_client *client, const struct probe_spec *spec,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err);
void init_file_consumed(struct init_file_handle *file, size_t bytes);
MUSTCHECK int init_file_send(
	struct init_file_handle *file, const void *data, size_t length, struct error *err);
void init_file_send_end(struct init_file_handle *file);
/* Gives up: no more events, a partly written file is removed. */
void init_file_cancel(struct init_file_handle *file);

#endif
