/*
 * Packages as an environment names them, each with its one exact version: NAME=VERSION for apt,
 * NAME@VERSION for npm, NAME==VERSION for pip. What could mean another version tomorrow (none, a
 * range, a tag, a wildcard) is not exact, and is told apart from what means nothing at all.
 */
#ifndef HOB_CONFIGS_PACKAGES_PACKAGE_H
#define HOB_CONFIGS_PACKAGES_PACKAGE_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>

enum package_manager { PACKAGE_APT, PACKAGE_NPM, PACKAGE_PIP, PACKAGE_MANAGERS };
const char *package_manager_name(enum package_manager manager); /* "apt" */
bool package_manager_from_name(const char *name, enum package_manager *ret_manager);

enum package_state {
	PACKAGE_EXACT,
	PACKAGE_LOOSE, /* a name, and a version that is not exact, or none */
	PACKAGE_NONSENSE,
};

/* ret_name and ret_version may be NULL; each is malloc()ed, the version NULL when there is none.
 * `name` is what the manager knows it by: for apt with ":arch", for pip without "[extras]". */
enum package_state package_parse(
	enum package_manager manager, const char *text, char **ret_name, char **ret_version);
/* NAME and a version as the manager writes them, extras of `text` kept. The caller owns it. */
char *package_text(enum package_manager manager, const char *text, const char *version);
/* Do two names mean one package? pip's are equal without regard to case, "-", "_" and ".". */
bool package_name_equal(enum package_manager manager, const char *a, const char *b);

/* Is it one version, exactly, as the manager writes it? */
bool deb_version_is_valid(const char *text); /* [epoch:]upstream[-revision] */
bool npm_version_is_valid(const char *text); /* semver 2.0.0 */
bool pip_version_is_valid(const char *text); /* PEP 440, in its normal form */

#endif
