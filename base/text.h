/* Words for people: the nearest of a list to a misspelt one, and amounts. */
#ifndef HOB_BASE_TEXT_H
#define HOB_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Edits (insert, delete, replace, swap neighbours) from one word to the other, at most `most` + 1.
 * Words over 64 bytes are never near. */
size_t text_distance(const char *a, const char *b, size_t most);
/* The nearest of `count` words, NULL when none is near enough to be what was meant. */
const char *text_nearest(const char *word, const char *const *words, size_t count);

#define TEXT_BYTES_SIZE 32
/* "812 B", "1.4 KiB", "20 MiB". */
void text_bytes(char text[TEXT_BYTES_SIZE], uint64_t bytes);

#endif
