/*
 * Structured logging to standard error: one line an event, `key=value`, or JSON by option.
 *
 *     log_info("sandbox.claimed", "sandbox", id, "us", elapsed_us);
 *
 * Up to eight pairs; a value may be a string, any integer, a bool or a double. Inside a program
 * with one event-loop thread; each line is one write(2), so that programs can share a log.
 */
#ifndef HOB_BASE_LOG_H
#define HOB_BASE_LOG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVELS };

enum log_type {
	LOG_TYPE_STRING,
	LOG_TYPE_SIGNED,
	LOG_TYPE_UNSIGNED,
	LOG_TYPE_DOUBLE,
	LOG_TYPE_BOOL
};

struct log_value {
	enum log_type type;
	union {
		const char *s;
		int64_t i;
		uint64_t u;
		double d;
		bool b;
	};
};

struct log_field {
	const char *key;
	struct log_value value;
};

void log_setup(const char *program, enum log_level lowest, bool json);
/* False if `name` is none of debug, info, warn, error. */
bool log_level_from_name(const char *name, enum log_level *ret_level);
bool log_enabled(enum log_level level);
void log_write(
	enum log_level level, const char *event, const struct log_field *fields, size_t count);
/* Logs the error with its kind, message and hint beside the caller's pairs. */
void log_failure_(
	const char *event, const struct error *err, const struct log_field *fields, size_t count);

static inline struct log_value log_value_s(const char *s)
{
	return (struct log_value){LOG_TYPE_STRING, {.s = s}};
}
static inline struct log_value log_value_i(int64_t i)
{
	return (struct log_value){LOG_TYPE_SIGNED, {.i = i}};
}
static inline struct log_value log_value_u(uint64_t u)
{
	return (struct log_value){LOG_TYPE_UNSIGNED, {.u = u}};
}
static inline struct log_value log_value_d(double d)
{
	return (struct log_value){LOG_TYPE_DOUBLE, {.d = d}};
}
static inline struct log_value log_value_b(bool b)
{
	return (struct log_value){LOG_TYPE_BOOL, {.b = b}};
}

#define LOG_VALUE(v)                                                                               \
	_Generic((v), char *: log_value_s, const char *: log_value_s, bool: log_value_b,            \
		float: log_value_d, double: log_value_d, unsigned char: log_value_u,                \
		unsigned short: log_value_u, unsigned: log_value_u, unsigned long: log_value_u,     \
		unsigned long long: log_value_u, default: log_value_i)(v)
#define LOG_F(k, v)                                                                                \
	{                                                                                          \
		(k), LOG_VALUE(v)                                                                  \
	}
#define LOG_0(x)
#define LOG_2(k, v) LOG_F(k, v)
#define LOG_4(k, v, ...) LOG_F(k, v), LOG_2(__VA_ARGS__)
#define LOG_6(k, v, ...) LOG_F(k, v), LOG_4(__VA_ARGS__)
#define LOG_8(k, v, ...) LOG_F(k, v), LOG_6(__VA_ARGS__)
#define LOG_10(k, v, ...) LOG_F(k, v), LOG_8(__VA_ARGS__)
#define LOG_12(k, v, ...) LOG_F(k, v), LOG_10(__VA_ARGS__)
#define LOG_14(k, v, ...) LOG_F(k, v), LOG_12(__VA_ARGS__)
#define LOG_16(k, v, ...) LOG_F(k, v), LOG_14(__VA_ARGS__)
#define LOG_PICK(_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, N, ...) N
#define LOG_FIELDS(...)                                                                            \
	((const struct log_field[]){LOG_PICK(__VA_ARGS__, LOG_16, LOG_odd, LOG_14, LOG_odd,        \
		LOG_12, LOG_odd, LOG_10, LOG_odd, LOG_8, LOG_odd, LOG_6, LOG_odd, LOG_4, LOG_odd,  \
		LOG_2, LOG_0)(__VA_ARGS__)})
#define LOG_COUNT(...)                                                                             \
	(LOG_PICK(__VA_ARGS__, 16, 0, 14, 0, 12, 0, 10, 0, 8, 0, 6, 0, 4, 0, 2, 0) / 2)
#define LOG_AT(level, event, ...)                                                                  \
	do {                                                                                       \
		if (log_enabled(level)) {                                                          \
			log_write(level, event, LOG_FIELDS(__VA_ARGS__), LOG_COUNT(__VA_ARGS__));  \
		}                                                                                  \
	} while (0)

#define log_debug(event, ...) LOG_AT(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) LOG_AT(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) LOG_AT(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) LOG_AT(LOG_ERROR, event, __VA_ARGS__)
#define log_failure(event, err, ...)                                                               \
	log_failure_(event, err, LOG_FIELDS(__VA_ARGS__), LOG_COUNT(__VA_ARGS__))

#endif
