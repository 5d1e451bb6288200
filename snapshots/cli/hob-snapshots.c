/* hob-snapshots: the store's images and snapshots for an operator, while hobd runs and while it
 * does not. */
#include "snapshots/cli/cli.h"

#include "base/log.h"
#include "base/text.h"

#include <getopt.h>

#define WORDS_MAX 2
#define OPERANDS_WIDTH 19 /* of the longest */

/* Which options a verb takes, beside those that all take. */
enum takes {
	TAKES_DRY_RUN = 1 << 0,
	TAKES_HEAD = 1 << 1,
	TAKES_FILTER = 1 << 2,
	TAKES_COLUMNS = 1 << 3,
	TAKES_MOVE = 1 << 4,
	TAKES_ENVIRONMENT = 1 << 5,
	TAKES_RETENTION = 1 << 6,
	TAKES_DIFF = 1 << 7,
	TAKES_EXPORT = 1 << 8,
	TAKES_VERIFY = 1 << 9,
	TAKES_VOLUME = 1 << 10,
	TAKES_STAT = 1 << 11,
	TAKES_PACKAGES = 1 << 12,
};

struct verb {
	const char *words[WORDS_MAX]; /* the second may be NULL */
	const char *operands;
	const char *summary;
	size_t operands_min, operands_max;
	unsigned takes;
	int (*run)(struct snapshots_cli *cli, struct error *err);
};

static const struct verb verbs[] = {
	{{"ls", NULL}, "", "List snapshots, newest first", 0, 0, TAKES_FILTER | TAKES_COLUMNS,
		cli_ls},
	{{"tree", NULL}, "[NAME]", "Show lineage from images to their newest children", 0, 1,
		TAKES_ENVIRONMENT, cli_tree},
	{{"info", NULL}, "SNAPSHOT…", "Show layers, users and what removing it frees", 1, SIZE_MAX,
		0, cli_info},
	{{"rm", NULL}, "SNAPSHOT…", "Remove snapshots that nothing needs", 1, SIZE_MAX,
		TAKES_DRY_RUN, cli_rm},
	{{"pin", NULL}, "SNAPSHOT…", "Keep snapshots from rm and gc", 1, SIZE_MAX, 0, cli_pin},
	{{"unpin", NULL}, "SNAPSHOT…", "Let pinned snapshots go", 1, SIZE_MAX, 0, cli_unpin},
	{{"tag", NULL}, "SNAPSHOT TAG…", "Give a snapshot names", 2, SIZE_MAX, TAKES_MOVE, cli_tag},
	{{"untag", NULL}, "TAG…", "Take names away", 1, SIZE_MAX, 0, cli_untag},
	{{"gc", NULL}, "", "Remove what the environments' policies and nobody else keep", 0, 0,
		TAKES_DRY_RUN | TAKES_RETENTION | TAKES_ENVIRONMENT, cli_gc},
	{{"du", NULL}, "", "Show apparent, stored, shared and exclusive bytes", 0, 0,
		TAKES_ENVIRONMENT, cli_du},
	{{"diff", NULL}, "A B", "Show what B, a snapshot or image, has changed over A", 2, 2,
		TAKES_DIFF, cli_diff},
	{{"cp", NULL}, "SNAPSHOT:PATH TO", "Copy a file or a folder out; TO is new, a folder or -",
		2, 2, 0, cli_cp},
	{{"export", NULL}, "SNAPSHOT", "Write one archive, to standard output or a file", 1, 1,
		TAKES_EXPORT, cli_export},
	{{"import", NULL}, "[FILE]", "Read an archive that export wrote", 0, 1, 0, cli_import},
	{{"verify", NULL}, "[NAME…]", "Read every byte against its digest; all layers, or NAMEs'",
		0, SIZE_MAX, TAKES_VERIFY, cli_verify},
	{{"flatten", NULL}, "SNAPSHOT…", "Make one layer of those above its image", 1, SIZE_MAX, 0,
		cli_flatten},
	{{"dedupe", NULL}, "", "Store equal files of successive layers once", 0, 0, 0, cli_dedupe},
	{{"upkeep", NULL}, "", "What hobd does in the background: gc, flatten and dedupe", 0, 0, 0,
		cli_upkeep},
	{{"images", "ls"}, "[ENVIRONMENT]", "List images, newest first", 0, 1, 0, cli_images_ls},
	{{"images", "info"}, "IMAGE…", "Show layers, users and what removing it frees", 1, SIZE_MAX,
		TAKES_PACKAGES, cli_images_info},
	{{"images", "diff"}, "A B", "Show commits, packages, layers and files that B has changed",
		2, 2, TAKES_STAT, cli_images_diff},
	{{"images", "rm"}, "IMAGE…", "Remove images that nothing needs", 1, SIZE_MAX,
		TAKES_DRY_RUN | TAKES_HEAD, cli_images_rm},
	{{"images", "rollback"}, "ENVIRONMENT [IMAGE]",
		"Make the image before the head, or this one, the head again", 1, 2, 0,
		cli_images_rollback},
	{{"store", "info"}, "", "Show the store's file system, and whether it shares blocks", 0, 0,
		0, cli_store_info},
	{{"store", "create"}, "", "Give the store an XFS of its own, in a sparse file", 0, 0,
		TAKES_VOLUME, cli_store_create},
	{{"store", "grow"}, "SIZE", "Make it larger, to SIZE in all, also while hobd runs", 1, 1, 0,
		cli_store_grow},
	{{"store", "mount"}, "", "Mount it, as every start of hobd does", 0, 0, 0, cli_store_mount},
	{{"store", "unmount"}, "", "Unmount it; nothing may use it", 0, 0, 0, cli_store_unmount},
	{{"recover", NULL}, "", "Sweep what killed processes left, as every start does", 0, 0, 0,
		cli_recover},
	{{"take", NULL}, "", "Take a snapshot for hobd, which speaks to it in JSON", 0, 0, 0,
		cli_take},
};

/* Options that only some verbs take: where they go, and how help writes them. */
static const struct special {
	const char *name;
	const char *argument; /* NULL: a flag */
	unsigned takes;
	size_t place; /* in struct snapshots_cli */
	const char *help;
} specials[] = {
	{"env", "NAME", TAKES_FILTER | TAKES_ENVIRONMENT,
		offsetof(struct snapshots_cli, environment), "only of this environment"},
	{"reason", "REASON", TAKES_FILTER, offsetof(struct snapshots_cli, reason),
		"only base, session, exit or manual"},
	{"label", "PATTERN", TAKES_FILTER, offsetof(struct snapshots_cli, label),
		"only labels that match, as \"nightly*\""},
	{"older-than", "TIME", TAKES_FILTER, offsetof(struct snapshots_cli, older_than),
		"only older ones, as 12h or 30d"},
	{"sort", "COLUMN", TAKES_COLUMNS, offsetof(struct snapshots_cli, sort),
		"sort by a column; \"-\" before it turns the order round"},
	{"columns", "LIST", TAKES_COLUMNS, offsetof(struct snapshots_cli, columns),
		"columns to show, with commas between; \"all\" for all"},
	{"dry-run", NULL, TAKES_DRY_RUN, offsetof(struct snapshots_cli, dry_run),
		"only say what would be done"},
	{"head", NULL, TAKES_HEAD, offsetof(struct snapshots_cli, head),
		"also an environment's head: it has no image then until its next build"},
	{"keep-last", "N", TAKES_RETENTION, offsetof(struct snapshots_cli, keep_last),
		"instead of the files' policies: keep the newest N of each environment"},
	{"keep-for", "TIME", TAKES_RETENTION, offsetof(struct snapshots_cli, keep_for),
		"and what is younger than this"},
	{"keep-labelled", NULL, TAKES_RETENTION, offsetof(struct snapshots_cli, keep_labelled),
		"and what has a label"},
	{"packages", NULL, TAKES_PACKAGES, offsetof(struct snapshots_cli, packages),
		"only what is installed below the sources, with versions and digests"},
	{"stat", NULL, TAKES_DIFF | TAKES_STAT, offsetof(struct snapshots_cli, stat),
		"only the sums"},
	{"patch", "PATH", TAKES_DIFF, offsetof(struct snapshots_cli, patch),
		"only this file's content, as a patch"},
	{"with-parents", NULL, TAKES_EXPORT, offsetof(struct snapshots_cli, with_parents),
		"all its layers; else only its own, and import needs the others"},
	{"output", "FILE", TAKES_EXPORT, offsetof(struct snapshots_cli, output),
		"a new file instead of standard output"},
	{"quick", NULL, TAKES_VERIFY, offsetof(struct snapshots_cli, quick),
		"only sizes, times and attributes, not the content"},
	{"xfs", "SIZE", TAKES_VOLUME, offsetof(struct snapshots_cli, xfs),
		"how large, as 50GiB; the disk is used only as it fills"},
	{"copy", NULL, TAKES_VOLUME, offsetof(struct snapshots_cli, copy),
		"copy the store that is there, with hobd ended; it is kept as STORE.old"},
	{"preallocate", NULL, TAKES_VOLUME, offsetof(struct snapshots_cli, preallocate),
		"take all of the disk's room now: a full disk never stops the store"},
	{"force", NULL, TAKES_VOLUME, offsetof(struct snapshots_cli, force),
		"although the folder's file system shares blocks itself"},
	{"move", NULL, TAKES_MOVE, offsetof(struct snapshots_cli, move),
		"take the tag from the snapshot that has it"},
};

static void print_options(unsigned takes)
{
	puts("\nOptions:\n"
	     "  --store PATH         the store's folder (default: what hob.yaml says)\n"
	     "  --config FILE        hob.yaml to read instead of /etc/hob/hob.yaml\n"
	     "  --json               print JSON, for programs\n"
	     "  --events             progress, failure or \"done\" as JSON lines to standard "
	     "error\n"
	     "  -h, --help           print this help");
	for (size_t i = 0; i < ARRAY_SIZE(specials); i++) {
		char name[64];

		if ((specials[i].takes & takes) != 0) {
			snprintf(name, sizeof(name), "--%s %s", specials[i].name,
				specials[i].argument != NULL ? specials[i].argument : "");
			printf("  %-19s  %s\n", name, specials[i].help);
		}
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

/* The first word of verbs that have two. */
static const char *room_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (verbs[i].words[1] != NULL && streq(verbs[i].words[0], word)) {
			return verbs[i].words[0];
		}
	}
	return NULL;
}

/* Of one verb, of those below one word, or of all. */
static void print_help(const struct verb *verb, const char *room)
{
	if (verb != NULL) {
		printf("Usage: hob-snapshots %s%s%s [options] %s\n\n%s.\n", verb->words[0],
			verb->words[1] != NULL ? " " : "",
			verb->words[1] != NULL ? verb->words[1] : "", verb->operands,
			verb->summary);
		puts(streq(verb->words[0], "store") ? "The file is STORE.xfs beside the store's "
						      "folder, and is mounted over it."
			: streq(verb->words[0], "images")
				? "An IMAGE is img-12, 12, or an environment's name: its head."
				: "A SNAPSHOT is snap-12, 12, or a tag.");
		print_options(verb->takes);
		return;
	}
	puts("hob-snapshots looks after the images and snapshots of a store.\n\nUsage: "
	     "hob-snapshots VERB "
	     "[options] …\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		char name[64];

		if (room != NULL && !streq(verbs[i].words[0], room)) {
			continue;
		}
		snprintf(name, sizeof(name), "%s %s", verbs[i].words[0],
			verbs[i].words[1] != NULL ? verbs[i].words[1] : "");
		printf("  %-15s  %s%*s  %s\n", name, verbs[i].operands,
			OPERANDS_WIDTH - columns(verbs[i].operands), "", verbs[i].summary);
	}
	print_options(0);
	puts("\nhob-snapshots VERB --help says what else a verb takes.");
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
	const char *room = cli->operand_count > 0 ? room_of(cli->operands[0]) : NULL;
	const char *word = cli->operands[room != NULL ? 1 : 0], *nearest;
	const char *known[ARRAY_SIZE(verbs)];
	size_t count = 0;

	if (word == NULL) {
		error_set(err, ERROR_USAGE, "%s%s", room != NULL ? room : "a verb is missing",
			room != NULL ? " needs a verb" : "");
		return error_hint(err, "hob-snapshots --help lists them");
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (room == NULL || streq(verbs[i].words[0], room)) {
			known[count++] = verbs[i].words[room != NULL ? 1 : 0];
		}
	}
	error_set(err, ERROR_USAGE, "unknown verb \"%s\"", word);
	nearest = text_nearest(word, known, count);
	return nearest != NULL ? error_hint(err, "did you mean \"%s\"?", nearest)
			       : error_hint(err, "hob-snapshots --help lists them");
}

#define OPTION_SPECIAL 1000 /* and the index */
#define OPTIONS_MAX (ARRAY_SIZE(specials) + 6)

static void list_options(struct option options[OPTIONS_MAX])
{
	static const struct option common[] = {{"store", required_argument, NULL, 's'},
		{"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'},
		{"events", no_argument, NULL, 'e'}, {"help", no_argument, NULL, 'h'}};
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(common); i++) {
		options[count++] = common[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(specials); i++) {
		options[count++] = (struct option){specials[i].name,
			specials[i].argument != NULL ? required_argument : no_argument, NULL,
			OPTION_SPECIAL + (int)i};
	}
	options[count] = (struct option){NULL, 0, NULL, 0};
}

static void set_special(struct snapshots_cli *cli, const struct special *special)
{
	char *place = (char *)cli + special->place;

	if (special->argument != NULL) {
		memcpy(place, &optarg, sizeof(optarg));
	} else {
		*(bool *)place = true;
	}
}

/* The bits of `given` are the specials that were said, by index. */
static int parse_options(struct snapshots_cli *cli, int argc, char **argv, uint64_t *given)
{
	struct option options[OPTIONS_MAX];
	int option;

	list_options(options);
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
		case 'e':
			cli->events = true;
			break;
		case 'h':
			cli->help = true;
			break;
		default:
			if (option < OPTION_SPECIAL) {
				return -1; /* getopt has said what is wrong */
			}
			set_special(cli, &specials[option - OPTION_SPECIAL]);
			*given |= UINT64_C(1) << (option - OPTION_SPECIAL);
		}
	}
	cli->operands = argv + optind;
	cli->operand_count = (size_t)(argc - optind);
	return 0;
}

static int check_call(
	const struct snapshots_cli *cli, const struct verb *verb, uint64_t given, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(specials); i++) {
		if ((given >> i & 1) != 0 && (specials[i].takes & verb->takes) == 0) {
			return error_set(err, ERROR_USAGE, "%s%s%s takes no --%s", verb->words[0],
				verb->words[1] != NULL ? " " : "",
				verb->words[1] != NULL ? verb->words[1] : "", specials[i].name);
		}
	}
	if (cli->operand_count > verb->operands_max) {
		return error_set(err, ERROR_USAGE, "\"%s\" is one word too many",
			cli->operands[verb->operands_max]);
	}
	if (cli->operand_count < verb->operands_min) {
		return error_set(err, ERROR_USAGE, "%s%s%s needs %s", verb->words[0],
			verb->words[1] != NULL ? " " : "",
			verb->words[1] != NULL ? verb->words[1] : "", verb->operands);
	}
	return 0;
}

static int run(struct snapshots_cli *cli, uint64_t given, struct error *err)
{
	const struct verb *verb = find_verb(cli);
	int status;

	if (cli->help) {
		print_help(verb, cli->operand_count > 0 ? room_of(cli->operands[0]) : NULL);
		return 0;
	}
	if (verb == NULL) {
		return refuse_verb(cli, err);
	}
	status = check_call(cli, verb, given, err);
	return status < 0 ? status : verb->run(cli, err);
}

int main(int argc, char **argv)
{
	struct snapshots_cli cli = {0};
	struct error err = ERROR_INIT;
	uint64_t given = 0;
	int status;

	log_setup("hob-snapshots", LOG_WARN, false);
	if (parse_options(&cli, argc, argv, &given) < 0) {
		return error_exit_code(ERROR_USAGE);
	}
	status = run(&cli, given, &err);
	fflush(stdout);
	if (status == 0) {
		cli_event(&cli, "done", json_object());
	} else if (cli.events) {
		cli_event(&cli, "error", json_from_error(&err));
	}
	cli_done(&cli);
	if (status < 0) {
		if (!cli.events) {
			error_print("hob-snapshots", &err);
		}
		return error_exit_code(err.kind);
	}
	return 0;
}
