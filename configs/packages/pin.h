/*
 * Writing exact versions, digests and dates into an environment's file. Only the scalars that are
 * not exact are replaced, at their line and column, in the quotes they have; every other byte
 * stays.
 */
#ifndef HOB_CONFIGS_PACKAGES_PIN_H
#define HOB_CONFIGS_PACKAGES_PIN_H

#include "configs/packages/package.h"

struct buffer;
struct yaml_node;

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

/* A base `oci:` without a digest, as the file has it. */
struct pin_image {
	const char *reference; /* after "oci:"; a path is absolute */
	const char *user, *secret; /* NULL: not said */
};
/* "sha256:…", that it has now; the caller owns *ret. */
typedef int pin_digest_fn(
	void *context, const struct pin_image *image, char **ret_digest, struct error *err);

struct pin_asking {
	pin_resolve_fn *version; /* package_resolve but in tests */
	pin_digest_fn *digest;
	void *context; /* of digest */
};

/* What the file would become; nothing is written. */
MUSTCHECK int pin_text(const char *name, const char *text, size_t length,
	const struct pin_asking *asking, struct pin_result *ret_result, struct error *err);
/* The same of a file, which is replaced whole unless `dry_run` or there is nothing to change. */
MUSTCHECK int pin_file(const char *path, bool dry_run, const struct pin_asking *asking,
	struct pin_result *ret_result, struct error *err);
/* The changed lines, as diff -U0 shows them. */
void pin_diff(const char *path, const struct pin_result *result, struct buffer *out);
/* The first entry of a file that is not exact; what it would be is put into the hint. For messages
 * about a file that was refused: changes nothing when it cannot tell. */
void pin_explain(const char *path, struct error *err);

/* ---- pin_base.c ---- */
/* The scalar of `base` that is not pinned, and its key ("base.deb"); NULL: there is none. */
const struct yaml_node *pin_base_find(const struct yaml_node *root, const char **ret_key);
/* What it would be; the caller owns it. */
MUSTCHECK int pin_base_resolve(const char *name, const struct yaml_node *root,
	const struct pin_asking *asking, char **ret_text, struct error *err);

#endif
