/* Reads the events of libyaml into a small tree. libyaml does the syntax; what hob does not want of
 * YAML is refused here, at the place where it stands. */
#include "configs/yaml.h"

#include "base/buffer.h"
#include "base/io.h"

#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <yaml.h>

struct reading {
	const char *name;
	const char *text;
	size_t length;
	yaml_parser_t parser;
	size_t nodes;
	struct error *err;
};

static void node_done(struct yaml_node *node)
{
	for (size_t i = 0; i < node->count; i++) {
		node_done(&node->items[i]);
	}
	free(node->items);
	free(node->text);
	free(node->key);
}

void yaml_tree_free(struct yaml_node *root)
{
	if (root != NULL) {
		node_done(root);
		free(root);
	}
}

/* What a file says is repeated in messages; it must not steer the terminal that shows them. */
static void make_harmless(char *text)
{
	for (unsigned char *at = (unsigned char *)text; *at != '\0'; at++) {
		if (*at < 0x20 || *at == 0x7f) {
			*at = '?';
		} else if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0) {
			at[0] = at[1] = '?';
		}
	}
}

static int fail_at(const struct reading *r, yaml_mark_t mark, const char *format, ...)
	PRINTF_LIKE(3, 4);
static int fail_at(const struct reading *r, yaml_mark_t mark, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	CLEANUP(free_p) char *text = xvasprintf(format, args);
	va_end(args);
	make_harmless(text);
	return error_set(r->err, ERROR_INVALID, "%s:%zu:%zu: %s", r->name, mark.line + 1,
		mark.column + 1, text);
}

/* libyaml's reader knows only the offset of a byte that is not UTF-8. */
static yaml_mark_t mark_of_offset(const struct reading *r, size_t offset)
{
	yaml_mark_t mark = {.index = offset};

	for (size_t i = 0; i < offset && i < r->length; i++) {
		if (r->text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		} else if (((unsigned char)r->text[i] & 0xc0) != 0x80) {
			mark.column++;
		}
	}
	return mark;
}

static bool is_tab_at(const struct reading *r, const yaml_mark_t *mark)
{
	size_t line = 0, i = 0;

	while (i < r->length && line < mark->line) {
		line += r->text[i++] == '\n' ? 1 : 0;
	}
	return i + mark->column < r->length && memchr(r->text + i, '\t', mark->column + 1) != NULL;
}

static int fail_syntax(const struct reading *r)
{
	const yaml_parser_t *parser = &r->parser;

	switch (parser->error) {
	case YAML_READER_ERROR:
		return fail_at(r, mark_of_offset(r, parser->problem_offset),
			"not a text in UTF-8: %s (0x%02x)", parser->problem,
			(unsigned)parser->problem_value);
	case YAML_SCANNER_ERROR:
	case YAML_PARSER_ERROR:
		fail_at(r, parser->problem_mark, "%s%s%s", parser->problem,
			parser->context != NULL ? " " : "",
			parser->context != NULL ? parser->context : "");
		if (is_tab_at(r, &parser->problem_mark)) {
			return error_hint(r->err,
				"there is a tab in this line; YAML is indented with spaces");
		}
		return -ERROR_INVALID;
	case YAML_NO_ERROR:
	case YAML_MEMORY_ERROR:
	case YAML_COMPOSER_ERROR:
	case YAML_WRITER_ERROR:
	case YAML_EMITTER_ERROR:
	default:
		return error_set(r->err, ERROR_INVALID, "%s: not readable as YAML", r->name);
	}
}

static void event_done(yaml_event_t *event)
{
	yaml_event_delete(event);
}

static int next_event(struct reading *r, yaml_event_t *event)
{
	memset(event, 0, sizeof(*event));
	return yaml_parser_parse(&r->parser, event) == 1 ? 0 : fail_syntax(r);
}

static int node_read(
	struct reading *r, const yaml_event_t *event, int depth, struct yaml_node *node);

/* What no value of a configuration may have. */
static int check_plainness(const struct reading *r, const yaml_event_t *event)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	switch (event->type) {
	case YAML_ALIAS_EVENT:
		fail_at(r, event->start_mark, "aliases (*%s) are not allowed",
			(const char *)event->data.alias.anchor);
		return error_hint(r->err, "write the value out where it is needed");
	case YAML_SCALAR_EVENT:
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
		break;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
	default:
		break;
	}
	if (anchor != NULL) {
		return fail_at(r, event->start_mark, "anchors (&%s) are not allowed",
			(const char *)anchor);
	}
	if (tag != NULL) {
		return fail_at(
			r, event->start_mark, "tags (%s) are not allowed", (const char *)tag);
	}
	return 0;
}

static int scalar_text(const struct reading *r, const yaml_event_t *event, char **ret_text)
{
	const char *value = (const char *)event->data.scalar.value;

	if (strlen(value) != event->data.scalar.length) {
		return fail_at(r, event->start_mark, "a NUL character in a text");
	}
	*ret_text = xstrdup(value);
	return 0;
}

static int list_read(struct reading *r, int depth, struct yaml_node *list)
{
	for (;;) {
		CLEANUP(event_done) yaml_event_t event;
		int code = next_event(r, &event);

		if (code < 0) {
			return code;
		}
		if (event.type == YAML_SEQUENCE_END_EVENT) {
			return 0;
		}
		code = node_read(
			r, &event, depth + 1, array_add(&list->items, &list->count, &list->room));
		if (code < 0) {
			return code;
		}
	}
}

static int key_read(const struct reading *r, const yaml_event_t *event, const struct yaml_node *map,
	char **ret_key)
{
	int code = check_plainness(r, event);

	if (code < 0) {
		return code;
	}
	if (event->type != YAML_SCALAR_EVENT) {
		return fail_at(r, event->start_mark, "a key must be a word");
	}
	CLEANUP(free_p) char *key = NULL;

	code = scalar_text(r, event, &key);
	if (code < 0) {
		return code;
	}
	for (size_t i = 0; i < map->count; i++) {
		if (streq(map->items[i].key, key)) {
			return fail_at(r, event->start_mark,
				"duplicate key \"%s\"; it is also in line %d", key,
				map->items[i].key_line);
		}
	}
	*ret_key = steal_ptr(key);
	return 0;
}

static int map_read(struct reading *r, int depth, struct yaml_node *map)
{
	for (;;) {
		CLEANUP(event_done) yaml_event_t key_event, event;
		CLEANUP(free_p) char *key = NULL;
		struct yaml_node *item;
		int code;

		memset(&event, 0, sizeof(event));
		code = next_event(r, &key_event);
		if (code < 0) {
			return code;
		}
		if (key_event.type == YAML_MAPPING_END_EVENT) {
			return 0;
		}
		code = key_read(r, &key_event, map, &key);
		if (code == 0) {
			code = next_event(r, &event);
		}
		if (code < 0) {
			return code;
		}
		item = array_add(&map->items, &map->count, &map->room);
		item->key = steal_ptr(key);
		item->key_line = (int)key_event.start_mark.line + 1;
		item->key_column = (int)key_event.start_mark.column + 1;
		code = node_read(r, &event, depth + 1, item);
		if (code < 0) {
			return code;
		}
	}
}

static int node_read(
	struct reading *r, const yaml_event_t *event, int depth, struct yaml_node *node)
{
	int code = check_plainness(r, event);

	if (code < 0) {
		return code;
	}
	if (++r->nodes > YAML_NODES_MAX) {
		return fail_at(
			r, event->start_mark, "more than %d values in one file", YAML_NODES_MAX);
	}
	if (depth > YAML_DEPTH_MAX) {
		return fail_at(
			r, event->start_mark, "nested deeper than %d levels", YAML_DEPTH_MAX);
	}
	node->line = (int)event->start_mark.line + 1;
	node->column = (int)event->start_mark.column + 1;
	if (event->type == YAML_SEQUENCE_START_EVENT) {
		node->kind = YAML_LIST;
		return list_read(r, depth, node);
	}
	if (event->type == YAML_MAPPING_START_EVENT) {
		node->kind = YAML_MAP;
		return map_read(r, depth, node);
	}
	assert(event->type == YAML_SCALAR_EVENT);
	node->kind = YAML_TEXT;
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	return scalar_text(r, event, &node->text);
}

/* Stream start, at most one document, stream end. */
static int stream_read(struct reading *r, struct yaml_node *root)
{
	bool seen = false;

	for (;;) {
		CLEANUP(event_done) yaml_event_t event;
		int code = next_event(r, &event);

		if (code < 0) {
			return code;
		}
		if (event.type == YAML_STREAM_END_EVENT) {
			break;
		}
		if (event.type == YAML_STREAM_START_EVENT ||
			event.type == YAML_DOCUMENT_END_EVENT) {
			continue;
		}
		if (event.type == YAML_DOCUMENT_START_EVENT) {
			if (seen) {
				return fail_at(r, event.start_mark,
					"a second document; one file holds one");
			}
			seen = true;
			continue;
		}
		code = node_read(r, &event, 0, root);
		if (code < 0) {
			return code;
		}
	}
	if (!seen || yaml_is_null(root)) {
		free(steal_ptr(root->text));
		root->kind = YAML_MAP;
		root->line = root->column = 1;
	}
	return 0;
}

int yaml_tree_parse(const char *name, const char *text, size_t length, struct yaml_node **ret_root,
	struct error *err)
{
	struct reading r = {.name = name, .text = text, .length = length, .err = err};
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = xcalloc(1, sizeof(*root));
	int code;

	if (length > YAML_BYTES_MAX) {
		return error_set(err, ERROR_INVALID,
			"%s: larger than %d bytes, the limit of such a file", name, YAML_BYTES_MAX);
	}
	if (yaml_parser_initialize(&r.parser) != 1) {
		return error_set(err, ERROR_INTERNAL, "%s: cannot start the YAML parser", name);
	}
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
	code = stream_read(&r, root);
	yaml_parser_delete(&r.parser);
	if (code == 0) {
		*ret_root = steal_ptr(root);
	}
	return code;
}

int yaml_tree_load(const char *path, struct yaml_node **ret_root, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text;
	struct stat st;
	/* Not blocking: somebody may have put a FIFO there. */
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, err);

	buffer_init(&text, 0);
	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &st) < 0) {
		return error_sys(err, errno, "stat %s", path);
	}
	if (!S_ISREG(st.st_mode)) {
		return error_set(err, ERROR_INVALID, "%s: not a regular file", path);
	}
	if (st.st_size > YAML_BYTES_MAX) {
		return error_set(err, ERROR_INVALID,
			"%s: larger than %d bytes, the limit of such a file", path, YAML_BYTES_MAX);
	}
	text.max = YAML_BYTES_MAX;
	for (;;) {
		char block[8192];
		ssize_t got = read(fd, block, sizeof(block));

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read %s", path);
		}
		if (got == 0) {
			return yaml_tree_parse(
				path, buffer_text(&text), text.length, ret_root, err);
		}
		if (!buffer_add(&text, block, (size_t)got)) {
			return error_set(err, ERROR_INVALID,
				"%s: larger than %d bytes, the limit of such a file", path,
				YAML_BYTES_MAX);
		}
	}
}

bool yaml_is_null(const struct yaml_node *node)
{
	return node->kind == YAML_TEXT && node->plain &&
	       (node->text[0] == '\0' || streq(node->text, "~") || streq(node->text, "null"));
}

void yaml_describe(const struct yaml_node *node, char *text, size_t size)
{
	if (node->kind == YAML_LIST) {
		snprintf(text, size, "a list");
	} else if (node->kind == YAML_MAP) {
		snprintf(text, size, "a mapping");
	} else if (yaml_is_null(node)) {
		snprintf(text, size, "nothing");
	} else {
		/* One line and not endless: it may be a script of many lines. */
		int shown = (int)strcspn(node->text, "\r\n");

		if (shown > 60) {
			for (shown = 60; shown > 0 && (node->text[shown] & 0xc0) == 0x80; shown--) {
				continue; /* not in the middle of a character */
			}
		}
		snprintf(text, size, "\"%.*s%s\"", shown, node->text,
			node->text[shown] == '\0' ? "" : "...");
	}
}

int yaml_error(struct error *err, const char *name, const struct yaml_node *node, bool key,
	const char *format, ...)
{
	va_list args;

	va_start(args, format);
	CLEANUP(free_p) char *text = xvasprintf(format, args);
	va_end(args);
	make_harmless(text);
	return error_set(err, ERROR_INVALID, "%s:%d:%d: %s", name,
		key ? node->key_line : node->line, key ? node->key_column : node->column, text);
}
