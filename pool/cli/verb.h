/*
 * A verb of the command line: `hob create`, `hob builds log`. Its table gives the parser its
 * options and --help its text; `run` gets what was parsed.
 */
#ifndef HOB_POOL_CLI_VERB_H
#define HOB_POOL_CLI_VERB_H

#include "pool/cli/options.h"

struct cli;
struct call;

typedef int verb_fn(struct call *call, struct error *err);

struct verb {
	const char *name;
	const char *group; /* heading in `hob help`; NULL for the parts of a verb */
	const char *operands; /* as written after the name in usage lines; may be empty */
	const char *summary; /* one line */
	const char *details; /* further lines of --help, or NULL */
	const struct option_row *options;
	size_t option_count;
	size_t values_size; /* of the struct that the rows fill */
	const void *defaults; /* such a struct; NULL: zeroes */
	size_t operands_min, operands_max;
	size_t command_after; /* operands before a command that is taken as it stands; 0: no command
			       */
	bool raw; /* everything after the name goes to `run` unparsed, --help too */
	verb_fn *run;
	const struct verb *const
		*parts; /* NULL-terminated; the first is meant when none is named */
};

struct call {
	struct cli *cli;
	const struct verb *verb;
	void *values; /* the defaults, then filled in by the options */
	char **operands;
	size_t operand_count;
	int exit_code; /* of the program; when run() fails, 0 is for as its error says */
};

#define VERB_OPTIONS(rows, type)                                                                   \
	.options = (rows), .option_count = sizeof(rows) / sizeof((rows)[0]),                       \
	.values_size = sizeof(type)

extern const struct verb verb_create, verb_exec, verb_attach, verb_shell, verb_cp, verb_ls,
	verb_info, verb_logs, verb_events, verb_ps, verb_timeout, verb_sync, verb_pause,
	verb_resume, verb_usage, verb_rm, verb_snapshot, verb_restore, verb_fork, verb_pool,
	verb_build, verb_builds, verb_env, verb_env_import, verb_env_pin, verb_images,
	verb_snapshots, verb_warm, verb_simulate, verb_doctor, verb_version, verb_help;
/* Of `hob pool`, in a file of its own. */
extern const struct verb pool_explain, pool_hints;
extern const struct verb verb_store;
extern const struct verb verb_top;

#endif
