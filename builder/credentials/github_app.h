/*
 * Tokens of a GitHub App: a JWT signed by the App's key (RS256) buys a token of an installation,
 * which is good for an hour. Described in GitHub's "Authenticating as a GitHub App installation".
 */
#ifndef HOB_BUILDER_CREDENTIALS_GITHUB_APP_H
#define HOB_BUILDER_CREDENTIALS_GITHUB_APP_H

#include "base/error.h"
#include "configs/secret.h"

#include <stdint.h>

struct config_github_app;
struct machine;

/* A token that is good for five minutes at least: the one in <run>/tokens, or a new one, which is
 * kept there for the next build. ERROR_REMOTE with what the server said. */
MUSTCHECK int github_app_token(struct machine *machine, const struct config_github_app *app,
	struct secret *ret_token, struct error *err);

/* The JWT, for ten minutes from now_s on. key: PEM. The caller frees it. ERROR_INVALID: no RSA key.
 */
MUSTCHECK int github_app_jwt(
	const char *app_id, const char *key, int64_t now_s, char **ret_jwt, struct error *err);

#endif
