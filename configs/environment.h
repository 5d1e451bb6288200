/*
 * An environment: what the agents of one repository need, from one YAML file. Reading is strict:
 * an unknown key, a wrong type or a value out of range is ERROR_INVALID with file, line, column and
 * the nearest key or value that exists. Every default is in the table of configs/environment.c.
 */
#ifndef HOB_CONFIGS_ENVIRONMENT_H
#define HOB_CONFIGS_ENVIRONMENT_H

#include "base/error.h"
#include "base/memory.h"
#include "configs/packages/package.h"
#include "configs/schedule.h"

#include <stdbool.h>
#include <stdint.h>

enum base_kind { BASE_HOST, BASE_TAR, BASE_SCRATCH, BASE_OCI, BASE_DEB, BASE_KINDS };

/* How a source is fetched; names of secrets, never what they stand for. */
struct environment_auth {
	char *type; /* none, token, ssh-key or github-app */
	char *secret; /* token, ssh-key: the secret's name */
	char *user; /* token, ssh-key: with whom it goes; NULL: see check_source_auth */
	char *app; /* github-app: its name in hob.yaml */
	char *known_hosts; /* ssh-key: the secret with the keys of hosts */
};

struct environment_source {
	char *url; /* http(s)://, git://, file:///…, or an absolute path; "./" and "../" in the file
		      count from its folder and are absolute here. Never holds a password. */
	char *ref; /* branch, tag or full commit; default "HEAD", that of the remote */
	char *path; /* absolute, inside the sandbox; default /workspace */
	char *submodules; /* "false", "true" (its own) or "recursive" (theirs too) */
	struct environment_auth auth;
};

/* A download that every image has, in a layer below the sources. */
struct environment_file {
	char *url; /* http(s):// */
	char *sha256;
	char *path; /* where it stands, as one file; or */
	char *unpack; /* the folder for what the archive holds */
	char *mode; /* of `path`, in octal digits; NULL: 0644 */
	char **mirrors; /* further URLs, tried in order; NULL: none */
	int64_t size_max; /* bytes of the download */
	int line;
};

struct environment_step {
	char *name; /* unique in the environment; name_is_valid */
	char *run; /* given to /bin/sh -c */
	char **inputs; /* patterns of what it reads of the sources (glob.h); NULL: all of them */
	char **secrets; /* names of those that are in /run/secrets while it runs; NULL: none */
	bool strict; /* it sees nothing of the sources but its inputs */
	bool incremental; /* starts from its previous result */
	bool allow_failure;
	int64_t timeout_ms;
	int line; /* in the file, for messages */
};

struct environment_check {
	char *run; /* NULL: no check */
	int64_t timeout_ms;
};

/* A command that runs in every warm sandbox. It is ready when the one of ready_* that is set says
 * so, or as soon as it is started. */
struct environment_service {
	char *name; /* unique in the environment; name_is_valid */
	char *run; /* given to /bin/sh -c; stays in the foreground */
	char *user; /* NULL: the environment's */
	char *cwd; /* NULL: the environment's workdir */
	char **env; /* on top of the environment's; NULL: none */
	char *ready_tcp; /* a port of loopback, in digits */
	char *ready_http; /* http://127.0.0.1:PORT/PATH */
	char *ready_command; /* for /bin/sh -c: exits with 0 */
	char *ready_file; /* is there */
	int64_t ready_timeout_ms;
	int64_t ready_interval_ms;
	int64_t restart_attempts; /* in a row; 0: never started again */
	int64_t restart_delay_ms; /* before the first; doubles */
	int64_t restart_max_delay_ms;
	char *on_refresh; /* when the source is brought forward: "keep", "restart", "signal" */
	char *signal; /* "HUP", … */
	bool on_restore; /* started in sandboxes that are restored or forked, too */
};

struct environment_prime {
	char *run; /* NULL: none */
	int64_t timeout_ms;
	bool may_fail;
};

struct environment_limits {
	int64_t cpu_millis; /* 1000 is one CPU; 0: no limit. YAML: cpus: 1.5 */
	int64_t memory_bytes;
	int64_t pids;
	int64_t disk_bytes; /* what a step of a build may write, and a running sandbox; 0: no limit
			     */
};

/* What outlives what: see pool/dormant.h. */
enum environment_lifecycle {
	LIFECYCLE_EPHEMERAL, /* a sandbox ends with its idle time */
	LIFECYCLE_HYBRID, /* it is kept as a snapshot then, until it is needed again */
	LIFECYCLE_LONG_RUNNING, /* it does not end by idle time, nor with the machine */
	LIFECYCLES
};
const char *environment_lifecycle_name(enum environment_lifecycle lifecycle);
bool environment_lifecycle_from_name(const char *name, enum environment_lifecycle *ret);

/* How warm and claimed sandboxes follow the source. */
struct environment_sync {
	char *at; /* "never", "claim" (hints too) or "hint" */
	int64_t wait_ms; /* the answer to a claim waits for it so long */
	char *run; /* after a sync that changed files; NULL: nothing */
	bool refresh; /* a new image that differs in its source only does not replace sandboxes */
};

/* What gc keeps of an environment's snapshots. keep_last and keep_for_ms both 0: all of them. */
struct environment_retention {
	int64_t keep_last;
	int64_t keep_for_ms;
	bool keep_labelled;
};

struct environment {
	char *file; /* where it was read from, for messages */
	char *name; /* name_is_valid; unique */
	struct environment_source *sources;
	size_t source_count;
	enum base_kind base;
	char *base_location; /* tar: absolute path, http(s):// or file:///…; oci: HOST/NAME[:TAG],
				or an absolute path; deb: the suite */
	char *base_sha256; /* lower-case hex; tar: required; oci: NULL is refused by builds */
	int base_line; /* in the file, for messages */
	char *base_user, *base_secret; /* oci: for the registry; NULL: nobody */
	char *base_date; /* deb: as in deb_reference.h; NULL is refused by builds */
	char *base_mirror, *base_components; /* deb: http(s)://, may hold {date}; "main contrib" */
	char *base_security; /* deb: a mirror of SUITE-security beside it; NULL: none */
	char *base_keyring; /* deb: who may sign the mirror's release; NULL: Debian */
	char **env; /* KEY=value for steps and commands, sorted; never NULL */
	char *user; /* who commands run as inside, name or "uid[:gid]"; default root; NULL with an
		       oci base: whom that says */
	char *workdir; /* default: path of the first source, or /; NULL: what an oci base says */
	char **packages[PACKAGE_MANAGERS]; /* each with its exact version; NULL: none */
	struct environment_file *files;
	size_t file_count;
	struct environment_step *steps;
	size_t step_count;
	struct environment_service *services;
	size_t service_count;
	struct environment_prime prime; /* run once in every warm sandbox, when it has its services
					 */
	struct environment_check check; /* the gate before publishing */
	bool build_network; /* steps share the host's network (default) or have loopback only */
	int64_t build_timeout_ms;
	struct schedule schedule; /* of its builds; see schedule_of */
	int64_t clean_every_ms; /* the next build after this long reuses nothing; 0: never */
	int64_t pool_min;
	int64_t pool_max;
	int64_t pool_hit_rate; /* thousandths; 0: no forecast; -1: not said, hob.yaml's */
	int64_t pool_memory; /* of its ready sandboxes, bytes; 0: no limit of its own */
	int64_t pool_disk; /* of all of them, bytes; 0: no limit of its own */
	struct environment_limits limits;
	int64_t idle_ms; /* a claimed sandbox without a request or command for this long is
			    released; 0: never */
	int64_t pause_ms; /* a claimed sandbox is paused after this long idle; 0: never */
	int64_t max_age_ms; /* from claim; 0: never */
	char *lifecycle_type;
	enum environment_lifecycle lifecycle; /* the same */
	int64_t snapshot_every_ms; /* of a claimed sandbox, when somebody has been there; 0: never
				    */
	bool exit_snapshot; /* a claimed sandbox's files become a snapshot when it ends */
	struct environment_retention snapshots;
	struct environment_sync sync;
	char fingerprint[65]; /* sha256 of everything that shapes the image, all sources' commits
				 apart */
	char warm_fingerprint[65]; /* of services and prime; "" without: a warm sandbox of another
				      one is out of date, its image is not */
};

const char *base_kind_name(enum base_kind kind);

/* ERROR_INVALID, with file and line, when its base is not pinned: it is read, but not built. */
MUSTCHECK int environment_check_pinned(const struct environment *environment, struct error *err);

/* The caller owns *ret. The path is opened relative to the working folder. */
MUSTCHECK int environment_load(
	const char *path, struct environment **ret_environment, struct error *err);
/* The same from memory; `name` stands in messages for the file. For tests and fuzzing. */
MUSTCHECK int environment_parse(const char *name, const char *text, size_t length,
	struct environment **ret_environment, struct error *err);
/* The whole environment as YAML, every default written out; reads back to the same. free() it. */
char *environment_explain(const struct environment *environment);
/* The table, for tests and the reference. */
struct settings;
const struct settings *environment_settings(void);
/* The reference of every key: name, type, default and one line of text. */
void environment_print_reference(void);
void environment_free(struct environment *environment);
DEFINE_CLEANUP(environment_free_p, struct environment, environment_free)

/* The request that asks a service whether it is ready (ready_http), and its port (also ready_tcp;
 * 0: neither). The caller owns the text; NULL: none. */
char *service_request(const struct environment_service *service, uint16_t *ret_port);

struct environment_list {
	struct environment **items; /* sorted by name */
	size_t count;
	struct environment_failure {
		char *file;
		struct error error;
	} * failures; /* files that could not be used; the others still are */
	size_t failure_count;
};

/* Every *.yaml of the folder; two files with one name are failures of the second. Fails only when
 * the folder itself cannot be read. */
MUSTCHECK int environment_list_load(
	const char *folder, struct environment_list *ret_list, struct error *err);
void environment_list_done(struct environment_list *list);
/* NULL if there is none. */
struct environment *environment_list_find(const struct environment_list *list, const char *name);

#endif
