/* Allocation that aborts rather than fails: hob's daemon is crash-only and comes back from its
 * store, so there is nothing useful to do without a few bytes of memory. */
#include "base/memory.h"

#include <stdio.h>

static void *check(void *pointer)
{
	if (pointer == NULL) {
		static const char text[] = "hob: out of memory\n";

		(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
		abort();
	}
	return pointer;
}

void *xmalloc(size_t size)
{
	return check(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
	return check(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xrealloc(void *old, size_t size)
{
	return check(realloc(old, size > 0 ? size : 1));
}

void *xreallocarray(void *old, size_t count, size_t size)
{
	return check(reallocarray(old, count > 0 ? count : 1, size > 0 ? size : 1));
}

char *xstrdup(const char *text)
{
	return text == NULL ? NULL : check(strdup(text));
}

char *xstrndup(const char *text, size_t length)
{
	return check(strndup(text, length));
}

char *xvasprintf(const char *format, va_list args)
{
	char *text = NULL;

	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
	}
	return check(text);
}

char *xasprintf(const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	text = xvasprintf(format, args);
	va_end(args);
	return text;
}

void *array_add_(void **array, size_t *count, size_t *room, size_t element_size)
{
	char *element;

	if (*count == *room) {
		*room = *room > 0 ? 2 * *room : 8;
		*array = xreallocarray(*array, *room, element_size);
	}
	element = (char *)*array + *count * element_size;
	memset(element, 0, element_size);
	*count += 1;
	return element;
}

size_t strv_count(char *const *list)
{
	size_t count = 0;

	while (list != NULL && list[count] != NULL) {
		count++;
	}
	return count;
}

char **strv_copy(char *const *list)
{
	size_t count = strv_count(list);
	char **copy;

	if (list == NULL) {
		return NULL;
	}
	copy = xcalloc(count + 1, sizeof(*copy));
	for (size_t i = 0; i < count; i++) {
		copy[i] = xstrdup(list[i]);
	}
	return copy;
}

void strv_add(char ***list, const char *text)
{
	size_t count = strv_count(*list);

	*list = xreallocarray(*list, count + 2, sizeof(**list));
	(*list)[count] = xstrdup(text);
	(*list)[count + 1] = NULL;
}

bool strv_contains(char *const *list, const char *text)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
		if (streq(list[i], text)) {
			return true;
		}
	}
	return false;
}

void strv_free(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
		free(list[i]);
	}
	free(list);
}
