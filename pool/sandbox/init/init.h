/*
 * What the parts of hob-init share. One thread, one epoll loop; nothing may block. Descriptors of
 * execs are edge-triggered and remember in `ready` that there may be more, so that a stream without
 * credit or a full connection costs nothing. Freed objects stay on a list until the batch of events
 * that may still name them is over.
 */
#ifndef HOB_POOL_SANDBOX_INIT_INIT_H
#define HOB_POOL_SANDBOX_INIT_INIT_H

#include "pool/sandbox/init_protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

#define PAYLOAD_MAX (INIT_PACKET_MAX - sizeof(struct init_header))

/* ---- main.c ---- */
enum watch_kind {
	WATCH_CONTROL,
	WATCH_LISTEN,
	WATCH_SIGNAL,
	WATCH_STDOUT,
	WATCH_STDERR,
	WATCH_STDIN,
	WATCH_PROBE
};

struct exec;
struct probe;
struct watch {
	enum watch_kind kind;
	struct exec *exec;
	struct probe *probe;
};

bool watch_add(int fd, uint32_t events, struct watch *watch);
void watch_change(int fd, uint32_t events, struct watch *watch);
/* To be used for what is watched: a child that is just starting or dying still has copies of all
 * descriptors, so closing alone would not end the events. */
void watch_close(int *fd);
int64_t now_us(void);
int64_t now_ms(void);
void fd_close(int *fd);
/* snprintf with an end in every case. */
void text_format(char *text, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* One packet's worth, page-aligned, for whoever runs at the moment; given back to the kernel when
 * nothing has gone on for a while. */
extern char scratch[INIT_PACKET_MAX];
void scratch_used(ssize_t length);
/* Open on /dev/null from the start: what is there later is the sandbox's choice. */
extern int null_fd;

/* ---- wire.c: the connection ---- */
void wire_use(int fd); /* replaces the one there is, and says hello */
void wire_on_ready(uint32_t events);
bool wire_is_open(void);
/* Nothing waits to be sent: time for data. */
bool wire_is_clear(void);
/* Sends, or queues what the socket has no room for. The body and then `data`. */
void wire_send(uint32_t type, uint32_t id, const void *body, size_t body_length, const void *data,
	size_t length);
void wire_send_u32(uint32_t type, uint32_t id, uint32_t value);
/* Why a command did not start: an errno, with the step that failed where it is known. */
#define REFUSAL(sys, step) ((sys) | (int)(step) << 16)
#define REFUSAL_SYS(sys) ((sys)&0xffff)
#define REFUSAL_STEP(sys) ((sys) >> 16)
void wire_refuse(uint32_t id, int sys, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* What hob said makes no sense: ends the connection. */
void wire_reject(void);

/* ---- kept.c: the last output of an exec ---- */
struct kept {
	char *data; /* records: a header and its bytes */
	size_t length, room;
	size_t last; /* offset of the last record, to add to it */
	uint64_t total; /* bytes of output that were ever added */
};
struct kept_cursor {
	size_t record; /* offset */
	size_t done; /* bytes of it that were given out */
};
/* Without memory it only forgets more. */
void kept_add(struct kept *kept, uint32_t type, const void *data, size_t length);
/* The next bytes, at most `max`, of one stream; 0 at the end. */
size_t kept_next(const struct kept *kept, struct kept_cursor *cursor, size_t max, uint32_t *type,
	const char **data);
/* Both streams as they came, from the byte *position of all that were ever added, or the oldest
 * that is left; moves *position behind them. 0: no more. */
size_t kept_copy(const struct kept *kept, uint64_t *position, char *to, size_t max);
void kept_done(struct kept *kept);

/* ---- user.c ---- */
struct user {
	bool is_root; /* nothing to change */
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t group_count;
	char name[64];
	char home[256];
};
/* "", "name", "name:group", "uid", "uid:gid" by the sandbox's own files. 0, or an errno and why. */
int user_find(const char *text, struct user *user, char *why, size_t why_size);
void user_done(struct user *user);

/* ---- spawn.c ---- */
struct spawn {
	char **argv; /* heap, of pointers into the request */
	char **env; /* heap */
	const char *cwd;
	const struct user *user;
	int fds[3];
	bool tty; /* fds[0] becomes the controlling terminal */
	bool apply; /* not a program: apply_run(argv[0]) */
};
/* The pid; or -1, and why with its REFUSAL. */
pid_t spawn_start(const struct spawn *spawn, int *ret_sys, char *why, size_t why_size);

/* ---- apply.c, in a process of its own ---- */
void apply_run(const char *workspace) __attribute__((noreturn));

/* ---- kill.c ---- */
/* Kills the command and, as far as they can be found, all that it started. */
void spawn_kill(pid_t pid);

/* ---- terminal.c ---- */
/* Both ends close-on-exec, the master non-blocking. 0 or an errno. */
int terminal_open(const struct init_size *size, uid_t owner, int *ret_master, int *ret_slave);
void terminal_resize(int master, const struct init_size *size);
/* What ends the input on this terminal now: its length, 0 in raw mode. */
size_t terminal_end_text(int master, char text[2], bool line_is_open);

/* ---- exec.c; exec_request is in exec_request.c ---- */
struct stream {
	struct watch watch;
	uint32_t type; /* INIT_STDOUT, INIT_STDERR */
	int fd; /* -1: ended */
	bool ready;
	bool hung_up; /* nobody can write any more: a short read is the end */
	uint64_t left; /* once counted */
};

struct input {
	struct watch watch;
	int fd; /* -1: closed, or the terminal's master, which belongs to out[0] */
	bool ready;
	bool end; /* hob said that no more comes */
	bool line_is_open; /* the last byte was no newline */
	char *data; /* not yet taken by the command */
	size_t start, length, room;
	uint32_t unreported; /* taken, and not yet granted anew */
};

struct exec {
	struct exec *next;
	uint32_t id; /* 0: forgotten; lives only to drain what a grandchild writes */
	pid_t pid;
	bool tty;
	bool quiet; /* its output is only kept */
	bool group; /* its process group ends with it */
	bool ends_with_wire; /* what feeds it must not hang on when hob is gone */
	bool attached; /* this connection hears of it */
	bool exited;
	bool finished; /* and its output is over: what comes still is drained */
	bool reported; /* EXITED went out on this connection */
	bool counted; /* 100 ms after the exit: `left` of each stream was written until then */
	bool dead; /* to be freed after this turn */
	bool replaying;
	struct kept_cursor replay;
	uint64_t grant;
	int64_t started_us;
	int64_t deadline_ms;
	int64_t pause_ms; /* quiet: much came; it is not read again before this */
	struct stream out[2];
	struct input in;
	struct kept kept;
	struct init_exited result;
};

struct exec *exec_find(uint32_t id);
size_t exec_count(void);
/* Takes a new one, whose descriptors are watched already, into the table. */
void exec_add(struct exec *exec);
void exec_request(uint32_t id, char *body, size_t length);
void exec_stdin(struct exec *exec, const char *data, size_t length);
void exec_stdin_end(struct exec *exec);
void exec_window(struct exec *exec, uint32_t bytes);
void exec_signal(struct exec *exec, uint32_t signal);
void exec_replay(struct exec *exec);
void exec_forget(struct exec *exec);
void exec_on_ready(const struct watch *watch, uint32_t events);
void exec_reaped(pid_t pid, int status, const struct rusage *usage);
/* At a new connection: nobody hears anything until INIT_REPLAY; sends the states. */
void exec_detach_all(void);
void exec_send_states(void);
/* Moves what can be moved, a packet a stream. True: there is more to do at once. */
bool exec_run(void);
/* Until the next deadline; -1: none. */
int exec_timeout_ms(void);
void exec_bury(void);

/* ---- input.c: stdin of an exec ---- */
/* False: more than was granted. */
bool input_add(struct exec *exec, const char *data, size_t length);
void input_pump(struct exec *exec);
void input_close(struct exec *exec);

/* ---- file.c ---- */
struct removal;
struct file_job {
	struct file_job *next;
	uint32_t id;
	uint32_t type; /* INIT_FILE_READ … INIT_FILE_REMOVE, INIT_LOG */
	struct init_file request;
	char *path; /* as it was asked for, for messages */
	int fd; /* the file, or the folder that is listed */
	int dir_fd; /* WRITE, REMOVE: the folder that it is in */
	char *name; /* its name there */
	char temporary[40]; /* WRITE: what it is called until its end, or "" */
	struct removal *removal;
	uint64_t size; /* READ: send no more than this unless it is 0 */
	uint64_t bytes; /* moved */
	uint64_t grant;
	uint32_t unreported; /* WRITE: taken, and not yet granted anew */
	struct init_log log; /* LOG */
	uint64_t position; /* LOG: of the next byte */
	bool dead;
};

void file_request(uint32_t type, uint32_t id, const char *body, size_t length);
struct file_job *file_find(uint32_t id);
void file_data(struct file_job *job, const char *data, size_t length);
void file_end(struct file_job *job);
void file_cancel(struct file_job *job);
void file_cancel_all(void);
bool file_run(void);
void file_bury(void);
/* For the parts of it: ends the job, with an answer or without. */
void file_fail(struct file_job *job, int sys, const char *what);
void file_done(struct file_job *job, uint64_t count);
void file_send_info(const struct file_job *job, const struct stat *st);
/* A job at the end of the queue; NULL when it was refused. */
struct file_job *file_job_new(uint32_t type, uint32_t id, const char *path, size_t path_length);

/* ---- log.c: what is kept of quiet execs ---- */
void log_request(uint32_t id, const char *body, size_t length);
bool log_is_runnable(const struct file_job *job);
void log_run(struct file_job *job);
/* Those who read the one read the other from now on. */
void file_logs_move(uint32_t from, uint32_t to);

/* ---- probe.c: is a service there yet? ---- */
void probe_request(uint32_t id, const char *body, size_t length);
void probe_on_ready(struct probe *probe, uint32_t events);
void probe_cancel(uint32_t id);
void probe_cancel_all(void);
/* Until the next deadline; -1: none. */
int probe_timeout_ms(void);
/* Ends those whose time is up, and frees what is over. */
void probe_bury(void);

/* ---- file_write.c, file_list.c ---- */
void file_write_start(struct file_job *job);
void file_list_run(struct file_job *job);

/* ---- file_path.c ---- */
/* Resolves as a process inside would, but through no magic link. The fd, or a negative errno. */
int path_open(int dir_fd, const char *path, int flags, uint64_t resolve);
/* Opens the folder that holds `path` and splits off the last name (heap). `follow`: when that is a
 * symbolic link, goes on to where it leads. `make` is for the path itself only, not for where links
 * lead. 0 or a negative errno. */
int path_parent(const char *path, bool make, bool follow, int *ret_dir_fd, char **ret_name);

/* The next entries into `scratch`, as struct dirent: bytes, 0 at the end, -1 with errno. */
int folder_read(int fd);

/* ---- file_remove.c ---- */
/* A folder and what it holds, a bounded piece at a time. */
struct removal *removal_new(int dir_fd, const char *name);
/* 1: done; 0: call again; or a negative errno. */
int removal_run(struct removal *removal);
uint64_t removal_count(const struct removal *removal);
void removal_free(struct removal *removal);

#endif
