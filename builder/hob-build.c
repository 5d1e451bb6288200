/*
 * hob-build: environments become images. Started as root it forks its launcher, opens what only
 * root may, and is user hob from then on; everything that is parsed or run comes after that.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "builder/bases/oci.h"
#include "builder/collect.h"
#include "builder/git/git.h"
#include "builder/job.h"
#include "builder/local.h"
#include "builder/machine.h"
#include "builder/packages/advice.h"
#include "builder/report.h"
#include "builder/source.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/free_space.h"
#include "configs/schedule.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/store.h"
#include "snapshots/volume/volume.h"
#include "gen/version.h"

#include <fcntl.h>
#include <getopt.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define BUILD_NICE 10

static const char usage[] =
	"usage: hob-build ENVIRONMENT... | --due | --all   (as root)\n"
	"\n"
	"Builds images from environments, where something changed since their last image.\n"
	"\n"
	"  --due            those whose time has come (for cron or a timer)\n"
	"  --all            every environment\n"
	"  --force          build although nothing changed, and run every step\n"
	"  --no-cache       build all from nothing: no layer is reused\n"
	"  --explain        only say what would be done to each layer, and why; of all "
	"environments\n"
	"                   when none is named\n"
	"  --scheduled      nobody asked: do not try at once again what has failed (as --due "
	"does)\n"
	"  --config FILE    instead of " CONFIG_DEFAULT_PATH " (also $HOB_CONFIG)\n"
	"  --json           one JSON object a line: begin, stage, progress, log, output, result\n"
	"  --help, --version\n"
	"\n"
	"Exit code: 0 published or unchanged, 2 wrong usage or environment, 3 not found, 5 already "
	"being\n"
	"built, 13 the source failed, 14 cancelled, 1 a step failed; --due and --all try all of "
	"them and\n"
	"exit with the first failure's code.\n";

struct options {
	const char *config;
	struct job_options job;
	bool due, all, explain, json, shown; /* shown: --help or --version was answered */
	char **names; /* NULL-terminated, of argv */
};

enum {
	OPTION_DUE = 256,
	OPTION_ALL,
	OPTION_FORCE,
	OPTION_SCHEDULED,
	OPTION_NO_CACHE,
	OPTION_EXPLAIN,
	OPTION_CONFIG,
	OPTION_JSON,
	OPTION_VERSION
};

static int take_option(int option, struct options *options, const char *word, struct error *err)
{
	switch (option) {
	case OPTION_DUE:
		options->due = true;
		return 0;
	case OPTION_ALL:
		options->all = true;
		return 0;
	case OPTION_FORCE:
		options->job.force = true;
		return 0;
	case OPTION_NO_CACHE:
		options->job.force = options->job.no_cache = true;
		return 0;
	case OPTION_SCHEDULED:
		options->job.scheduled = true;
		return 0;
	case OPTION_EXPLAIN:
		options->explain = true;
		return 0;
	case OPTION_CONFIG:
		options->config = optarg;
		return 0;
	case OPTION_JSON:
		options->json = true;
		return 0;
	case OPTION_VERSION:
		printf("hob-build %s\n", HOB_VERSION);
		options->shown = true;
		return 0;
	case 'h':
		fputs(usage, stdout);
		options->shown = true;
		return 0;
	default:
		error_set(err, ERROR_USAGE, "unknown option, or one without its value: %s", word);
		return error_hint(err, "hob-build --help");
	}
}

static int parse_options(int argc, char **argv, struct options *options, struct error *err)
{
	static const struct option table[] = {
		{"due", no_argument, NULL, OPTION_DUE},
		{"all", no_argument, NULL, OPTION_ALL},
		{"force", no_argument, NULL, OPTION_FORCE},
		{"scheduled", no_argument, NULL, OPTION_SCHEDULED},
		{"no-cache", no_argument, NULL, OPTION_NO_CACHE},
		{"explain", no_argument, NULL, OPTION_EXPLAIN},
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"json", no_argument, NULL, OPTION_JSON},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, OPTION_VERSION},
		{NULL, 0, NULL, 0},
	};
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		status = take_option(option, options, argv[optind - 1], err);
		if (status < 0 || options->shown) {
			return status;
		}
	}
	options->names = argv + optind;
	options->all |= options->explain && options->names[0] == NULL && !options->due;
	if ((options->names[0] != NULL) + options->due + options->all != 1) {
		error_set(err, ERROR_USAGE,
			"say what to build: names of environments, --due or --all");
		return error_hint(err, "hob-build --help");
	}
	return 0;
}

struct program {
	struct options options;
	struct config *config;
	struct report *report;
	struct environment_list list;
	struct environment **chosen;
	size_t chosen_count;
	struct local_files files;
	struct launcher *launcher;
	struct store *store;
	struct machine machine;
	int code; /* of the first failure */
};

static void note_failure(struct program *program, const struct error *err)
{
	if (program->code == 0) {
		program->code = error_exit_code(err->kind);
	}
	error_print("hob-build", err);
}

/* The file that is named after it, if it could not be read: then that is what is wrong. */
static const struct environment_failure *failure_of(const struct program *program, const char *name)
{
	for (size_t i = 0; i < program->list.failure_count; i++) {
		const struct environment_failure *failure = &program->list.failures[i];
		const char *slash = strrchr(failure->file, '/');
		const char *file = slash != NULL ? slash + 1 : failure->file;

		if (str_starts(file, name) && streq(file + strlen(name), ".yaml")) {
			return failure;
		}
	}
	return NULL;
}

static int unknown_environment(const struct program *program, const char *name, struct error *err)
{
	const struct environment_failure *failure = failure_of(program, name);
	const char **names;
	const char *nearest;

	if (failure != NULL) {
		error_copy(err, &failure->error);
		advice_add(program->config, failure->file, err);
		return -(int)err->kind;
	}
	names = xcalloc(program->list.count + 1, sizeof(*names));
	for (size_t i = 0; i < program->list.count; i++) {
		names[i] = program->list.items[i]->name;
	}
	nearest = text_nearest(name, names, program->list.count);
	error_set(err, ERROR_NOT_FOUND, "no environment %s in %s", name,
		program->config->environments);
	if (program->list.failure_count > 0) {
		error_hint(err, "%s cannot be used: %.300s", program->list.failures[0].file,
			program->list.failures[0].error.message);
	} else if (nearest != NULL) {
		error_hint(err, "did you mean %s?", nearest);
	} else {
		error_hint(err, "write %s/%s.yaml", program->config->environments, name);
	}
	free(names);
	return -(int)err->kind;
}

/* --due cannot ask the catalog yet: all are prepared, and those not due are passed over later. */
static int choose_environments(struct program *program, struct error *err)
{
	program->chosen = xcalloc(program->list.count + strv_count(program->options.names) + 1,
		sizeof(*program->chosen));
	if (program->options.names[0] == NULL) {
		for (size_t i = 0; i < program->list.count; i++) {
			program->chosen[program->chosen_count++] = program->list.items[i];
		}
		for (size_t i = 0; i < program->list.failure_count; i++) {
			note_failure(program, &program->list.failures[i].error);
		}
		return 0;
	}
	for (char **name = program->options.names; *name != NULL; name++) {
		struct environment *found = environment_list_find(&program->list, *name);

		if (found == NULL) {
			return unknown_environment(program, *name, err);
		}
		program->chosen[program->chosen_count++] = found;
	}
	return 0;
}

static int load(struct program *program, struct error *err)
{
	enum log_level level = LOG_INFO;
	int status = config_load(program->options.config, &program->config, err);

	if (status < 0) {
		return status;
	}
	(void)log_level_from_name(program->config->log_level, &level);
	log_setup("hob-build", level, program->config->log_json);
	if (geteuid() != 0) {
		error_set(err, ERROR_DENIED, "hob-build must be started as root");
		return error_hint(err,
			"sudo hob-build …: it makes sandboxes, and becomes user %s at once",
			program->config->user);
	}
	status = environment_list_load(program->config->environments, &program->list, err);
	return status < 0 ? status : choose_environments(program, err);
}

static void log_sweep(const struct store_sweep *sweep)
{
	if (sweep->staging + sweep->orphans + sweep->finished + sweep->missing + sweep->builds +
			sweep->heads + sweep->stuck >
		0) {
		log_info("store.recovered", "staging", sweep->staging, "orphans", sweep->orphans,
			"finished", sweep->finished, "missing", sweep->missing, "builds",
			sweep->builds, "heads", sweep->heads, "stuck", sweep->stuck);
	}
}

/* Sandboxes in use go first; the launcher, and so every step, inherits it. */
static void yield_to_others(void)
{
	int nice_now = getpriority(PRIO_PROCESS, 0);

	if ((nice_now < BUILD_NICE && setpriority(PRIO_PROCESS, 0, BUILD_NICE) < 0) ||
		syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
			IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IOPRIO_BE_NR - 1)) < 0) {
		log_warn("build.not_nice", "errno", strerror(errno));
	}
}

/* From root to hob. One launcher is enough: the steps of a build follow one another. */
static int start(struct program *program, struct error *err)
{
	struct store_sweep sweep = {0};
	int status;

	program->config->launchers = 1;
	yield_to_others();
	status = volume_mount(program->config->store, err);
	if (status == 0) {
		status = launcher_start(program->config, -1, &program->launcher, err);
	}
	if (status == 0) {
		status = local_prepare(program->config, program->chosen, program->chosen_count,
			&program->files, err);
	}
	if (status == 0) {
		status = privileges_drop(program->config, err);
	}
	if (status == 0) {
		status = machine_init(&program->machine, program->config, program->report, err);
	}
	if (status == 0) {
		status = machine_use_launcher(&program->machine, program->launcher, err);
	}
	if (status == 0) {
		status = store_open(program->config->store, STORE_CREATE, &program->store, err);
	}
	if (status < 0) {
		return status;
	}
	program->machine.store = program->store;
	store_set_remover(program->store, machine_remove, &program->machine);
	status = machine_sweep(&program->machine, err);
	if (status == 0) {
		status = store_recover(program->store, &sweep, err);
		log_sweep(&sweep);
	}
	return status;
}

static bool is_due(struct program *program, const struct environment *environment)
{
	struct error err = ERROR_INIT;
	struct schedule schedule = schedule_of(environment, program->config->build_every_ms);
	int64_t last_ms = 0;

	if (build_last_started(program->store, environment->name, &last_ms, &err) < 0) {
		note_failure(program, &err);
		return false;
	}
	return schedule_next_ms(environment->name, &schedule, last_ms) <= clock_real_ms();
}

/* hobd does it by itself, as soon as its pool has moved to the new image. */
static bool hobd_runs(const struct program *program)
{
	CLEANUP(free_p) char *path = xasprintf("%s/hobd.lock", program->config->run);
	CLEANUP(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static void keep_up(struct program *program)
{
	struct error err = ERROR_INIT;

	if (program->machine.cancelled == 0 && !program->machine.launcher_lost &&
		machine_upkeep(&program->machine, &err) < 0) {
		log_failure("build.upkeep_failed", &err);
	}
}

/* What would be collected is collected before a build is refused for lack of space. */
static void make_room(struct program *program)
{
	struct free_space space = {0};
	struct error err = ERROR_INIT;

	if (free_space_look(program->config->store, program->config->free_space, &space, &err) ==
			0 &&
		space.low) {
		keep_up(program);
	}
}

/* Only after looking at every environment, each of which could be read. */
static void collect(struct program *program)
{
	struct collected collected = {0};
	struct error err = ERROR_INIT;

	if ((!program->options.due && !program->options.all) || program->list.failure_count > 0) {
		return;
	}
	if (collect_unused(program->store, program->list.items, program->list.count, &collected,
		    &err) < 0) {
		log_failure("build.not_collected", &err, "store", program->config->store);
	} else if (collected.mirrors + collected.downloads > 0) {
		log_info("build.collected", "mirrors", collected.mirrors, "downloads",
			collected.downloads);
	}
}

static int explain_all(struct program *program)
{
	for (size_t i = 0; i < program->chosen_count; i++) {
		struct error err = ERROR_INIT;

		if (job_explain(&program->machine, program->chosen[i], &program->files,
			    &program->options.job, program->options.json, &err) < 0) {
			note_failure(program, &err);
		}
	}
	return program->code;
}

static int build_all(struct program *program)
{
	struct job_options options = program->options.job;

	for (size_t i = 0; i < program->chosen_count; i++) {
		struct error err = ERROR_INIT;
		int status;

		if (program->options.due && !is_due(program, program->chosen[i])) {
			continue;
		}
		status = job_run(
			&program->machine, program->chosen[i], &program->files, &options, &err);
		if (status < 0 && !(status == -ERROR_BUSY && program->options.due)) {
			note_failure(program, &err);
		}
		if (program->machine.cancelled != 0 || program->machine.launcher_lost) {
			return program->code;
		}
	}
	collect(program);
	return program->code;
}

static void program_done(struct program *program)
{
	store_close(program->store);
	launcher_stop(program->launcher);
	machine_done(&program->machine);
	local_done(&program->files);
	environment_list_done(&program->list);
	free(program->chosen);
	report_free(program->report);
	config_free(program->config);
}

int main(int argc, char **argv)
{
	struct program program = {0};
	struct error err = ERROR_INIT;
	int code = 0;

	if (argc > 1 && (streq(argv[1], "--fetch") || streq(argv[1], "--sync") ||
				streq(argv[1], "--ancestry"))) {
		return source_main(argc, argv);
	}
	if (argc > 1 && streq(argv[1], "--resolve-base")) {
		return resolve_main(argc, argv);
	}
	log_setup("hob-build", LOG_INFO, false);
	if (parse_options(argc, argv, &program.options, &err) < 0) {
		error_print("hob-build", &err);
		return error_exit_code(err.kind);
	}
	if (program.options.shown) {
		return 0;
	}
	program.report = report_new(program.options.explain ? REPORT_QUIET
				    : program.options.json  ? REPORT_JSON
				    : isatty(STDOUT_FILENO) ? REPORT_TERMINAL
							    : REPORT_PLAIN);
	if (load(&program, &err) < 0 || start(&program, &err) < 0) {
		error_print("hob-build", &err);
		code = error_exit_code(err.kind);
	} else {
		make_room(&program);
		code = (program.options.explain ? explain_all : build_all)(&program);
		if (!hobd_runs(&program)) {
			keep_up(&program);
		}
	}
	program_done(&program);
	return code;
}
