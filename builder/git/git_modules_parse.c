/*
 * .gitmodules, in the syntax of git's configuration, as far as it concerns submodules; includes are
 * not followed, as git follows none here. A later line overrides an earlier one. Nothing is read
 * beyond the text, and a line that git would not understand ends it all.
 */
#include "builder/git/git_modules.h"

#include "base/buffer.h"
#include "builder/git/git_internal.h"

#include <ctype.h>
#include <strings.h>

#define NAME_BYTES_MAX 1024
#define VALUE_BYTES_MAX 4096

struct parse {
	const char *at, *end;
	unsigned line;
	struct git_module_list *list;
	char *section; /* the submodule that is being described; NULL: another section */
};

void git_module_list_done(struct git_module_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
		free(list->items[i].path);
		free(list->items[i].url);
	}
	free(list->items);
	*list = (struct git_module_list){0};
}

bool git_module_is_listed(const struct git_module_list *list, const char *path)
{
	for (size_t i = 0; list != NULL && i < list->count; i++) {
		if (!list->items[i].left_out && streq(list->items[i].path, path)) {
			return true;
		}
	}
	return false;
}

static int bad_line(const struct parse *parse, struct error *err)
{
	return error_set(
		err, ERROR_INVALID, ".gitmodules, line %u, is not understood", parse->line);
}

/* '\0' at the end; "\r\n" counts as one. */
static char peek(const struct parse *parse)
{
	if (parse->at >= parse->end) {
		return '\0';
	}
	return *parse->at == '\r' && parse->at + 1 < parse->end && parse->at[1] == '\n'
		       ? '\n'
		       : *parse->at;
}

static char next(struct parse *parse)
{
	char c = peek(parse);

	if (parse->at < parse->end) {
		parse->at += *parse->at == '\r' && c == '\n' ? 2 : 1;
		parse->line += c == '\n' ? 1 : 0;
	}
	return c;
}

static bool at_end(const struct parse *parse)
{
	return parse->at >= parse->end;
}

static void skip_line(struct parse *parse)
{
	while (!at_end(parse) && next(parse) != '\n') {
		continue;
	}
}

/* The text between quotes of a section's header. */
static int read_quoted(struct parse *parse, struct buffer *text, struct error *err)
{
	for (char c = next(parse); c != '"'; c = next(parse)) {
		if (c == '\\') {
			c = next(parse);
		}
		if (c == '\0' || c == '\n' || text->length > NAME_BYTES_MAX) {
			return bad_line(parse, err);
		}
		buffer_add(text, &c, 1);
	}
	return 0;
}

/* Behind "[". Old files say [submodule.name], whose name is of lower case. */
static int read_header(struct parse *parse, struct error *err)
{
	CLEANUP(buffer_done) struct buffer kind = {0};
	CLEANUP(buffer_done) struct buffer name = {0};
	bool named = false;
	char c;

	for (c = next(parse); isalnum((unsigned char)c) || c == '-' || c == '.'; c = next(parse)) {
		c = (char)tolower((unsigned char)c);
		buffer_add(&kind, &c, 1);
		if (kind.length > NAME_BYTES_MAX) {
			return bad_line(parse, err);
		}
	}
	if (c == ' ' || c == '\t') {
		while (c == ' ' || c == '\t') {
			c = next(parse);
		}
		named = c == '"';
		if (!named || read_quoted(parse, &name, err) < 0) {
			return bad_line(parse, err);
		}
		c = next(parse);
	}
	if (c != ']') {
		return bad_line(parse, err);
	}
	free(parse->section);
	parse->section = NULL;
	if (named && streq(buffer_text(&kind), "submodule")) {
		parse->section = xstrdup(buffer_text(&name));
	} else if (!named && str_starts(buffer_text(&kind), "submodule.")) {
		parse->section = xstrdup(buffer_text(&kind) + strlen("submodule."));
	}
	return 0;
}

/* Behind the backslash of a value; *ret_add: it stands for a character. */
static int read_escape(struct parse *parse, char *ret_c, bool *ret_add, struct error *err)
{
	char c = next(parse);

	*ret_add = c != '\n'; /* else the value goes on in the next line */
	switch (c) {
	case 'n':
		*ret_c = '\n';
		return 0;
	case 't':
		*ret_c = '\t';
		return 0;
	case 'b':
		*ret_c = '\b';
		return 0;
	case '"':
	case '\\':
	case '\n':
		*ret_c = c;
		return 0;
	default:
		return bad_line(parse, err);
	}
}

/* Behind "=": spaces around it do not count, unless they are quoted. */
static int read_value(struct parse *parse, struct buffer *value, struct error *err)
{
	bool quoted = false;
	size_t kept = 0; /* up to the last character that is no space */

	while (peek(parse) == ' ' || peek(parse) == '\t') {
		next(parse);
	}
	for (;;) {
		bool add = true, escaped = false;
		char c = next(parse);

		if (c == '\0' || c == '\n') {
			if (quoted || (c == '\0' && !at_end(parse))) {
				return bad_line(parse, err);
			}
			break;
		}
		if (!quoted && (c == '#' || c == ';')) {
			skip_line(parse);
			break;
		}
		if (c == '"') {
			quoted = !quoted;
			kept = value->length;
			continue;
		}
		if (c == '\\') {
			escaped = true;
			if (read_escape(parse, &c, &add, err) < 0) {
				return -(int)err->kind;
			}
		}
		if (add) {
			buffer_add(value, &c, 1);
			kept = quoted || escaped || !isspace((unsigned char)c) ? value->length
									       : kept;
		}
		if (value->length > VALUE_BYTES_MAX) {
			return bad_line(parse, err);
		}
	}
	value->length = kept;
	return 0;
}

static struct git_module *module_of(struct parse *parse)
{
	struct git_module *module;

	for (size_t i = 0; i < parse->list->count; i++) {
		if (streq(parse->list->items[i].name, parse->section)) {
			return &parse->list->items[i];
		}
	}
	module = array_add(&parse->list->items, &parse->list->count, &parse->list->room);
	module->name = xstrdup(parse->section);
	return module;
}

static int refuse(struct error *err, const struct git_module *module, const char *what)
{
	error_set(err, ERROR_DENIED, "the submodule \"%.100s\" has a %s that git refuses",
		module->name, what);
	return error_hint(err, "`submodules: false` of the source leaves all of them empty");
}

static void replace(char **text, const char *with)
{
	free(*text);
	*text = xstrdup(with);
}

static int set_value(struct parse *parse, const char *key, const char *value, struct error *err)
{
	struct git_module *module;

	if (parse->section == NULL || value == NULL) {
		return 0;
	}
	module = module_of(parse);
	if (parse->list->count > GIT_MODULES_MAX) {
		return error_set(
			err, ERROR_LIMIT, "a commit of more than %d submodules", GIT_MODULES_MAX);
	}
	if (strcasecmp(key, "path") == 0) {
		replace(&module->path, value);
	} else if (strcasecmp(key, "url") == 0) {
		replace(&module->url, value);
	} else if (strcasecmp(key, "update") == 0) {
		if (value[0] == '!') {
			return refuse(err, module, "command for its update");
		}
		module->left_out = streq(value, "none");
	}
	return 0;
}

static int read_setting(struct parse *parse, struct error *err)
{
	CLEANUP(buffer_done) struct buffer key = {0};
	CLEANUP(buffer_done) struct buffer value = {0};
	bool said = false;

	while (isalnum((unsigned char)peek(parse)) || peek(parse) == '-') {
		char c = next(parse);

		buffer_add(&key, &c, 1);
	}
	while (peek(parse) == ' ' || peek(parse) == '\t') {
		next(parse);
	}
	if (key.length == 0 || key.length > NAME_BYTES_MAX) {
		return bad_line(parse, err);
	}
	if (peek(parse) == '=') {
		next(parse);
		said = true;
		if (read_value(parse, &value, err) < 0) {
			return -(int)err->kind;
		}
	} else if (!at_end(parse) && next(parse) != '\n') {
		return bad_line(parse, err);
	}
	buffer_add(&value, "", 1);
	return set_value(parse, buffer_text(&key), said ? value.data : NULL, err);
}

/* A name becomes part of a path in git's own folder. */
static bool name_is_safe(const char *name)
{
	for (const char *part = name;; part++) {
		size_t length = strcspn(part, "/\\");

		if (length == 2 && str_starts(part, "..")) {
			return false;
		}
		part += length;
		if (*part == '\0') {
			return name[0] != '\0';
		}
	}
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++) {
		if (iscntrl((unsigned char)*text)) {
			return true;
		}
	}
	return false;
}

static int check(const struct git_module *module, struct error *err)
{
	if (!name_is_safe(module->name) || has_control(module->name)) {
		return refuse(err, module, "name");
	}
	if (module->path != NULL &&
		(module->path[0] == '-' || git_path_check(module->path, err) < 0)) {
		return refuse(err, module, "path");
	}
	if (module->url != NULL && (module->url[0] == '-' || has_control(module->url))) {
		return refuse(err, module, "url");
	}
	return 0;
}

static int parse_all(struct parse *parse, struct error *err)
{
	int status = 0;

	while (status == 0 && !at_end(parse)) {
		char c = peek(parse);

		if (c == '#' || c == ';') {
			skip_line(parse);
		} else if (isspace((unsigned char)c)) {
			next(parse);
		} else if (c == '[') {
			next(parse);
			status = read_header(parse, err);
		} else {
			status = isalpha((unsigned char)c) ? read_setting(parse, err)
							   : bad_line(parse, err);
		}
	}
	for (size_t i = 0; status == 0 && i < parse->list->count; i++) {
		status = check(&parse->list->items[i], err);
	}
	return status;
}

int git_modules_parse(
	const char *text, size_t length, struct git_module_list *list, struct error *err)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t skip = length >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
	struct parse parse = {.at = text + skip, .end = text + length, .line = 1, .list = list};
	int status = parse_all(&parse, err);

	free(parse.section);
	if (status < 0) {
		git_module_list_done(list);
	}
	return status;
}
