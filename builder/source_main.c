/*
 * `hob-build --fetch`, `--sync` and `--ancestry`: what hobd asks for between builds. No sandbox, no
 * catalog, one environment; --fetch is started as root, since sources on this machine may be
 * root's, and becomes user hob before it reads any of them.
 */
#include "base/log.h"
#include "base/memory.h"
#include "builder/local.h"
#include "builder/machine.h"
#include "builder/report.h"
#include "builder/source.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
	"usage: hob-build --fetch ENVIRONMENT [--config FILE]   (as root)\n"
	"       hob-build --sync ENVIRONMENT --from COMMIT --to COMMIT --ref REF [--source N]\n"
	"       hob-build --ancestry ENVIRONMENT --commit COMMIT COMMIT...\n"
	"\n"
	"For hobd. --fetch brings the mirrors of an environment's sources up to date and writes "
	"what\n"
	"it found to the store. --sync writes the way from one commit to another to its output, "
	"as\n"
	"hob-init applies it to a workspace, and a line about it to its standard error.\n"
	"--ancestry says which of the commits are, or come after, the one of --commit in the "
	"history of\n"
	"the first source.\n";

struct words {
	const char *config, *fetch, *sync, *ancestry, *commit;
	char *const *commits;
	bool help;
	struct source_sync way;
};

enum {
	OPTION_FETCH = 256,
	OPTION_SYNC,
	OPTION_ANCESTRY,
	OPTION_COMMIT,
	OPTION_SOURCE,
	OPTION_FROM,
	OPTION_TO,
	OPTION_REF,
	OPTION_CONFIG
};

static void take_option(struct words *words, int option)
{
	switch (option) {
	case OPTION_FETCH:
		words->fetch = optarg;
		break;
	case OPTION_SYNC:
		words->sync = optarg;
		break;
	case OPTION_ANCESTRY:
		words->ancestry = optarg;
		break;
	case OPTION_COMMIT:
		words->commit = optarg;
		break;
	case OPTION_SOURCE:
		words->way.index = strtoul(optarg, NULL, 10);
		break;
	case OPTION_FROM:
		words->way.from = optarg;
		break;
	case OPTION_TO:
		words->way.to = optarg;
		break;
	case OPTION_REF:
		words->way.ref = optarg;
		break;
	case OPTION_CONFIG:
		words->config = optarg;
		break;
	default:
		words->help = true;
		break;
	}
}

/* One of the three, with what it needs. */
static bool is_whole(const struct words *words)
{
	const struct source_sync *way = &words->way;
	bool operands = *words->commits != NULL;

	if ((words->fetch != NULL) + (words->sync != NULL) + (words->ancestry != NULL) != 1) {
		return false;
	}
	if (words->ancestry != NULL) {
		return words->commit != NULL && operands;
	}
	return !operands &&
	       (words->sync == NULL || (way->from != NULL && way->to != NULL && way->ref != NULL));
}

static int parse(int argc, char **argv, struct words *words, struct error *err)
{
	static const struct option table[] = {
		{"fetch", required_argument, NULL, OPTION_FETCH},
		{"sync", required_argument, NULL, OPTION_SYNC},
		{"ancestry", required_argument, NULL, OPTION_ANCESTRY},
		{"commit", required_argument, NULL, OPTION_COMMIT},
		{"source", required_argument, NULL, OPTION_SOURCE},
		{"from", required_argument, NULL, OPTION_FROM},
		{"to", required_argument, NULL, OPTION_TO},
		{"ref", required_argument, NULL, OPTION_REF},
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (option == '?') {
			error_set(err, ERROR_USAGE, "unknown option, or one without its value: %s",
				argv[optind - 1]);
			return error_hint(err, "hob-build --fetch --help");
		}
		take_option(words, option);
	}
	words->commits = &argv[optind];
	if (!words->help && !is_whole(words)) {
		error_set(err, ERROR_USAGE,
			"--fetch ENVIRONMENT, or --sync or --ancestry with all that it "
			"needs");
		return error_hint(err, "hob-build --fetch --help");
	}
	return 0;
}

static int run_one(struct machine *machine, const struct words *words,
	struct environment *environment, const struct local_files *files, struct error *err)
{
	if (words->ancestry != NULL) {
		return source_ancestry(machine, environment, words->commit, words->commits, err);
	}
	return words->fetch != NULL ? source_fetch(machine, environment, files, err)
				    : source_sync(machine, environment, &words->way, err);
}

static int become_user(const struct config *config, struct environment *environment,
	struct local_files *files, struct error *err)
{
	int status;

	if (geteuid() != 0) {
		return 0;
	}
	status = local_prepare(config, &environment, 1, files, err);
	return status < 0 ? status : privileges_drop(config, err);
}

static int run(const struct words *words, struct error *err)
{
	const char *name = words->fetch != NULL  ? words->fetch
			   : words->sync != NULL ? words->sync
						 : words->ancestry;
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(environment_list_done) struct environment_list list = {0};
	CLEANUP(report_free_p) struct report *report = report_new(REPORT_QUIET);
	CLEANUP(local_done) struct local_files files = {0};
	CLEANUP(machine_done) struct machine machine = {0};
	struct environment *environment;
	int status = config_load(words->config, &config, err);

	if (status == 0) {
		status = environment_list_load(config->environments, &list, err);
	}
	if (status < 0) {
		return status;
	}
	environment = environment_list_find(&list, name);
	if (environment == NULL) {
		return error_set(err, ERROR_NOT_FOUND, "no environment %s in %s", name,
			config->environments);
	}
	if ((status = become_user(config, environment, &files, err)) < 0 ||
		(status = machine_init(&machine, config, report, err)) < 0) {
		return status;
	}
	return run_one(&machine, words, environment, &files, err);
}

int source_main(int argc, char **argv)
{
	struct words words = {0};
	struct error err = ERROR_INIT;
	int status;

	log_setup("hob-build", LOG_INFO, false);
	status = parse(argc, argv, &words, &err);
	if (status == 0 && words.help) {
		fputs(usage, stdout);
		return 0;
	}
	if (status == 0) {
		status = run(&words, &err);
	}
	if (status < 0) {
		error_print("hob-build", &err);
		return error_exit_code(err.kind);
	}
	return 0;
}
