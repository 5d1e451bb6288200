/* Cells are collected, then measured, then printed: alignment needs all of them. */
#include "pool/cli/table.h"

#include <assert.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define COLUMNS_MAX 16
#define GAP 2

struct cell {
	char *text;
	enum style style;
};

struct table {
	const struct table_column *columns;
	size_t column_count;
	struct cell *cells;
	size_t cell_count, cell_room;
};

struct table *table_new(const struct table_column *columns, size_t count)
{
	struct table *table = xcalloc(1, sizeof(*table));

	assert(count > 0 && count <= COLUMNS_MAX);
	table->columns = columns;
	table->column_count = count;
	return table;
}

void table_free(struct table *table)
{
	if (table != NULL) {
		for (size_t i = 0; i < table->cell_count; i++) {
			free(table->cells[i].text);
		}
		free(table->cells);
		free(table);
	}
}

void table_add_styled(struct table *table, const char *text, enum style style)
{
	struct cell *cell = array_add(&table->cells, &table->cell_count, &table->cell_room);

	cell->text = xstrdup(text[0] != '\0' ? text : "-");
	cell->style = style;
}

void table_add(struct table *table, const char *text)
{
	table_add_styled(table, text, STYLE_PLAIN);
}

void table_add_member(struct table *table, const json_t *object, const char *key)
{
	CLEANUP(free_p) char *text = human_member(object, key);

	table_add(table, text);
}

/* Letters, counting each UTF-8 sequence as one: hob's own texts have no wide or joined letters. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text != '\0'; text++) {
		width += ((unsigned char)*text & 0xc0) != 0x80 ? 1 : 0;
	}
	return width;
}

/* Cuts to `width` letters, the last of them an ellipsis. */
static char *cut(const char *text, size_t width)
{
	size_t letters = 0, bytes = 0;

	if (width_of(text) <= width) {
		return xstrdup(text);
	}
	for (; text[bytes] != '\0'; bytes++) {
		letters += ((unsigned char)text[bytes] & 0xc0) != 0x80 ? 1 : 0;
		if (letters >= width) {
			break;
		}
	}
	return xasprintf("%.*s…", (int)bytes, text);
}

static size_t terminal_width(void)
{
	struct winsize size;

	if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
		size.ws_col > 0) {
		return size.ws_col;
	}
	return SIZE_MAX;
}

static void print_row(
	const struct table *table, const struct cell *row, const size_t *widths, size_t most)
{
	size_t used = 0;

	for (size_t c = 0; c < table->column_count; c++) {
		bool last = c + 1 == table->column_count;
		size_t room = last && most > used + 1 ? most - used : SIZE_MAX;
		CLEANUP(free_p) char *text = cut(row[c].text, room);
		size_t width = width_of(text);
		size_t pad = widths[c] > width ? widths[c] - width : 0;

		if (table->columns[c].right) {
			printf("%*s", (int)pad, "");
		}
		style_print(text, row[c].style);
		if (!last) {
			printf("%*s", (int)((table->columns[c].right ? 0 : pad) + GAP), "");
		}
		used += widths[c] + GAP;
	}
	putchar('\n');
}

void table_print(const struct table *table, const char *nothing)
{
	size_t widths[COLUMNS_MAX] = {0};
	struct cell head[COLUMNS_MAX] = {0};
	size_t most = terminal_width();

	assert(table->cell_count % table->column_count == 0);
	if (table->cell_count == 0 && nothing != NULL) {
		fflush(stdout);
		fprintf(stderr, "%s\n", nothing);
		return;
	}
	for (size_t c = 0; c < table->column_count; c++) {
		head[c].text = xstrdup(table->columns[c].title);
		head[c].style = STYLE_HEAD;
		widths[c] = width_of(head[c].text);
		for (size_t i = c; i < table->cell_count; i += table->column_count) {
			size_t width = width_of(table->cells[i].text);

			widths[c] = width > widths[c] ? width : widths[c];
		}
	}
	print_row(table, head, widths, most);
	for (size_t i = 0; i < table->cell_count; i += table->column_count) {
		print_row(table, &table->cells[i], widths, most);
	}
	for (size_t c = 0; c < table->column_count; c++) {
		free(head[c].text);
	}
}
