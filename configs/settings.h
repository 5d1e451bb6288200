/*
 * One table for each kind of file: a row says a setting's key, type, range, default, place in the
 * struct and meaning. Reading, defaults, `--explain` and the reference all come from the rows.
 *
 * Keys are paths: "limits.memory" stands in the mapping `limits`, "steps[].run" in each entry of
 * the list `steps`; offsets of the latter count from the start of the entry.
 */
#ifndef HOB_CONFIGS_SETTINGS_H
#define HOB_CONFIGS_SETTINGS_H

#include "base/buffer.h"
#include "base/error.h"
#include "configs/yaml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_type {
	SETTING_TEXT, /* char * */
	SETTING_HOST_PATH, /* char *; relative ones count from the file's folder */
	SETTING_INNER_PATH, /* char *; inside a sandbox, absolute */
	SETTING_CHOICE, /* char *; one of `choices` */
	SETTING_SWITCH, /* bool; choices[0] is false, choices[1] true */
	SETTING_BOOL,
	SETTING_INT, /* the rest are int64_t */
	SETTING_CPUS, /* thousandths: 1.5 is 1500 */
	SETTING_SIZE, /* bytes: 512MiB */
	SETTING_DURATION, /* milliseconds: 1h30m */
	SETTING_SECTION, /* a mapping; its rows follow with its key before theirs */
	SETTING_LIST, /* of mappings; a single mapping stands for a list of one if `single` */
	SETTING_CUSTOM, /* read and written by functions of the row */
	SETTING_TYPES
};

struct settings;
struct setting;

/* The file that is being read. */
struct settings_input {
	const struct settings *settings;
	const char *name; /* for messages */
	const char *folder; /* absolute; relative paths count from here */
};

/* May replace *text; fails by setting_refuse. */
typedef int setting_check_fn(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err);
typedef int setting_read_fn(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err);
/* Adds what stands after the key, from the space or line end on, to its last line end; nothing: the
 * key is left out. */
typedef void setting_write_fn(
	const struct setting *row, const void *target, int indent, struct buffer *out);

struct setting {
	const char *key;
	enum setting_type type;
	bool required;
	bool zero; /* 0 is allowed below `lowest`, and means something of its own */
	bool single; /* SETTING_LIST */
	size_t offset;
	int64_t lowest, highest; /* numbers; `highest` of texts: bytes, of lists: entries */
	size_t count_offset, element_size; /* SETTING_LIST */
	const char *fallback; /* the default as one would write it; NULL: NULL, or see `derived` */
	const char *derived; /* in words, of a default that depends on others */
	const char *const *choices; /* NULL-terminated */
	const char *expects; /* of texts with a check: "a URL" */
	setting_check_fn *check;
	setting_read_fn *read;
	setting_write_fn *write;
	const char *about; /* one line */
};

struct settings {
	const struct setting *rows;
	size_t count;
};

/* Fills `target` from a parsed file. On failure what was filled in so far is the caller's to free.
 */
MUSTCHECK int settings_read(const struct settings_input *in, const struct yaml_node *root,
	void *target, struct error *err);
/* Only the rows below `prefix` ("base."), for custom rows. */
MUSTCHECK int settings_read_section(const struct settings_input *in, const char *prefix,
	const struct yaml_node *node, void *target, struct error *err);
/* `<file>:<line>:<column>: "<key>" <text>`. */
int setting_refuse(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, struct error *err, const char *format, ...) PRINTF_LIKE(5, 6);
/* The same, `expects <what>, not <what the node is>`. */
int setting_expects(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *what, struct error *err);
/* "pool.min" of the file as hint-ready text: the key without "[]"; into text[SETTING_KEY_SIZE]. */
#define SETTING_KEY_SIZE 64
void setting_key_text(const struct setting *row, char *text);
/* The row that stands directly below `prefix` under this key, or NULL. */
const struct setting *setting_find(
	const struct settings *settings, const char *prefix, const char *key);
/* The node of "pool.min" in a file, or NULL. */
const struct yaml_node *settings_node(const struct yaml_node *root, const char *path);

/* What an item of a list of texts must be; `before` are those before it. May replace its text. */
typedef int setting_item_fn(const struct settings_input *in, const struct setting *row,
	struct yaml_node *item, char *const *before, struct error *err);
/* Adds a list of at most `most` texts to the strv at the row's place; `what` they are, for
 * messages.
 */
MUSTCHECK int setting_texts_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, size_t most, const char *what,
	setting_item_fn *check, struct error *err);

/* ---- single values (settings_value.c) ---- */
/* Reads one scalar into the row's place of `target`. */
MUSTCHECK int setting_value_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err);
bool size_parse(const char *text, int64_t *ret_bytes);
/* The shortest exact form, "4GiB", "1500B"; into text[32]. */
void size_format(char *text, int64_t bytes);
bool cpus_parse(const char *text, int64_t *ret_millis);
void cpus_format(char *text, int64_t millis);

/* ---- what people see (settings_print.c) ---- */
/* The whole of `target` as YAML that reads back to the same. */
void settings_write(const struct settings *settings, const void *target, struct buffer *out);
/* A line for each setting: key, type with range, default, meaning. */
void settings_reference(const struct settings *settings, struct buffer *out);
/* What the row takes, "duration, 1s to 365d or 0"; into text[size]. */
void setting_type_text(const struct setting *row, char *text, size_t size);
/* A scalar as YAML: bare where that is safe, else in double quotes. */
void yaml_write_text(struct buffer *out, const char *text);
/* In double quotes always, as within brackets. */
void yaml_write_quoted(struct buffer *out, const char *text);

#endif
