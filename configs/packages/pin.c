/* A scalar is found by its mark and must read there as its value does; the new text is parsed again
 * and must hold the new values. What is written in a way that this cannot follow (escapes, several
 * lines) is said to be so, and the file is left alone. */
#include "configs/packages/pin.h"

#include "base/buffer.h"
#include "base/io.h"
#include "configs/packages/resolve.h"
#include "configs/settings.h"
#include "configs/yaml.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void pin_result_done(struct pin_result *result)
{
	for (size_t i = 0; i < result->count; i++) {
		free(result->changes[i].key);
		free(result->changes[i].before);
		free(result->changes[i].after);
	}
	free(result->changes);
	free(result->before);
	free(result->after);
	*result = (struct pin_result){0};
}

/* ---- where a scalar is ---- */

/* Lines as YAML counts them. */
static const char *next_line(const char *at, const char *end)
{
	while (at < end && *at != '\n' && *at != '\r') {
		at++;
	}
	if (at < end && *at == '\r') {
		return at + (at + 1 < end && at[1] == '\n' ? 2 : 1);
	}
	return at < end ? at + 1 : at;
}

/* Columns count characters, not bytes. */
static size_t offset_of(const char *text, size_t length, int line, int column)
{
	const char *at = text, *end = text + length;

	for (int i = 1; i < line; i++) {
		at = next_line(at, end);
	}
	for (int i = 1; i < column && at < end; i++) {
		at++;
		while (at < end && ((unsigned char)*at & 0xc0) == 0x80) {
			at++;
		}
	}
	return (size_t)(at - text);
}

/* The bytes of the value within its quotes. False: it is not written as it reads. */
static bool find_value(
	const char *text, size_t length, const struct yaml_node *node, size_t *ret_offset)
{
	size_t offset = offset_of(text, length, node->line, node->column);
	size_t wanted = strlen(node->text);

	if (offset < length && (text[offset] == '"' || text[offset] == '\'')) {
		char quote = text[offset++];

		if (offset + wanted >= length || text[offset + wanted] != quote) {
			return false;
		}
	} else if (!node->plain) {
		return false;
	}
	if (offset + wanted > length || memcmp(text + offset, node->text, wanted) != 0) {
		return false;
	}
	*ret_offset = offset;
	return true;
}

/* ---- which are to be changed ---- */

struct pinning {
	const char *name;
	const struct pin_asking *asking;
	struct pin_result *result;
	struct buffer out;
	size_t copied; /* of the text before, that is in `out` or replaced there */
	size_t length;
};

/* Puts `after` in place of a scalar; the nodes come in the order of the file. */
static int replace(struct pinning *pinning, const struct yaml_node *item, char *key, char *after,
	struct error *err)
{
	struct pin_change *change;
	size_t offset;

	if (!find_value(pinning->result->before, pinning->length, item, &offset) ||
		offset < pinning->copied) {
		free(key);
		free(after);
		yaml_error(err, pinning->name, item, false,
			"\"%.128s\" is written so that it cannot be replaced in place", item->text);
		return error_hint(err, "write it on one line, without escapes");
	}
	change = array_add(
		&pinning->result->changes, &pinning->result->count, &pinning->result->room);
	*change = (struct pin_change){.key = key,
		.line = item->line,
		.column = item->column,
		.before = xstrdup(item->text),
		.after = after};
	buffer_add(
		&pinning->out, pinning->result->before + pinning->copied, offset - pinning->copied);
	buffer_add_str(&pinning->out, change->after);
	pinning->copied = offset + strlen(item->text);
	return 0;
}

static int pin_item(struct pinning *pinning, enum package_manager manager,
	const struct yaml_node *item, struct error *err)
{
	CLEANUP(free_p) char *version = NULL;
	int status;

	/* Of what is no text, reading the environment says what is wrong with it. */
	if (item->kind != YAML_TEXT || yaml_is_null(item) ||
		package_parse(manager, item->text, NULL, NULL) == PACKAGE_EXACT) {
		return 0;
	}
	status = pinning->asking->version(manager, item->text, &version, err);
	if (status < 0) {
		return error_wrap(err, "%s:%d:%d", pinning->name, item->line, item->column);
	}
	return replace(pinning, item, xasprintf("packages.%s", package_manager_name(manager)),
		package_text(manager, item->text, version), err);
}

static int pin_lists(struct pinning *pinning, const struct yaml_node *packages, struct error *err)
{
	int status = 0;

	for (size_t i = 0; packages->kind == YAML_MAP && i < packages->count; i++) {
		const struct yaml_node *list = &packages->items[i];
		enum package_manager manager;

		if (list->kind != YAML_LIST || !package_manager_from_name(list->key, &manager)) {
			continue;
		}
		for (size_t j = 0; status == 0 && j < list->count; j++) {
			status = pin_item(pinning, manager, &list->items[j], err);
		}
	}
	return status;
}

static int pin_base(struct pinning *pinning, const struct yaml_node *root, struct error *err)
{
	const char *key = NULL;
	const struct yaml_node *node = pin_base_find(root, &key);
	char *after = NULL;

	if (node == NULL) {
		return 0;
	}
	if (pin_base_resolve(pinning->name, root, pinning->asking, &after, err) < 0) {
		return error_wrap(err, "%s:%d:%d", pinning->name, node->line, node->column);
	}
	return replace(pinning, node, xstrdup(key), after, err);
}

/* In the order of the file, whatever the order of its keys. */
static int pin_all(struct pinning *pinning, const struct yaml_node *root, struct error *err)
{
	int status = 0;

	for (size_t i = 0; root->kind == YAML_MAP && status == 0 && i < root->count; i++) {
		if (streq(root->items[i].key, "base")) {
			status = pin_base(pinning, root, err);
		} else if (streq(root->items[i].key, "packages")) {
			status = pin_lists(pinning, &root->items[i], err);
		}
	}
	return status;
}

static bool holds(const struct yaml_node *node, const struct pin_change *change)
{
	if (node->kind == YAML_TEXT) {
		return node->line == change->line && streq(node->text, change->after);
	}
	for (size_t i = 0; i < node->count; i++) {
		if (holds(&node->items[i], change)) {
			return true;
		}
	}
	return false;
}

/* Does the new text hold what it should? */
static int check_result(const char *name, const struct pin_result *result, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;

	if (yaml_tree_parse(name, result->after, strlen(result->after), &root, err) < 0) {
		return error_set(err, ERROR_INTERNAL, "%s: the pinned text does not parse", name);
	}
	for (size_t i = 0; i < result->count; i++) {
		const struct pin_change *change = &result->changes[i];
		const struct yaml_node *part =
			settings_node(root, str_starts(change->key, "base") ? "base" : change->key);

		if (part == NULL || !holds(part, change)) {
			return error_set(
				err, ERROR_INTERNAL, "%s: the pinned text reads otherwise", name);
		}
	}
	return 0;
}

int pin_text(const char *name, const char *text, size_t length, const struct pin_asking *asking,
	struct pin_result *ret_result, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;
	struct pin_result result = {0};
	struct pinning pinning = {
		.name = name, .asking = asking, .result = &result, .length = length};
	int status = yaml_tree_parse(name, text, length, &root, err);

	if (status < 0) {
		return status;
	}
	result.before = xstrndup(text, length);
	buffer_init(&pinning.out, 0);
	status = pin_all(&pinning, root, err);
	if (status == 0) {
		buffer_add(&pinning.out, text + pinning.copied, length - pinning.copied);
		result.after = buffer_steal(&pinning.out);
		status = result.count > 0 ? check_result(name, &result, err) : 0;
	}
	buffer_done(&pinning.out);
	if (status < 0) {
		pin_result_done(&result);
		return status;
	}
	*ret_result = result;
	return 0;
}

/* ---- files ---- */

/* Behind a link, the file that it leads to; owner and mode stay. */
static int replace_file(const char *path, const char *text, struct error *err)
{
	CLEANUP(free_p) char *real = realpath(path, NULL);
	struct stat seen;
	int status;

	if (real == NULL || stat(real, &seen) < 0) {
		return error_sys(err, errno, "%s", path);
	}
	status = io_write_file(AT_FDCWD, real, text, strlen(text), seen.st_mode & 0777, err);
	if (status == 0 && (seen.st_uid != geteuid() || seen.st_gid != getegid()) &&
		chown(real, seen.st_uid, seen.st_gid) < 0 && geteuid() == 0) {
		return error_sys(err, errno, "give %s back its owner", path);
	}
	return status;
}

int pin_file(const char *path, bool dry_run, const struct pin_asking *asking,
	struct pin_result *ret_result, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {.max = YAML_BYTES_MAX};
	struct pin_result result = {0};
	int status = io_read_file(AT_FDCWD, path, &text, err);

	if (status == 0) {
		status = pin_text(path, buffer_text(&text), text.length, asking, &result, err);
	}
	if (status == 0 && !dry_run && result.count > 0) {
		status = replace_file(path, result.after, err);
	}
	if (status < 0) {
		pin_result_done(&result);
		return status;
	}
	*ret_result = result;
	return 0;
}

static void add_line(const char *text, int line, char mark, struct buffer *out)
{
	size_t length = strlen(text), start = offset_of(text, length, line, 1);

	buffer_addf(out, "%c%.*s\n", mark, (int)strcspn(text + start, "\r\n"), text + start);
}

void pin_diff(const char *path, const struct pin_result *result, struct buffer *out)
{
	int last = 0;

	if (result->count > 0) {
		buffer_addf(out, "--- %s\n+++ %s\n", path, path);
	}
	for (size_t i = 0; i < result->count; i++) {
		int line = result->changes[i].line;

		if (line != last) {
			buffer_addf(out, "@@ -%d +%d @@\n", line, line);
			add_line(result->before, line, '-', out);
			add_line(result->after, line, '+', out);
		}
		last = line;
	}
}

/* ---- for a message ---- */

/* The first is asked for; no further one is. */
static const struct yaml_node *first_loose(
	const struct yaml_node *root, enum package_manager *ret_manager)
{
	const struct yaml_node *packages = settings_node(root, "packages");

	for (size_t i = 0; packages != NULL && packages->kind == YAML_MAP && i < packages->count;
		i++) {
		const struct yaml_node *list = &packages->items[i];

		if (list->kind != YAML_LIST || !package_manager_from_name(list->key, ret_manager)) {
			continue;
		}
		for (size_t j = 0; j < list->count; j++) {
			if (list->items[j].kind == YAML_TEXT &&
				package_parse(*ret_manager, list->items[j].text, NULL, NULL) ==
					PACKAGE_LOOSE) {
				return &list->items[j];
			}
		}
	}
	return NULL;
}

void pin_explain(const char *path, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;
	CLEANUP(free_p) char *version = NULL;
	CLEANUP(free_p) char *exact = NULL;
	CLEANUP(free_p) char *place = NULL;
	enum package_manager manager;
	struct error ignored = ERROR_INIT;
	const struct yaml_node *item;

	if (err->kind != ERROR_INVALID || strstr(err->message, "names no exact version") == NULL ||
		yaml_tree_load(path, &root, &ignored) < 0) {
		return;
	}
	item = first_loose(root, &manager);
	place = item != NULL ? xasprintf(":%d:%d:", item->line, item->column) : NULL;
	if (place == NULL || strstr(err->message, place) == NULL ||
		package_resolve(manager, item->text, &version, &ignored) < 0) {
		return;
	}
	exact = package_text(manager, item->text, version);
	error_hint(err, "now it would be %s; `hob env pin %s` writes that in", exact, path);
}
