/* Help from the verb tables: nothing here knows a verb by name. */
#include "pool/cli/help.h"

#include "base/memory.h"
#include "base/text.h"
#include "pool/cli/cli.h"

#include <stdio.h>

/* More verbs than there are, for the search of the nearest. */
#define NAMES_MAX 64

const struct option_row cli_option_rows[] = {
	{"json", '\0', OPTION_FLAG, NULL, offsetof(struct cli, json), "print JSON, for programs"},
	{"socket", '\0', OPTION_TEXT, "PATH", offsetof(struct cli, socket_option),
		"socket of hobd (also $HOB_SOCKET)"},
	{"config", '\0', OPTION_TEXT, "FILE", offsetof(struct cli, config_option),
		"hob.yaml to read instead of /etc/hob/hob.yaml (also $HOB_CONFIG)"},
	{"help", 'h', OPTION_FLAG, NULL, offsetof(struct cli, help), "print this help"},
};
const size_t cli_option_count = ARRAY_SIZE(cli_option_rows);

static void print_verb_lines(const struct verb *const *verbs, const char *group)
{
	int width = 0;

	for (size_t i = 0; verbs[i] != NULL; i++) {
		int length = (int)strlen(verbs[i]->name);

		width = length > width ? length : width;
	}
	for (size_t i = 0; verbs[i] != NULL; i++) {
		if (group == NULL || streq(verbs[i]->group, group)) {
			printf("  %-*s  %s\n", width, verbs[i]->name, verbs[i]->summary);
		}
	}
}

void help_print(const struct verb *const *verbs)
{
	const char *group = NULL;

	puts("hob keeps sandboxes of your repositories warm.\n\nUsage: hob VERB [options] …");
	for (size_t i = 0; verbs[i] != NULL; i++) {
		if (group == NULL || !streq(verbs[i]->group, group)) {
			group = verbs[i]->group;
			printf("\n%s\n", group);
			print_verb_lines(verbs, group);
		}
	}
	puts("\nOptions of every verb");
	options_print(cli_option_rows, cli_option_count);
	puts("\nA sandbox's id may be shortened as long as it stays unique. `hob VERB --help` says "
	     "more.");
}

void help_print_verb(const char *path, const struct verb *verb)
{
	bool has_operands = verb->operands != NULL && verb->operands[0] != '\0';

	if (verb->parts != NULL) {
		printf("Usage: %s %s VERB [options] …\n\n%s\n\n", path, verb->name, verb->summary);
		print_verb_lines(verb->parts, NULL);
		printf("\nWithout a verb: %s.\n", verb->parts[0]->name);
	} else {
		printf("Usage: %s %s%s%s%s\n\n%s\n", path, verb->name,
			verb->option_count > 0 ? " [options]" : "", has_operands ? " " : "",
			has_operands ? verb->operands : "", verb->summary);
	}
	if (verb->details != NULL) {
		printf("\n%s\n", verb->details);
	}
	if (verb->option_count > 0) {
		puts("\nOptions");
		options_print(verb->options, verb->option_count);
	}
	puts("\nOptions of every verb");
	options_print(cli_option_rows, cli_option_count);
}

int help_find(const struct verb *const *verbs, const char *path, const char *name,
	const struct verb **ret_verb, struct error *err)
{
	const char *names[NAMES_MAX];
	const char *nearest;
	size_t count = 0;

	for (size_t i = 0; verbs[i] != NULL && count < NAMES_MAX; i++) {
		if (streq(verbs[i]->name, name)) {
			*ret_verb = verbs[i];
			return 0;
		}
		names[count++] = verbs[i]->name;
	}
	nearest = text_nearest(name, names, count);
	error_set(err, ERROR_USAGE, "unknown verb \"%s %s\"", path, name);
	if (nearest != NULL) {
		return error_hint(err, "did you mean `%s %s`?", path, nearest);
	}
	return error_hint(err, "`%s --help` lists them", path);
}

/* A verb that takes its words unparsed knows best what they may be. */
static int explain_itself(struct call *call, const struct verb *verb, char *part, struct error *err)
{
	char option[] = "--help",
	     *words[3] = {part != NULL ? part : option, part != NULL ? option : NULL};
	struct call inner = {.cli = call->cli,
		.verb = verb,
		.operands = words,
		.operand_count = part != NULL ? 2 : 1};
	int status = verb->run(&inner, err);

	call->exit_code = inner.exit_code;
	return status;
}

static int help_run(struct call *call, struct error *err)
{
	const struct verb *const *verbs = call->cli->verbs;
	CLEANUP(free_p) char *path = xstrdup("hob");

	if (call->operand_count == 0) {
		help_print(verbs);
		return 0;
	}
	for (size_t i = 0; i < call->operand_count; i++) {
		const struct verb *verb = NULL;
		char *longer;
		int status = help_find(verbs, path, call->operands[i], &verb, err);

		if (status < 0) {
			return status;
		}
		if (verb->raw) {
			return explain_itself(call, verb, call->operands[i + 1], err);
		}
		if (i + 1 == call->operand_count || verb->parts == NULL) {
			help_print_verb(path, verb);
			return 0;
		}
		longer = xasprintf("%s %s", path, verb->name);
		free(path);
		path = longer;
		verbs = verb->parts;
	}
	return 0;
}

const struct verb verb_help = {
	.name = "help",
	.group = "This machine",
	.operands = "[VERB]",
	.summary = "Explain hob, or one of its verbs",
	.operands_max = 2,
	.run = help_run,
};
