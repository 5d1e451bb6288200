/* What an environment has below its sources: exact packages, and files by their digests. */
#ifndef HOB_CONFIGS_ENVIRONMENT_PACKAGES_H
#define HOB_CONFIGS_ENVIRONMENT_PACKAGES_H

#include "configs/settings.h"

struct environment;
struct digest;

#define PACKAGES_MAX 200 /* of each manager */
#define FILES_MAX 64
/* Where packages are in a sandbox, whose base may be read-only. */
#define PACKAGES_ROOT "/opt/hob/packages"

/* Rows `packages.apt` and its like. */
setting_read_fn packages_read;
/* A list of URLs, of mirrors. */
setting_read_fn urls_read;
setting_check_fn check_file_url;
setting_check_fn check_file_mode;
/* Files that go nowhere, or where a sandbox has something else; errors point into `root`. */
MUSTCHECK int environment_check_files(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err);
/* PATH, and where libraries are, so that the packages are found; what is set already stays. */
void environment_packages_env(struct environment *environment);
void environment_packages_digest(const struct environment *environment, struct digest *digest);
void environment_packages_free(struct environment *environment);

#endif
