/* Walks a parsed file along a table of settings: unknown keys, missing ones, defaults, lists. A
 * default goes through the same reader as a written value, so that it cannot be out of range. */
#include "configs/settings.h"

#include "base/text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* Keys of one mapping in a table; for messages. */
#define KEYS_MAX 40

/* The rest of the row's key when it stands directly below `prefix`, else NULL. */
static const char *row_below(const struct setting *row, const char *prefix)
{
	size_t length = strlen(prefix);

	if (strncmp(row->key, prefix, length) != 0 || strchr(row->key + length, '.') != NULL) {
		return NULL;
	}
	return row->key + length;
}

const struct setting *setting_find(
	const struct settings *settings, const char *prefix, const char *key)
{
	for (size_t i = 0; i < settings->count; i++) {
		const char *rest = row_below(&settings->rows[i], prefix);

		if (rest != NULL && streq(rest, key)) {
			return &settings->rows[i];
		}
	}
	return NULL;
}

static const struct yaml_node *item_find(
	const struct yaml_node *map, const char *key, size_t length)
{
	for (size_t i = 0; map->kind == YAML_MAP && i < map->count; i++) {
		if (strncmp(map->items[i].key, key, length) == 0 &&
			map->items[i].key[length] == '\0') {
			return &map->items[i];
		}
	}
	return NULL;
}

const struct yaml_node *settings_node(const struct yaml_node *root, const char *path)
{
	while (root != NULL && *path != '\0') {
		size_t length = strcspn(path, ".");

		root = item_find(root, path, length);
		path += length + (path[length] == '.' ? 1 : 0);
	}
	return root;
}

void setting_key_text(const struct setting *row, char *text)
{
	size_t used = 0;

	for (const char *at = row->key; *at != '\0' && used < SETTING_KEY_SIZE - 1; at++) {
		if (*at != '[' && *at != ']') {
			text[used++] = *at;
		}
	}
	text[used] = '\0';
}

int setting_refuse(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, struct error *err, const char *format, ...)
{
	char key[SETTING_KEY_SIZE];
	va_list args;

	va_start(args, format);
	CLEANUP(free_p) char *text = xvasprintf(format, args);
	va_end(args);
	setting_key_text(row, key);
	return yaml_error(err, in->name, node, false, "\"%s\" %s", key, text);
}

int setting_expects(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *what, struct error *err)
{
	char found[96];

	yaml_describe(node, found, sizeof(found));
	return setting_refuse(in, row, node, err, "expects %s, not %s", what, found);
}

int setting_texts_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, size_t most, const char *what,
	setting_item_fn *check, struct error *err)
{
	char ***list = (char ***)(void *)((char *)target + row->offset);

	if (node->kind != YAML_LIST || node->count > most) {
		CLEANUP(free_p)
		char *wanted = xasprintf("%s, %zu at the most", row->expects, most);

		return setting_expects(in, row, node, wanted, err);
	}
	for (size_t i = 0; i < node->count; i++) {
		struct yaml_node *item = &node->items[i];
		int status = item->kind != YAML_TEXT || yaml_is_null(item)
				     ? setting_expects(in, row, item, what, err)
				     : check(in, row, item, *list, err);

		if (status < 0) {
			return status;
		}
		strv_add(list, item->text);
	}
	return 0;
}

static int refuse_unknown(const struct settings_input *in, const char *prefix,
	const struct yaml_node *item, struct error *err)
{
	const char *known[KEYS_MAX + 1] = {NULL};
	char list[ERROR_HINT_SIZE] = "";
	size_t count = 0, used = 0;
	const char *nearest;

	for (size_t i = 0; i < in->settings->count && count < KEYS_MAX; i++) {
		const char *rest = row_below(&in->settings->rows[i], prefix);

		if (rest != NULL) {
			known[count++] = rest;
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
				used > 0 ? ", " : "", rest);
			assert(used < sizeof(list));
		}
	}
	nearest = text_nearest(item->key, known, count);
	yaml_error(err, in->name, item, true, "unknown key \"%.64s\"%s%s%s", item->key,
		nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "",
		nearest != NULL ? "\"?" : "");
	return error_hint(err, "known here: %s", list);
}

static int defaults_set(
	const struct settings_input *in, const char *prefix, void *target, struct error *err);

static int default_set(
	const struct settings_input *in, const struct setting *row, void *target, struct error *err)
{
	struct yaml_node written = {.kind = YAML_TEXT, .plain = true};
	CLEANUP(free_p) char *prefix = NULL;
	CLEANUP(free_p) char *text = NULL;

	if (row->type == SETTING_SECTION) {
		prefix = xasprintf("%s.", row->key);
		return defaults_set(in, prefix, target, err);
	}
	if (row->fallback == NULL) {
		return 0;
	}
	text = xstrdup(row->fallback);
	written.text = text;
	return row->type == SETTING_CUSTOM ? row->read(in, row, &written, target, err)
					   : setting_value_read(in, row, &written, target, err);
}

static int defaults_set(
	const struct settings_input *in, const char *prefix, void *target, struct error *err)
{
	int code = 0;

	for (size_t i = 0; code == 0 && i < in->settings->count; i++) {
		const struct setting *row = &in->settings->rows[i];

		if (row_below(row, prefix) != NULL && row->type != SETTING_LIST) {
			code = default_set(in, row, target, err);
		}
	}
	return code;
}

static int list_entry_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	CLEANUP(free_p) char *prefix = xasprintf("%s[].", row->key);
	void **array = (void **)(void *)((char *)target + row->offset);
	size_t *count = (size_t *)(void *)((char *)target + row->count_offset);

	/* Counted before it is read: a half-filled entry is freed with the others. */
	*array = xreallocarray(*array, *count + 1, row->element_size);
	void *entry = (char *)*array + *count * row->element_size;

	memset(entry, 0, row->element_size);
	*count += 1;
	return settings_read_section(in, prefix, node, entry, err);
}

static int list_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	char found[96];

	if (row->single && node->kind == YAML_MAP) {
		return list_entry_read(in, row, node, target, err);
	}
	if (node->kind != YAML_LIST) {
		yaml_describe(node, found, sizeof(found));
		return setting_refuse(in, row, node, err, "expects %sa list of mappings, not %s",
			row->single ? "a mapping or " : "", found);
	}
	if (node->count > (size_t)row->highest) {
		return setting_refuse(in, row, node, err, "has %zu entries; at most %d are allowed",
			node->count, (int)row->highest);
	}
	for (size_t i = 0; i < node->count; i++) {
		int code = list_entry_read(in, row, &node->items[i], target, err);

		if (code < 0) {
			return code;
		}
	}
	return 0;
}

static int row_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	CLEANUP(free_p) char *prefix = NULL;

	switch (row->type) {
	case SETTING_SECTION:
		prefix = xasprintf("%s.", row->key);
		return settings_read_section(in, prefix, node, target, err);
	case SETTING_LIST:
		return list_read(in, row, node, target, err);
	case SETTING_CUSTOM:
		return row->read(in, row, node, target, err);
	case SETTING_TEXT:
	case SETTING_HOST_PATH:
	case SETTING_INNER_PATH:
	case SETTING_CHOICE:
	case SETTING_SWITCH:
	case SETTING_BOOL:
	case SETTING_INT:
	case SETTING_CPUS:
	case SETTING_SIZE:
	case SETTING_DURATION:
	case SETTING_TYPES:
	default:
		return setting_value_read(in, row, node, target, err);
	}
}

static int refuse_not_map(const struct settings_input *in, const char *prefix,
	const struct yaml_node *node, struct error *err)
{
	char found[96];
	/* "limits." is the mapping limits, "steps[]." an entry of steps, "steps[].x." a mapping x
	 * in such an entry. */
	size_t length = strlen(prefix) - 1;
	bool entry = prefix[0] != '\0' && prefix[length - 1] == ']';
	const char *inner = memrchr(prefix, '.', prefix[0] != '\0' ? length : 0);

	yaml_describe(node, found, sizeof(found));
	if (prefix[0] == '\0') {
		return yaml_error(err, in->name, node, false,
			"expects a mapping of keys to values, not %s", found);
	}
	return yaml_error(err, in->name, node, false,
		"%s\"%.*s\" expects a mapping of keys to values, not %s",
		entry ? "an entry of " : "",
		(int)(inner != NULL ? length : strcspn(prefix, "[.")) -
			(int)(inner != NULL ? inner + 1 - prefix : 0),
		inner != NULL ? inner + 1 : prefix, found);
}

int settings_read_section(const struct settings_input *in, const char *prefix,
	const struct yaml_node *node, void *target, struct error *err)
{
	if (node->kind != YAML_MAP) {
		return refuse_not_map(in, prefix, node, err);
	}
	for (size_t i = 0; i < node->count; i++) {
		if (setting_find(in->settings, prefix, node->items[i].key) == NULL) {
			return refuse_unknown(in, prefix, &node->items[i], err);
		}
	}
	for (size_t i = 0; i < in->settings->count; i++) {
		const struct setting *row = &in->settings->rows[i];
		const char *key = row_below(row, prefix);
		const struct yaml_node *item = NULL;
		int code = 0;

		if (key == NULL) {
			continue;
		}
		item = item_find(node, key, strlen(key));
		if (item == NULL && row->required) {
			char text[SETTING_KEY_SIZE];

			setting_key_text(row, text);
			yaml_error(err, in->name, node, false, "\"%s\" is missing", text);
			return error_hint(err, "%s: %s", key, row->about);
		}
		if (item != NULL) {
			code = row_read(in, row, item, target, err);
		} else if (row->type != SETTING_LIST) {
			code = default_set(in, row, target, err);
		}
		if (code < 0) {
			return code;
		}
	}
	return 0;
}

int settings_read(const struct settings_input *in, const struct yaml_node *root, void *target,
	struct error *err)
{
	return settings_read_section(in, "", root, target, err);
}
