/*
 * `hob-build --resolve-base`: what `hob env pin` asks for a container image without a digest. No
 * store, no sandbox. Started as root it opens a layout that only root may read, and is user hob
 * from then on. The answer is one JSON object on standard output, also when it is an error.
 */
#include "builder/bases/oci.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "builder/git/git.h"
#include "builder/local.h"
#include "builder/machine.h"
#include "builder/report.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/settings.h"
#include "pool/sandbox/sandbox.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
	"usage: hob-build --resolve-base REFERENCE [--user NAME --secret NAME] [--config FILE]\n"
	"\n"
	"For `hob env pin`. Says which digest a container image has now, as one JSON object:\n"
	"{\"digest\": \"sha256:…\"} or {\"error\": {\"kind\", \"message\", \"hint\"}}.\n";

struct words {
	const char *config, *reference, *user, *secret;
	bool help;
};

enum { OPTION_RESOLVE = 256, OPTION_USER, OPTION_SECRET, OPTION_CONFIG };

static int parse(int argc, char **argv, struct words *words, struct error *err)
{
	static const struct option table[] = {
		{"resolve-base", required_argument, NULL, OPTION_RESOLVE},
		{"user", required_argument, NULL, OPTION_USER},
		{"secret", required_argument, NULL, OPTION_SECRET},
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (option) {
		case OPTION_RESOLVE:
			words->reference = optarg;
			break;
		case OPTION_USER:
			words->user = optarg;
			break;
		case OPTION_SECRET:
			words->secret = optarg;
			break;
		case OPTION_CONFIG:
			words->config = optarg;
			break;
		case 'h':
			words->help = true;
			break;
		default:
			return error_set(err, ERROR_USAGE,
				"unknown option, or one without its value: %s", argv[optind - 1]);
		}
	}
	return words->help || (words->reference != NULL && argv[optind] == NULL)
		       ? 0
		       : error_set(err, ERROR_USAGE, "--resolve-base REFERENCE");
}

/* Checked as if it stood in a file. */
static int make_environment(
	const struct words *words, struct environment **ret_environment, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {0};
	const char *const rows[][2] = {
		{"oci", words->reference}, {"user", words->user}, {"secret", words->secret}};

	buffer_add_str(&text, "name: pin\nbase:\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i][1] != NULL) {
			buffer_addf(&text, "  %s: ", rows[i][0]);
			yaml_write_quoted(&text, rows[i][1]);
			buffer_add_str(&text, "\n");
		}
	}
	return environment_parse(
		"--resolve-base", buffer_text(&text), text.length, ret_environment, err);
}

static int layout_fd(const struct environment *environment, const struct local_files *files,
	int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = git_url_path(environment->base_location);
	const struct local_file *file = path != NULL ? local_find(files, path) : NULL;

	*ret_fd = file != NULL ? file->fd : -1;
	if (file != NULL && file->fd < 0) {
		error_copy(err, &file->error);
		return -(int)err->kind;
	}
	return 0;
}

static int resolve(const struct words *words, char *sha256, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(environment_free_p) struct environment *environment = NULL;
	CLEANUP(report_free_p) struct report *report = report_new(REPORT_QUIET);
	CLEANUP(local_done) struct local_files files = {0};
	CLEANUP(machine_done) struct machine machine = {0};
	int fd = -1, status = config_load(words->config, &config, err);

	if (status == 0) {
		status = make_environment(words, &environment, err);
	}
	if (status == 0) {
		status = local_prepare(config, &environment, 1, &files, err);
	}
	if (status == 0 && geteuid() == 0) {
		status = privileges_drop(config, err);
	}
	if (status == 0) {
		status = machine_init(&machine, config, report, err);
	}
	if (status == 0) {
		status = layout_fd(environment, &files, &fd, err);
	}
	return status < 0 ? status : oci_base_resolve(&machine, environment, fd, sha256, err);
}

int resolve_main(int argc, char **argv)
{
	CLEANUP(json_decref_p) json_t *answer = NULL;
	struct words words = {0};
	struct error err = ERROR_INIT;
	char sha256[SHA256_TEXT_SIZE] = "";
	int status;

	log_setup("hob-build", LOG_INFO, false);
	status = parse(argc, argv, &words, &err);
	if (status == 0 && words.help) {
		fputs(usage, stdout);
		return 0;
	}
	if (status == 0) {
		status = resolve(&words, sha256, &err);
	}
	answer = status < 0 ? json_pack("{s:o}", "error", json_from_error(&err))
			    : json_pack("{s:s+}", "digest", "sha256:", sha256);
	json_print(answer);
	return status < 0 ? error_exit_code(err.kind) : 0;
}
