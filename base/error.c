/* The error table and its four setters. The table is the only place that knows what a kind is
 * called, which HTTP status it has and with which code a program exits for it. */
#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int http;
	int exit;
} kinds[] = {
	[ERROR_NONE] = {"none", 200, 0},
	[ERROR_INVALID] = {"invalid", 400, 2},
	[ERROR_USAGE] = {"usage", 400, 2},
	[ERROR_NOT_FOUND] = {"not_found", 404, 3},
	[ERROR_EXISTS] = {"exists", 409, 4},
	[ERROR_CONFLICT] = {"conflict", 409, 4},
	[ERROR_BUSY] = {"busy", 423, 5},
	[ERROR_DENIED] = {"denied", 403, 6},
	[ERROR_LIMIT] = {"limit", 413, 7},
	[ERROR_TIMEOUT] = {"timeout", 504, 8},
	[ERROR_UNAVAILABLE] = {"unavailable", 503, 9},
	[ERROR_NO_SPACE] = {"no_space", 507, 10},
	[ERROR_UNSUPPORTED] = {"unsupported", 501, 11},
	[ERROR_CORRUPT] = {"corrupt", 500, 12},
	[ERROR_REMOTE] = {"remote", 502, 13},
	[ERROR_FAILED] = {"failed", 500, 1},
	[ERROR_CANCELLED] = {"cancelled", 499, 14},
	[ERROR_IO] = {"io", 500, 15},
	[ERROR_INTERNAL] = {"internal", 500, 70},
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == ERROR_KINDS, "every kind has a row");

static enum error_kind kind_from_errno(int sys)
{
	switch (sys) {
	case ENOENT:
	case ENOTDIR:
		return ERROR_NOT_FOUND;
	case EEXIST:
		return ERROR_EXISTS;
	case EACCES:
	case EPERM:
		return ERROR_DENIED;
	case ENOSPC:
	case EDQUOT:
		return ERROR_NO_SPACE;
	case ETIMEDOUT:
		return ERROR_TIMEOUT;
	case EBUSY:
		return ERROR_BUSY;
	case EOPNOTSUPP:
	case ENOSYS:
		return ERROR_UNSUPPORTED;
	case ECONNREFUSED:
		return ERROR_UNAVAILABLE;
	default:
		return ERROR_IO;
	}
}

/* Marks a text that did not fit, so that nobody takes a cut path for a whole one. */
static void mark_cut(char *text, size_t size, int wanted)
{
	if (wanted >= (int)size && size >= 4) {
		memcpy(text + size - 4, "...", 4);
	}
}

PRINTF_LIKE(3, 0)
static void format_into(char *text, size_t size, const char *format, va_list args)
{
	mark_cut(text, size, vsnprintf(text, size, format, args));
}

int error_set(struct error *err, enum error_kind kind, const char *format, ...)
{
	va_list args;

	assert(kind > ERROR_NONE && kind < ERROR_KINDS);
	err->kind = kind;
	err->sys = 0;
	err->hint[0] = '\0';
	va_start(args, format);
	format_into(err->message, sizeof(err->message), format, args);
	va_end(args);
	return -(int)kind;
}

int error_sys(struct error *err, int sys, const char *format, ...)
{
	char context[ERROR_MESSAGE_SIZE - 128];
	va_list args;

	va_start(args, format);
	format_into(context, sizeof(context), format, args);
	va_end(args);
	error_set(err, kind_from_errno(sys), "%s: %s", context, strerror(sys));
	err->sys = sys;
	return -(int)err->kind;
}

int error_wrap(struct error *err, const char *format, ...)
{
	char inner[ERROR_MESSAGE_SIZE];
	size_t used;
	va_list args;

	assert(err->kind != ERROR_NONE);
	memcpy(inner, err->message, sizeof(inner));
	va_start(args, format);
	format_into(err->message, sizeof(err->message), format, args);
	va_end(args);
	used = strlen(err->message);
	mark_cut(err->message + used, sizeof(err->message) - used,
		snprintf(err->message + used, sizeof(err->message) - used, ": %s", inner));
	return -(int)err->kind;
}

int error_hint(struct error *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	format_into(err->hint, sizeof(err->hint), format, args);
	va_end(args);
	return -(int)err->kind;
}

void error_copy(struct error *to, const struct error *from)
{
	if (to != from) {
		*to = *from;
	}
}

const char *error_kind_name(enum error_kind kind)
{
	assert(kind < ERROR_KINDS);
	return kinds[kind].name;
}

enum error_kind error_kind_from_name(const char *name)
{
	for (size_t i = 0; i < ERROR_KINDS; i++) {
		if (strcmp(kinds[i].name, name) == 0) {
			return (enum error_kind)i;
		}
	}
	return ERROR_INTERNAL;
}

int error_http_status(enum error_kind kind)
{
	assert(kind < ERROR_KINDS);
	return kinds[kind].http;
}

int error_exit_code(enum error_kind kind)
{
	assert(kind < ERROR_KINDS);
	return kinds[kind].exit;
}

void error_print(const char *program, const struct error *err)
{
	fprintf(stderr, "%s: %s\n", program, err->message);
	if (err->hint[0] != '\0') {
		fprintf(stderr, "  hint: %s\n", err->hint);
	}
}
