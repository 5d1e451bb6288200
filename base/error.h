/*
 * One error, on the caller's stack, without allocation. A function that can fail returns 0 or a
 * negative `enum error_kind`, and fills in the `struct error` that it was given; whoever handles
 * the error logs it or shows it once. After the error contract of crun's libcrun/error.h.
 */
#ifndef HOB_BASE_ERROR_H
#define HOB_BASE_ERROR_H

#include <stddef.h>

#define MUSTCHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first) __attribute__((format(printf, format_index, first)))

enum error_kind {
	ERROR_NONE = 0,
	ERROR_INVALID, /* the caller's input is wrong */
	ERROR_USAGE, /* the command line is wrong */
	ERROR_NOT_FOUND, /* no such thing */
	ERROR_EXISTS, /* there is one already */
	ERROR_CONFLICT, /* it is in a state that does not allow this */
	ERROR_BUSY, /* somebody holds it; later may work */
	ERROR_DENIED, /* not allowed */
	ERROR_LIMIT, /* over a named limit */
	ERROR_TIMEOUT, /* took too long */
	ERROR_UNAVAILABLE, /* a part that it needs is not there now */
	ERROR_NO_SPACE, /* the disk, or a quota, is full */
	ERROR_UNSUPPORTED, /* this machine or version cannot do it */
	ERROR_CORRUPT, /* stored or received data does not match its description */
	ERROR_REMOTE, /* the other end (a git remote, a web server) failed */
	ERROR_FAILED, /* a command that hob ran failed */
	ERROR_CANCELLED, /* somebody asked to stop */
	ERROR_IO, /* a system call failed */
	ERROR_INTERNAL, /* a defect in hob */
	ERROR_KINDS
};

/* Long enough for two paths and a reason; a longer text is cut with an ellipsis. */
#define ERROR_MESSAGE_SIZE 1024
#define ERROR_HINT_SIZE 384

struct error {
	enum error_kind kind;
	int sys; /* errno behind it, or 0 */
	char message[ERROR_MESSAGE_SIZE];
	char hint[ERROR_HINT_SIZE]; /* what to do next, or empty */
};

#define ERROR_INIT ((struct error){.kind = ERROR_NONE})

/* All four return the negative kind, so that `return error_set(…)` reads as one line. */
int error_set(struct error *err, enum error_kind kind, const char *format, ...) PRINTF_LIKE(3, 4);
/* Appends ": <strerror>" and picks the kind from the errno (ENOSPC is NO_SPACE, and so on). */
int error_sys(struct error *err, int sys, const char *format, ...) PRINTF_LIKE(3, 4);
/* Puts "<context>: " before the message and passes the failure on. */
int error_wrap(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);
/* Sets the hint of an error that is already set. */
int error_hint(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

void error_copy(struct error *to, const struct error *from);

/* The word on the wire and in logs ("not_found"), the HTTP status, the exit code of a program. */
const char *error_kind_name(enum error_kind kind);
enum error_kind error_kind_from_name(const char *name); /* ERROR_INTERNAL if unknown */
int error_http_status(enum error_kind kind);
int error_exit_code(enum error_kind kind);

/* Prints "<program>: message" and, on its own line, the hint. */
void error_print(const char *program, const struct error *err);

#endif
