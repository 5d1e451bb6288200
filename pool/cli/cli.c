/* From the arguments to a verb's run, and what the verbs share on the way. */
#include "pool/cli/cli.h"

#include "base/buffer.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "pool/cli/help.h"
#include "pool/cli/http.h"
#include "gen/version.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>

/* Ids that a refusal of an ambiguous one names. */
#define CANDIDATES_SHOWN 4

static int check_operands(const char *path, const struct call *call, struct error *err)
{
	const struct verb *verb = call->verb;

	if (call->operand_count < verb->operands_min) {
		error_set(err, ERROR_USAGE, "%s %s needs %s", path, verb->name, verb->operands);
	} else if (call->operand_count > verb->operands_max) {
		error_set(err, ERROR_USAGE, "%s %s: one word too many: \"%s\"", path, verb->name,
			call->operands[verb->operands_max]);
	} else {
		return 0;
	}
	return error_hint(err, "`%s %s --help` shows how it goes", path, verb->name);
}

static int run_parsed(struct cli *cli, const char *path, struct call *call, struct error *err)
{
	const struct verb *verb = call->verb;
	const struct option_set sets[] = {
		{verb->options, verb->option_count, call->values},
		{cli_option_rows, cli_option_count, cli},
	};
	size_t command_after = verb->command_after > 0 ? verb->command_after : OPTIONS_NO_COMMAND;
	int status = options_parse(
		sets, ARRAY_SIZE(sets), command_after, call->operands, &call->operand_count, err);

	if (status < 0) {
		char *message = xstrdup(err->message);
		char *hint = xstrdup(err->hint);

		error_set(err, ERROR_USAGE, "%s %s: %s", path, verb->name, message);
		if (hint[0] != '\0') {
			error_hint(err, "%s", hint);
		} else {
			error_hint(err, "`%s %s --help` lists them", path, verb->name);
		}
		free(message);
		free(hint);
		status = -(int)ERROR_USAGE;
	} else if (cli->help) {
		help_print_verb(path, verb);
	} else {
		status = check_operands(path, call, err);
		status = status < 0 ? status : verb->run(call, err);
	}
	options_done(&sets[0]);
	return status;
}

/* Takes the options of every verb that stand before the name of a part, as in `builds --json ls`.
 */
static int take_leading_options(struct cli *cli, char ***args, struct error *err)
{
	const struct option_set set = {cli_option_rows, cli_option_count, cli};

	while (**args != NULL && str_starts(**args, "--")) {
		char *taken[3] = {**args, NULL, NULL};
		const struct option_row *row = NULL;
		size_t length = strcspn(taken[0] + 2, "=");
		size_t count = 1, operands = 0;
		int status;

		for (size_t i = 0; i < cli_option_count; i++) {
			if (strlen(cli_option_rows[i].name) == length &&
				strncmp(cli_option_rows[i].name, taken[0] + 2, length) == 0) {
				row = &cli_option_rows[i];
			}
		}
		if (row == NULL) {
			return 0;
		}
		if (row->type != OPTION_FLAG && taken[0][2 + length] == '\0' &&
			(*args)[1] != NULL) {
			taken[count++] = (*args)[1];
		}
		status = options_parse(&set, 1, OPTIONS_NO_COMMAND, taken, &operands, err);
		if (status < 0) {
			return status;
		}
		*args += count;
	}
	return 0;
}

/* `args` are what follows the verb's name. */
static int run_verb(struct cli *cli, const char *path, const struct verb *verb, char **args,
	int *ret_exit, struct error *err)
{
	struct call call = {.cli = cli, .verb = verb, .operands = args};
	CLEANUP(free_p) char *longer = NULL;
	CLEANUP(free_p) void *values = NULL;
	int status;

	if (verb->parts != NULL) {
		const struct verb *part = verb->parts[0];

		longer = xasprintf("%s %s", path, verb->name);
		status = take_leading_options(cli, &args, err);
		if (status >= 0 && (cli->help || (args[0] != NULL && streq(args[0], "-h")))) {
			help_print_verb(path, verb);
			return 0;
		}
		if (status >= 0 && args[0] != NULL && args[0][0] != '-') {
			status = help_find(verb->parts, longer, args[0], &part, err);
			args++;
		}
		return status < 0 ? status : run_verb(cli, longer, part, args, ret_exit, err);
	}
	values = xcalloc(1, verb->values_size + 1);
	call.values = values;
	if (verb->defaults != NULL) {
		memcpy(values, verb->defaults, verb->values_size);
	}
	if (verb->raw) {
		call.operand_count = strv_count(args);
		status = verb->run(&call, err);
	} else {
		status = run_parsed(cli, path, &call, err);
	}
	*ret_exit = call.exit_code;
	return status;
}

static int run_line(struct cli *cli, char **args, int *ret_exit, struct error *err)
{
	static const struct option_row version_row = {"version", 'V', OPTION_FLAG, NULL,
		offsetof(struct cli, version), "print the version"};
	const struct option_set sets[] = {
		{cli_option_rows, cli_option_count, cli}, {&version_row, 1, cli}};
	const struct verb *verb = NULL;
	size_t count = 0;
	int status = options_parse(sets, ARRAY_SIZE(sets), 0, args, &count, err);

	if (status < 0) {
		return status;
	}
	if (cli->version) {
		printf("hob %s\n", HOB_VERSION);
		return 0;
	}
	if (count == 0 || cli->help) {
		help_print(cli->verbs);
		*ret_exit = cli->help ? 0 : error_exit_code(ERROR_USAGE);
		return 0;
	}
	status = help_find(cli->verbs, "hob", args[0], &verb, err);
	return status < 0 ? status : run_verb(cli, "hob", verb, args + 1, ret_exit, err);
}

int cli_main(int argc, char **argv, const struct verb *const *verbs)
{
	struct cli cli = {.verbs = verbs};
	struct error err = ERROR_INIT;
	int exit_code = 0;
	int status;

	assert(argc > 0);
	status = run_line(&cli, argv + 1, &exit_code, &err);
	http_close(cli.http);
	free(cli.socket);
	if (status >= 0 && (fflush(stdout) != 0 || ferror(stdout))) {
		status = error_sys(&err, errno, "write to standard output");
	}
	if (status < 0) {
		fflush(stdout);
		error_print("hob", &err);
		return exit_code != 0 ? exit_code : error_exit_code(err.kind);
	}
	return exit_code;
}

int cli_socket(struct cli *cli, const char **ret_path, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	const char *given = cli->socket_option != NULL ? cli->socket_option : getenv("HOB_SOCKET");
	int status;

	if (cli->socket == NULL && given != NULL && given[0] != '\0') {
		cli->socket = xstrdup(given);
	}
	if (cli->socket == NULL) {
		status = config_load(cli->config_option, &config, err);
		if (status < 0) {
			return status;
		}
		cli->socket = xstrdup(config->socket);
	}
	*ret_path = cli->socket;
	return 0;
}

int cli_http(struct cli *cli, struct http **ret_http, struct error *err)
{
	if (cli->http == NULL) {
		const char *socket = NULL;
		int status = cli_socket(cli, &socket, err);

		if (status >= 0) {
			status = http_open(socket, &cli->http, err);
		}
		if (status < 0) {
			return status;
		}
	}
	*ret_http = cli->http;
	return 0;
}

int cli_call(struct cli *cli, const char *method, const json_t *body, json_t **ret_reply,
	struct error *err, const char *path_format, ...)
{
	CLEANUP(free_p) char *path = NULL;
	struct http_reply reply = {0};
	struct http *http = NULL;
	va_list args;
	int status;

	va_start(args, path_format);
	path = xvasprintf(path_format, args);
	va_end(args);
	status = cli_http(cli, &http, err);
	if (status >= 0) {
		const struct http_request request = {.method = method, .path = path, .body = body};

		status = http_run(http, &request, &reply, err);
	}
	if (status < 0) {
		return status;
	}
	if (reply.json == NULL) {
		return error_set(err, ERROR_CORRUPT, "%s %s: the answer is not JSON", method, path);
	}
	if (ret_reply != NULL) {
		*ret_reply = reply.json;
	} else {
		json_decref(reply.json);
	}
	return 0;
}

static char *escape(const char *text, const char *plain)
{
	static const char hex[] = "0123456789ABCDEF";
	char *escaped = xmalloc(strlen(text) * 3 + 1);
	char *out = escaped;

	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c < 128 && isalnum(c)) || strchr(plain, c) != NULL) {
			*out++ = (char)c;
		} else {
			*out++ = '%';
			*out++ = hex[c >> 4];
			*out++ = hex[c & 15];
		}
	}
	*out = '\0';
	return escaped;
}

char *cli_escape(const char *text)
{
	return escape(text, "-_.~");
}

char *cli_escape_path(const char *path)
{
	return escape(path, "-_.~/");
}

static int ambiguous(const char *text, json_t *matches, struct error *err)
{
	struct buffer names;
	size_t i;
	json_t *match;

	buffer_init(&names, 0);
	json_array_foreach (matches, i, match) {
		if (i < CANDIDATES_SHOWN) {
			buffer_addf(&names, "%s%s", i > 0 ? ", " : "", json_string_value(match));
		}
	}
	error_set(err, ERROR_INVALID, "%s is the start of %zu ids: %s%s", text,
		json_array_size(matches), buffer_text(&names),
		json_array_size(matches) > CANDIDATES_SHOWN ? ", …" : "");
	buffer_done(&names);
	return error_hint(err, "give more of it");
}

#define ID_PREFIX "sb-"
#define ID_LENGTH (sizeof(ID_PREFIX) - 1 + 12)

int cli_sandbox_id(struct cli *cli, const char *text, char **ret_id, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(json_decref_p) json_t *matches = json_array();
	CLEANUP(free_p)
	char *start = str_starts(text, ID_PREFIX) ? xstrdup(text) : xasprintf(ID_PREFIX "%s", text);
	size_t i;
	json_t *sandbox;
	int status;

	if (strlen(start) == ID_LENGTH) {
		*ret_id = steal_ptr(start);
		return 0;
	}
	status = cli_call(cli, "GET", NULL, &reply, err, "/v1/sandboxes");
	if (status < 0) {
		return status;
	}
	json_array_foreach (json_object_get(reply, "sandboxes"), i, sandbox) {
		const char *id = json_string_value(json_object_get(sandbox, "id"));

		if (id != NULL && str_starts(id, start)) {
			json_array_append_new(matches, json_string(id));
		}
	}
	if (json_array_size(matches) == 0 || text[0] == '\0') {
		error_set(err, ERROR_NOT_FOUND, "no sandbox %s", text);
		return error_hint(err, "`hob ls` shows them");
	}
	if (json_array_size(matches) > 1) {
		return ambiguous(text, matches, err);
	}
	*ret_id = xstrdup(json_string_value(json_array_get(matches, 0)));
	return 0;
}

int cli_pairs(
	char *const *list, const char *option, bool inherit, json_t **ret_object, struct error *err)
{
	CLEANUP(json_decref_p) json_t *object = json_object();

	for (; list != NULL && *list != NULL; list++) {
		size_t length = strcspn(*list, "=");
		CLEANUP(free_p) char *key = xstrndup(*list, length);
		const char *value = (*list)[length] == '=' ? *list + length + 1 : NULL;

		if (value == NULL && inherit) {
			value = getenv(key);
			if (value == NULL) {
				continue;
			}
		}
		if (length == 0 || value == NULL) {
			return error_set(
				err, ERROR_USAGE, "--%s %s: write it as KEY=VALUE", option, *list);
		}
		if (json_object_set_new(object, key, json_string(value)) != 0) {
			return error_set(err, ERROR_USAGE, "--%s %s: not UTF-8", option, key);
		}
	}
	*ret_object = steal_ptr(object);
	return 0;
}

int cli_each(struct call *call, char *const *words,
	int (*one)(struct call *call, const char *word, struct error *err), struct error *err)
{
	struct error failure = ERROR_INIT;
	int status = 0;

	for (; *words != NULL; words++) {
		if (one(call, *words, &failure) < 0) {
			if (status < 0) {
				error_print("hob", err);
			}
			error_copy(err, &failure);
			status = -(int)failure.kind;
		}
	}
	return status;
}

int cli_become(struct cli *cli, const char *program, const char *const *words, char *const *args,
	struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(strv_free_p) char **argv = NULL;
	int status = process_sibling(program, &path, err);

	if (status < 0) {
		return status;
	}
	strv_add(&argv, path);
	for (; words != NULL && *words != NULL; words++) {
		strv_add(&argv, *words);
	}
	if (cli->config_option != NULL) {
		strv_add(&argv, "--config");
		strv_add(&argv, cli->config_option);
	}
	if (cli->json) {
		strv_add(&argv, "--json");
	}
	for (; *args != NULL; args++) {
		strv_add(&argv, *args);
	}
	fflush(stdout);
	execv(path, argv);
	error_sys(err, errno, "start %s", path);
	return error_hint(err, "it belongs beside hob: is the installation whole?");
}

int cli_run_part(struct cli *cli, const char *name, int (*part)(int argc, char **argv), char **args)
{
	/* Only the list is ours: the parser of the part moves its entries about. */
	CLEANUP(free_p) char **argv = xcalloc(strv_count(args) + 5, sizeof(*argv));
	CLEANUP(free_p) char *title = xstrdup(name);
	CLEANUP(free_p) char *config = xstrdup(cli->config_option);
	char config_name[] = "--config", json[] = "--json";
	int argc = 0;

	argv[argc++] = title;
	if (config != NULL) {
		argv[argc++] = config_name;
		argv[argc++] = config;
	}
	if (cli->json) {
		argv[argc++] = json;
	}
	for (; *args != NULL; args++) {
		argv[argc++] = *args;
	}
	return part(argc, argv);
}
