/* A table in aligned columns. On a terminal the last column is cut at the edge; piped, nothing is.
 */
#ifndef HOB_POOL_CLI_TABLE_H
#define HOB_POOL_CLI_TABLE_H

#include "base/memory.h"
#include "pool/cli/human.h"

struct table;

struct table_column {
	const char *title;
	bool right; /* numbers */
};

/* The columns must outlive the table. */
struct table *table_new(const struct table_column *columns, size_t count);
void table_free(struct table *table);
DEFINE_CLEANUP(table_free_p, struct table, table_free)

/* Cells from left to right, row after row; the text is copied, "-" stands for an empty one. */
void table_add(struct table *table, const char *text);
void table_add_styled(struct table *table, const char *text, enum style style);
/* A member of an object, as human_member writes it. */
void table_add_member(struct table *table, const json_t *object, const char *key);
/* `nothing` is said on standard error when there are no rows. */
void table_print(const struct table *table, const char *nothing);

#endif
