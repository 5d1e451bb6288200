/* Trees for tests of layers: every kind of entry, random changes, and two trees compared by walking
 * both. Only for root. */
#ifndef HOB_TESTS_LIB_TREE_KIT_H
#define HOB_TESTS_LIB_TREE_KIT_H

#include "base/buffer.h"
#include "snapshots/store.h"

#include <stdint.h>

/* Runs `sh -e -c script` in the folder, with the function `setx PATH NAME VALUE` for attributes;
 * fails the test unless it succeeds. */
void tree_kit_shell(int dir_fd, const char *script);
/* A layer whose tree the script makes, in the folder `tree`; owners count from id_base. */
struct layer tree_kit_layer(struct store *store, int64_t id_base, const char *script);
/* Everything about a tree as text, a line an entry in the order of names: path, type, mode, owners
 * less id_base, mtime to the nanosecond, size, holes, links, xattrs, content. What is listed but is
 * not there (a whiteout that shows in an overlay) is a GHOST. */
void tree_kit_describe(int dir_fd, const char *name, int64_t id_base, struct buffer *text);

#endif
