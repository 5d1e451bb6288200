/* Which version a name that is not exact stands for now, asked of this machine's own apt, npm and
 * pip with whatever they are set up with. */
#ifndef HOB_CONFIGS_PACKAGES_RESOLVE_H
#define HOB_CONFIGS_PACKAGES_RESOLVE_H

#include "configs/packages/package.h"

/* `text` as an environment has it ("typescript@^5"). The caller owns the version.
 * ERROR_UNAVAILABLE: the manager is not here, or cannot answer; ERROR_NOT_FOUND: it knows no such
 * package. */
MUSTCHECK int package_resolve(
	enum package_manager manager, const char *text, char **ret_version, struct error *err);

/* ---- what they answer, for tests; NULL: nothing of use ---- */
char *resolve_apt_answer(const char *output); /* apt-cache policy */
char *resolve_npm_answer(const char *output); /* npm view SPEC version --json */
char *resolve_pip_report(const char *output); /* pip install --dry-run --report - */
char *resolve_pip_answer(const char *output); /* pip index versions */

#endif
