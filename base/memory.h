/*
 * Ownership in a few words: CLEANUP runs a destructor at the end of the scope and keeps errno,
 * steal_* hands a value on. Small allocations abort when memory is exhausted; whatever is sized by
 * input has a cap of its own before it gets here.
 */
#ifndef HOB_BASE_MEMORY_H
#define HOB_BASE_MEMORY_H

#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define container_of(pointer, type, member)                                                        \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Defines `name`, a CLEANUP function for variables of type `type *`, from `destroy(type *)`. */
#define DEFINE_CLEANUP(name, type, destroy)                                                        \
	static inline void name(type **variable)                                                   \
	{                                                                                          \
		int saved = errno;                                                                 \
		if (*variable != NULL) {                                                           \
			destroy(*variable);                                                        \
		}                                                                                  \
		errno = saved;                                                                     \
	}

/* Abort when memory is exhausted. Free with free(). */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);
void *xreallocarray(void *old, size_t count, size_t size);
char *xstrdup(const char *text); /* NULL gives NULL */
char *xstrndup(const char *text, size_t length);
char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);
char *xvasprintf(const char *format, va_list args) PRINTF_LIKE(1, 0);

static inline void free_p(void *pointer)
{
	int saved = errno;

	free(*(void **)pointer);
	errno = saved;
}

static inline void close_p(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		close(*fd);
		errno = saved;
	}
}

#define steal_ptr(pointer)                                                                         \
	({                                                                                         \
		__typeof__(pointer) stolen_ = (pointer);                                           \
		(pointer) = NULL;                                                                  \
		stolen_;                                                                           \
	})

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

/* Closes what *fd holds, if anything, and leaves -1. */
static inline void fd_done(int *fd)
{
	close_p(fd);
	*fd = -1;
}

static inline bool streq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static inline bool str_starts(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* A growing array: `struct thing *things; size_t count, room;` and then
 * `*array_add(&things, &count, &room) = …`. The new element is zeroed. */
void *array_add_(void **array, size_t *count, size_t *room, size_t element_size);
#define array_add(array, count, room)                                                              \
	((__typeof__(*(array)))array_add_((void **)(array), (count), (room), sizeof(**(array))))

/* A NULL-terminated list of owned strings, as argv and environments are. */
char **strv_copy(char *const *list); /* NULL gives NULL */
void strv_add(char ***list, const char *text);
size_t strv_count(char *const *list); /* NULL counts 0 */
bool strv_contains(char *const *list, const char *text); /* NULL holds nothing */
void strv_free(char **list);
DEFINE_CLEANUP(strv_free_p, char *, strv_free)

#endif
