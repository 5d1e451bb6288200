/*
 * Push webhooks: whether one is signed, and what it says. Pure, and for bytes that anybody sends.
 *
 * "github" is GitHub's (Gitea and Forgejo send the same): X-Hub-Signature-256 is the HMAC-SHA256 of
 * the body. "generic" is for everything else: X-Hob-Signature is that of
 * "<X-Hob-Timestamp>.<body>", with the time in seconds, so that what somebody has recorded is worth
 * nothing later.
 */
#ifndef HOB_POOL_API_HOOK_H
#define HOB_POOL_API_HOOK_H

#include "base/error.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

#define HOOK_CLOCK_S 300 /* how far a sender's clock may be off */
#define HOOK_URLS_MAX 5

struct environment;

/* What has been pushed. Texts point into the json. */
struct hook_push {
	const char *environment; /* generic only, instead of urls; NULL: by urls and ref */
	const char *urls[HOOK_URLS_MAX + 1]; /* of the repository, NULL-terminated */
	const char *ref; /* "refs/heads/main"; NULL: any */
	const char *default_branch; /* "main"; NULL: not known */
	const char *commit; /* NULL: not known */
	bool nothing; /* a ping, a deleted branch, another event: nothing to build */
};

/* `signature` is the header, "sha256=" and hex; NULL: there was none. ERROR_DENIED. */
MUSTCHECK int hook_check_github(const char *secret, const char *signature, const char *body,
	size_t length, struct error *err);
MUSTCHECK int hook_check_generic(const char *secret, const char *signature, const char *timestamp,
	int64_t now_s, const char *body, size_t length, struct error *err);

/* event: X-GitHub-Event. ERROR_INVALID. */
MUSTCHECK int hook_parse_github(
	const json_t *json, const char *event, struct hook_push *ret_push, struct error *err);
MUSTCHECK int hook_parse_generic(const json_t *json, struct hook_push *ret_push, struct error *err);

/* Does the environment build from what has been pushed? */
bool hook_concerns(const struct hook_push *push, const struct environment *environment);
/* Do two urls name one repository, whatever their scheme, user, port, ".git" and final slash? */
bool hook_same_repository(const char *a, const char *b);

#endif
