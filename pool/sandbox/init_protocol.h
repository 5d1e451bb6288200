/*
 * What hob and hob-init, PID 1 of every sandbox, say to each other: one SOCK_SEQPACKET connection,
 * one packet a message, this header first, native byte order (both ends are one machine and one
 * build; `version` in HELLO refuses others). Included by hob-init, so nothing but libc here.
 *
 * Flow control: init sends at most the granted bytes of an exec's output or of a file that is read
 * (INIT_WINDOW adds to the grant), and hob at most the granted bytes of an exec's stdin or of a
 * file that is written (INIT_STDIN_WINDOW). An exec outlives the connection: its pipes back up, its
 * last INIT_REPLAY_MAX bytes of output and its exit are kept until INIT_FORGET. A new connection
 * hears nothing of an exec until it asks by INIT_REPLAY. File requests end with their connection.
 */
#ifndef HOB_POOL_SANDBOX_INIT_PROTOCOL_H
#define HOB_POOL_SANDBOX_INIT_PROTOCOL_H

#include <stdint.h>

#define INIT_VERSION 2
#define INIT_CONTROL_FD 3 /* the first connection, inherited */
#define INIT_LISTEN_FD 4 /* where later ones are accepted; not there in build sandboxes */

/* A packet with its header. Small enough for any socket buffer, large enough to stream well. */
#define INIT_PACKET_MAX 65536
#define INIT_EXECS_MAX 256 /* in one sandbox at a time, ended and not forgotten ones too */
#define INIT_WINDOW_DEFAULT 262144 /* first grant of output, both streams together */
#define INIT_STDIN_WINDOW_DEFAULT 65536 /* of an exec, granted with INIT_STARTED */
#define INIT_REPLAY_MAX 65536
#define INIT_FILES_MAX 32 /* file requests at a time */
#define INIT_FILE_ID_FIRST 0x80000000u /* ids of file requests start here, those of execs end */

enum init_type {
	/* hob -> init */
	INIT_EXEC = 1, /* struct init_exec + strings: user, cwd, argv…, env… each with its '\0' */
	INIT_STDIN, /* bytes */
	INIT_STDIN_END,
	INIT_WINDOW, /* uint32_t: further bytes of output allowed */
	INIT_SIGNAL, /* uint32_t signal, to the command's process group */
	INIT_RESIZE, /* struct init_size */
	INIT_REPLAY, /* STARTED, STDIN_WINDOW, the kept output again, then what comes. The grant
			starts anew at INIT_WINDOW_DEFAULT */
	INIT_FORGET, /* an ended exec's record may go; a running one is killed first */
	INIT_FILE_READ, /* struct init_file + path: INFO, DATA…, DONE. First grant
			   INIT_WINDOW_DEFAULT; never more data than INFO's size unless that is 0.
			   EISDIR for a folder */
	INIT_FILE_WRITE, /* struct init_file + path: STDIN_WINDOW when it is open; then
			    INIT_FILE_DATA… and INIT_FILE_END: DONE */
	INIT_FILE_LIST, /* struct init_file + path: INFO for the folder, ENTRY…, DONE */
	INIT_FILE_REMOVE, /* struct init_file + path: DONE */
	INIT_FILE_DATA, /* bytes, both ways */
	INIT_FILE_END,
	INIT_FILE_CANCEL, /* the partial file is removed; a log or probe is given up */
	/* Both with ids of file requests, and INIT_REFUSED when it fails. */
	INIT_LOG, /* struct init_log: what is kept of a quiet exec, INIT_FILE_DATA…, and then
		     INIT_FILE_DONE, or what comes until the exec is forgotten */
	INIT_PROBE, /* struct init_probe + text: is it there yet? INIT_FILE_DONE with the status of
		       HTTP, else 0 */
	/* init -> hob */
	INIT_HELLO = 64, /* struct init_hello; then one INIT_STATE for each exec it knows */
	INIT_STATE, /* struct init_state */
	INIT_STARTED, /* uint32_t pid inside */
	INIT_REFUSED, /* struct init_refused + text: the exec or file request did not start or
			 failed */
	INIT_STDOUT, /* bytes */
	INIT_STDERR, /* bytes */
	INIT_STDIN_WINDOW, /* uint32_t */
	INIT_EXITED, /* struct init_exited, after the last output (or 100 ms after the exit when a
			grandchild keeps the pipes open) */
	INIT_FILE_INFO, /* struct init_file_info */
	INIT_FILE_ENTRY, /* struct init_file_info + name, + '\0' + link target for symbolic links */
	INIT_FILE_DONE, /* uint64_t bytes moved, or files removed */
};

struct init_header {
	uint32_t type;
	uint32_t id; /* of the exec or file request; chosen by hob, unique among those alive */
};

#define INIT_EXEC_PTY 1u
#define INIT_EXEC_STDIN 2u /* else stdin is /dev/null */
#define INIT_EXEC_QUIET                                                                            \
	4u /* its output is kept and read with INIT_LOG, never sent; nobody need                   \
	      listen for it to go on */
#define INIT_EXEC_GROUP 8u /* what its process group left running ends with it */
#define INIT_EXEC_APPLY                                                                            \
	16u /* no program: a stream of struct apply_record on stdin is applied to the              \
	      workspace argv[0]. Its stdin ends with the connection */

/* PATH, HOME, USER and, on a terminal, TERM are added to the environment when it lacks them. */
struct init_exec {
	uint32_t flags;
	uint32_t argc, envc;
	uint16_t rows, cols;
	uint32_t window; /* first grant of output */
	uint32_t follows; /* QUIET: the ended exec whose kept output it goes on with; 0: none. That
			     one is forgotten, and those who read it read on */
};

struct init_size {
	uint16_t rows, cols;
};

struct init_hello {
	uint32_t version;
	uint32_t execs;
};

struct init_state {
	uint32_t pid;
	uint32_t ended; /* 0 running, 1 ended: INIT_EXITED follows the replay */
};

/* What of a command did not work. */
enum init_step { INIT_STEP_OTHER, INIT_STEP_USER, INIT_STEP_CWD, INIT_STEP_EXEC, INIT_STEPS };

struct init_refused {
	uint16_t sys; /* errno inside; the text is whole without it */
	uint16_t step; /* of a command: enum init_step */
};

struct init_exited {
	int32_t code; /* 0 to 255, or 128 + signal */
	int32_t signal; /* 0: it exited by itself */
	uint64_t user_us, system_us, took_us;
	uint64_t max_rss_bytes;
};

#define INIT_FILE_PARENTS 1u /* WRITE: make missing folders */
#define INIT_FILE_RECURSIVE 2u /* REMOVE: folders with what they hold */

struct init_file {
	uint32_t flags;
	uint32_t mode; /* WRITE: permission bits */
	uint64_t bytes_max; /* WRITE and READ: refuse beyond this */
};

struct init_log {
	uint32_t exec;
	uint32_t follow; /* go on with what comes */
};

#define INIT_PROBES_MAX 32 /* at a time */
#define INIT_PROBE_TEXT_MAX 4096

enum init_probe_kind {
	INIT_PROBE_TCP, /* somebody accepts at 127.0.0.1 or ::1 */
	INIT_PROBE_HTTP, /* and answers `text`, a whole request, with a status of 2xx or 3xx */
	INIT_PROBE_FILE, /* there is something at the path `text` */
};

struct init_probe {
	uint32_t kind;
	uint32_t port;
	uint32_t timeout_ms;
};

/*
 * The way of a workspace from one commit to another, as INIT_EXEC_APPLY reads it: APPLY_BEGIN,
 * packs, changes in any order, refs, APPLY_END; each record is this struct, then the path, then the
 * data. Nothing is changed before APPLY_END came and every path that is to change was found as it
 * was at the old commit (or is at the new one already). Object ids are git's SHA-1.
 */
#define APPLY_VERSION 1
#define APPLY_PATH_MAX 4095
#define APPLY_CHANGES_MAX 200000
#define APPLY_ID_SIZE 20

enum apply_type {
	APPLY_BEGIN = 1, /* path: the branch HEAD is to be on, or "" for none; old_id, new_id:
			    commits; time: of the files written */
	APPLY_OBJECTS, /* path: name of a file for .git/objects/pack; data: the file */
	APPLY_CHANGE, /* old_mode, new_mode: git's, 0 for none; old_id, new_id: of the blobs;
			 old_content: the id of what a checkout writes for old_id; data: what one
			 writes for new_id, or the text of a symbolic link */
	APPLY_REF, /* path: "HEAD" or refs/…; data: the file */
	APPLY_END,
};

struct apply_record {
	uint32_t type;
	uint32_t version;
	uint32_t path_length;
	uint32_t old_mode, new_mode;
	uint8_t old_id[APPLY_ID_SIZE], new_id[APPLY_ID_SIZE], old_content[APPLY_ID_SIZE];
	int64_t time;
	uint64_t data_length;
};

/* How it ended, as its exit code. */
enum apply_code {
	APPLY_DONE = 0,
	APPLY_CONFLICT = 10, /* nothing changed; stdout: the paths, each with its '\0' */
	APPLY_UNTOUCHED = 11, /* failed before anything changed; stderr says why */
	APPLY_CUT_OFF = 13, /* the stream ended early; nothing changed */
	APPLY_TORN = 12, /* failed when some of it had changed; the same stream again heals it */
};

struct init_file_info {
	uint32_t mode; /* st_mode */
	uint32_t uid, gid;
	uint32_t unused;
	uint64_t size;
	int64_t mtime_ns;
};

#endif
