/* hobd: the daemon that keeps sandboxes warm and gives them out. This file reads the command line.
 */
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/daemon.h"
#include "gen/version.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
	"hobd keeps sandboxes of every environment ready and serves the API on a unix socket.\n"
	"Start it as root: it keeps only its launcher process as root and becomes an ordinary "
	"user.\n"
	"\n"
	"  hobd [--config FILE] [--log-level LEVEL] [--json-log] [--stop-sandboxes-on-exit]\n"
	"\n"
	"  --config FILE             settings; without it $HOB_CONFIG, or " CONFIG_DEFAULT_PATH "\n"
	"                            if it exists\n"
	"  --log-level LEVEL         debug, info, warn or error; overrides the settings\n"
	"  --json-log                one JSON object a line instead of key=value\n"
	"  --stop-sandboxes-on-exit  SIGTERM ends every sandbox too, as SIGINT does\n"
	"  --help, --version\n"
	"\n"
	"Signals:\n"
	"  SIGTERM   stop serving and exit; sandboxes and their commands go on, and the next hobd\n"
	"            adopts them\n"
	"  SIGINT    (Ctrl-C) end every sandbox, leave nothing mounted or running, exit\n"
	"  SIGHUP    read the folder of environments again\n"
	"\n"
	"Settings of hob.yaml:\n";

enum option_id { OPT_CONFIG = 256, OPT_LEVEL, OPT_JSON, OPT_STOP, OPT_HELP, OPT_VERSION };

struct command_line {
	const char *config;
	const char *level;
	bool json;
	struct daemon_options daemon;
};

/* 1: done, exit with success. */
static int parse(int argc, char **argv, struct command_line *line, struct error *err)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, OPT_CONFIG},
		{"log-level", required_argument, NULL, OPT_LEVEL},
		{"json-log", no_argument, NULL, OPT_JSON},
		{"stop-sandboxes-on-exit", no_argument, NULL, OPT_STOP},
		{"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION},
		{NULL, 0, NULL, 0},
	};
	int id;

	opterr = 0;
	while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (id) {
		case OPT_CONFIG:
			line->config = optarg;
			break;
		case OPT_LEVEL:
			line->level = optarg;
			break;
		case OPT_JSON:
			line->json = true;
			break;
		case OPT_STOP:
			line->daemon.stop_sandboxes = true;
			break;
		case OPT_HELP:
			fputs(help, stdout);
			config_print_reference();
			return 1;
		case OPT_VERSION:
			puts("hobd " HOB_VERSION);
			return 1;
		default:
			error_set(err, ERROR_USAGE, "unknown option or missing value: %s",
				argv[optind - 1]);
			return error_hint(err, "hobd --help");
		}
	}
	if (optind < argc) {
		error_set(err, ERROR_USAGE, "unexpected argument: %s", argv[optind]);
		return error_hint(err, "hobd --help");
	}
	return 0;
}

static int run(int argc, char **argv, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	struct command_line line = {0};
	enum log_level level = LOG_INFO;
	const char *level_name;
	int status = parse(argc, argv, &line, err);

	if (status != 0) {
		return status < 0 ? status : 0;
	}
	log_setup("hobd", LOG_INFO, line.json);
	if ((status = config_load(line.config, &config, err)) < 0) {
		return status;
	}
	level_name = line.level != NULL ? line.level : config->log_level;
	if (!log_level_from_name(level_name, &level)) {
		return error_set(err, ERROR_USAGE, "unknown log level \"%s\"", level_name);
	}
	log_setup("hobd", level, line.json || config->log_json);
	return daemon_run(config, &line.daemon, err);
}

int main(int argc, char **argv)
{
	struct error err = ERROR_INIT;

	if (run(argc, argv, &err) < 0) {
		error_print("hobd", &err);
		return error_exit_code(err.kind);
	}
	return 0;
}
