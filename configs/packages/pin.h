/*
 * Writing exact versions into an environment's file. Only the scalars that are not exact are
 * replaced, at their line and column, in the quotes they have; every other byte stays.
 */
#ifndef HOB_CONFIGS_PACKAGES_PIN_H
#define HOB_CONFIGS_PACKAGES_PIN_H

#include "configs/packages/package.h"

struct buffer;

struct pin_change {
	char *key; /* "packages.apt" */
	int line, column;
	char *before, *after;
};

struct pin_result {
	struct pin_change *changes;
	size_t count, room;
	char *before, *after; /* the whole text */
};

void pin_result_done(struct pin_result *result);

/* The version that `text` of the list `key` stands for; the caller owns *ret. */
typedef int pin_resolve_fn(
	enum package_manager manager, const char *text, char **ret_version, struct error *err);

/* What the file would become; nothing is written. `resolve` is package_resolve but in tests. */
MUSTCHECK int pin_text(const char *name, const char *text, size_t length, pin_resolve_fn *resolve,
	struct pin_result *ret_result, struct error *err);
/* The same of a file, which is replaced whole unless `dry_run` or there is nothing to change. */
MUSTCHECK int pin_file(
	const char *path, bool dry_run, struct pin_result *ret_result, struct error *err);
/* The changed lines, as diff -U0 shows them. */
void pin_diff(const char *path, const struct pin_result *result, struct buffer *out);
/* The first entry of a file that is not exact; what it would be is put into the hint. For messages
 * about a file that was refused: changes nothing when it cannot tell. */
void pin_explain(const char *path, struct error *err);

#endif
