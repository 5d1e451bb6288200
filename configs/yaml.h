/*
 * YAML as configuration needs it: one document of mappings, lists and scalars, each with its place
 * in the file. Anchors, aliases, tags, several documents and duplicate keys are refused, and size,
 * depth and number of values are capped, so that a hostile file costs little.
 */
#ifndef HOB_CONFIGS_YAML_H
#define HOB_CONFIGS_YAML_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>

#define YAML_BYTES_MAX (1024 * 1024)
#define YAML_DEPTH_MAX 16
#define YAML_NODES_MAX 10000

enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	int line, column; /* of the value, from 1 */
	char *text; /* YAML_TEXT: as written, without quotes */
	bool plain; /* not quoted and not a block: may be a number, true, null */
	struct yaml_node *items;
	size_t count, room;
	char *key; /* when it stands in a mapping */
	int key_line, key_column;
};

/* `name` stands for the file in messages. An empty file is an empty mapping. The caller owns *ret.
 */
MUSTCHECK int yaml_tree_parse(const char *name, const char *text, size_t length,
	struct yaml_node **ret_root, struct error *err);
/* The same from a regular file of at most YAML_BYTES_MAX. */
MUSTCHECK int yaml_tree_load(const char *path, struct yaml_node **ret_root, struct error *err);
void yaml_tree_free(struct yaml_node *root);
DEFINE_CLEANUP(yaml_tree_free_p, struct yaml_node, yaml_tree_free)

/* Nothing was written: `key:`, `~` or `null`. */
bool yaml_is_null(const struct yaml_node *node);
/* "text", a list, a mapping, nothing: what stands there, for messages; into text[size]. */
void yaml_describe(const struct yaml_node *node, char *text, size_t size);
/* ERROR_INVALID "<name>:<line>:<column>: …"; `key`: at the node's key rather than at its value. */
int yaml_error(struct error *err, const char *name, const struct yaml_node *node, bool key,
	const char *format, ...) PRINTF_LIKE(5, 6);

#endif
