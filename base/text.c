/* Optimal string alignment distance over short words, three rows of the table at a time. */
#include "base/text.h"

#include "base/memory.h"

#include <stdio.h>

#define WORD_MAX 64

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t text_distance(const char *a, const char *b, size_t most)
{
	size_t rows[3][WORD_MAX + 1] = {0};
	size_t length_a = strlen(a), length_b = strlen(b);

	if (length_a > WORD_MAX || length_b > WORD_MAX) {
		return most + 1;
	}
	for (size_t j = 0; j <= length_b; j++) {
		rows[0][j] = j;
	}
	for (size_t i = 1; i <= length_a; i++) {
		size_t *row = rows[i % 3], *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= length_b; j++) {
			size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;

			row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
				row[j] = least(row[j], above2[j - 2] + 1);
			}
		}
	}
	return least(rows[length_a % 3][length_b], most + 1);
}

const char *text_nearest(const char *word, const char *const *words, size_t count)
{
	/* One edit in three letters: "lst" finds "ls", "frobnicate" finds nothing. */
	size_t best = (strlen(word) + 2) / 3;
	const char *found = NULL;

	for (size_t i = 0; i < count; i++) {
		size_t distance = text_distance(word, words[i], best);

		if (distance <= best) {
			found = words[i];
			if (distance == 0) {
				break;
			}
			best = distance - 1;
		}
	}
	return found;
}

void text_bytes(char text[TEXT_BYTES_SIZE], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++) {
		value /= 1024;
	}
	/* 9.95 would be written as 10.0. */
	snprintf(text, TEXT_BYTES_SIZE, unit > 0 && value < 9.95 ? "%.1f %s" : "%.0f %s", value,
		units[unit]);
}
