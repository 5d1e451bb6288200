/* hob-snapshots: the store's images for an operator, while hobd runs and while it does not. */
#include "snapshots/cli.h"

#include "base/log.h"
#include "base/text.h"

#include <getopt.h>

#define WORDS_MAX 2
#define OPERANDS_WIDTH 14 /* of the longest */

struct verb {
	const char *words[WORDS_MAX]; /* the second may be NULL */
	const char *operands;
	const char *summary;
	size_t operands_max;
	bool removes; /* takes --dry-run and --head */
	int (*run)(struct snapshots_cli *cli, struct error *err);
};

static const struct verb verbs[] = {
	{{"images", "ls"}, "[ENVIRONMENT]", "List images, newest first", 1, false, cli_images_ls},
	{{"images", "info"}, "IMAGE…", "Show layers, users and what removing it frees", SIZE_MAX,
		false, cli_images_info},
	{{"images", "rm"}, "IMAGE…", "Remove images that nothing needs", SIZE_MAX, true,
		cli_images_rm},
	{{"recover", NULL}, "", "Sweep what killed processes left, as every start does", 0, false,
		cli_recover},
};

static void print_options(bool removes)
{
	puts("\nOptions:\n"
	     "  --store PATH   the store's folder (default: what hob.yaml says)\n"
	     "  --config FILE  hob.yaml to read instead of /etc/hob/hob.yaml\n"
	     "  --json         print JSON, for programs\n"
	     "  -h, --help     print this help");
	if (removes) {
		puts("  --dry-run      only say what would be removed and freed\n"
		     "  --head         also remove an environment's head: it has no image then "
		     "until\n"
		     "                 its next build");
	}
}

/* How wide a text of UTF-8 is. */
static int columns(const char *text)
{
	int width = 0;

	for (; *text != '\0'; text++) {
		width += ((unsigned char)*text & 0xc0) != 0x80;
	}
	return width;
}

static void print_help(const struct verb *verb)
{
	if (verb != NULL) {
		printf("Usage: hob-snapshots %s%s%s [options] %s\n\n%s.\n", verb->words[0],
			verb->words[1] != NULL ? " " : "",
			verb->words[1] != NULL ? verb->words[1] : "", verb->operands,
			verb->summary);
		if (streq(verb->words[0], "images")) {
			puts("An IMAGE is img-12, 12, or an environment's name: its head.");
		}
		print_options(verb->removes);
		return;
	}
	puts("hob-snapshots looks after the images of a store.\n\nUsage: hob-snapshots VERB "
	     "[options] …\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s %s", verbs[i].words[0],
			verbs[i].words[1] != NULL ? verbs[i].words[1] : "");
		printf("  %-12s  %s%*s  %s\n", name, verbs[i].operands,
			OPERANDS_WIDTH - columns(verbs[i].operands), "", verbs[i].summary);
	}
	print_options(true);
}

/* The verb that the words name; they are taken off the operands. */
static const struct verb *find_verb(struct snapshots_cli *cli)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		size_t words = verbs[i].words[1] != NULL ? 2 : 1;

		if (cli->operand_count >= words && streq(cli->operands[0], verbs[i].words[0]) &&
			(words == 1 || streq(cli->operands[1], verbs[i].words[1]))) {
			cli->operands += words;
			cli->operand_count -= words;
			return &verbs[i];
		}
	}
	return NULL;
}

static int refuse_verb(const struct snapshots_cli *cli, struct error *err)
{
	bool images = cli->operand_count > 0 && streq(cli->operands[0], "images");
	const char *word = cli->operands[images ? 1 : 0], *nearest;
	const char *known[ARRAY_SIZE(verbs)];
	size_t count = 0;

	if (word == NULL) {
		error_set(err, ERROR_USAGE,
			images ? "images needs a verb: ls, info or rm" : "a verb is missing");
		return error_hint(err, "hob-snapshots --help lists them");
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (!images || streq(verbs[i].words[0], "images")) {
			known[count++] = verbs[i].words[images ? 1 : 0];
		}
	}
	error_set(err, ERROR_USAGE, "unknown verb \"%s\"", word);
	nearest = text_nearest(word, known, count);
	return nearest != NULL ? error_hint(err, "did you mean \"%s\"?", nearest)
			       : error_hint(err, "hob-snapshots --help lists them");
}

static int parse_options(struct snapshots_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {{"store", required_argument, NULL, 's'},
		{"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'},
		{"dry-run", no_argument, NULL, 'n'}, {"head", no_argument, NULL, 'H'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int option;

	argv[0] = program_invocation_short_name; /* getopt says it before its messages */
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 's':
			cli->store_path = optarg;
			break;
		case 'c':
			cli->config_path = optarg;
			break;
		case 'j':
			cli->json = true;
			break;
		case 'n':
			cli->dry_run = true;
			break;
		case 'H':
			cli->head = true;
			break;
		case 'h':
			cli->help = true;
			break;
		default:
			return -1; /* getopt has said what is wrong */
		}
	}
	cli->operands = argv + optind;
	cli->operand_count = (size_t)(argc - optind);
	return 0;
}

static int run(struct snapshots_cli *cli, struct error *err)
{
	const struct verb *verb = find_verb(cli);

	if (cli->help) {
		print_help(verb);
		return 0;
	}
	if (verb == NULL) {
		return refuse_verb(cli, err);
	}
	if ((cli->dry_run || cli->head) && !verb->removes) {
		return error_set(err, ERROR_USAGE, "--dry-run and --head are for images rm");
	}
	if (cli->operand_count > verb->operands_max) {
		return error_set(err, ERROR_USAGE, "\"%s\" is one word too many",
			cli->operands[verb->operands_max]);
	}
	return verb->run(cli, err);
}

int main(int argc, char **argv)
{
	struct snapshots_cli cli = {0};
	struct error err = ERROR_INIT;
	int status;

	log_setup("hob-snapshots", LOG_WARN, false);
	if (parse_options(&cli, argc, argv) < 0) {
		return error_exit_code(ERROR_USAGE);
	}
	status = run(&cli, &err);
	cli_done(&cli);
	if (status < 0) {
		fflush(stdout);
		error_print("hob-snapshots", &err);
		return error_exit_code(err.kind);
	}
	return 0;
}
