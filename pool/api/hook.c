/* Webhooks are compared in constant time and parsed only after their signature was found good. */
#include "pool/api/hook.h"

#include "base/buffer.h"
#include "base/memory.h"
#include "configs/environment.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define MAC_SIZE 32
#define MAC_TEXT_SIZE (sizeof("sha256=") + 2 * MAC_SIZE)

/* ---- signatures ---- */

static int unsigned_error(struct error *err)
{
	error_set(err, ERROR_DENIED, "the webhook's signature is missing or wrong");
	return error_hint(err, "its sender and the secret that hook_secret names must agree");
}

static int check_mac(const char *secret, const char *signature, const char *data, size_t length,
	struct error *err)
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	char expected[MAC_TEXT_SIZE] = "sha256=";
	unsigned size = 0;

	if (HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)data, length,
		    mac, &size) == NULL ||
		size != MAC_SIZE) {
		return error_set(err, ERROR_INTERNAL, "HMAC failed");
	}
	for (size_t i = 0; i < MAC_SIZE; i++) {
		snprintf(expected + 7 + 2 * i, 3, "%02x", mac[i]);
	}
	if (signature == NULL || strlen(signature) != strlen(expected) ||
		CRYPTO_memcmp(signature, expected, strlen(expected)) != 0) {
		return unsigned_error(err);
	}
	return 0;
}

int hook_check_github(const char *secret, const char *signature, const char *body, size_t length,
	struct error *err)
{
	return check_mac(secret, signature, body, length, err);
}

int hook_check_generic(const char *secret, const char *signature, const char *timestamp,
	int64_t now_s, const char *body, size_t length, struct error *err)
{
	struct buffer text;
	char *end = NULL;
	long long sent_s = timestamp != NULL ? strtoll(timestamp, &end, 10) : 0;
	int status;

	if (timestamp == NULL || end == timestamp || *end != '\0') {
		error_set(err, ERROR_DENIED, "the header X-Hob-Timestamp is missing or no number");
		return error_hint(err, "it is the time in seconds since 1970");
	}
	buffer_init(&text, length + 64);
	buffer_addf(&text, "%lld.", sent_s);
	(void)buffer_add(&text, body, length);
	status = check_mac(secret, signature, text.data, text.length, err);
	buffer_done(&text);
	if (status == 0 && (sent_s < now_s - HOOK_CLOCK_S || sent_s > now_s + HOOK_CLOCK_S)) {
		error_set(err, ERROR_DENIED, "the webhook was signed more than %d s ago or ahead",
			HOOK_CLOCK_S);
		status = error_hint(err, "set the clocks of both machines");
	}
	return status;
}

/* ---- what they say ---- */

static bool is_no_commit(const char *commit)
{
	return commit == NULL || commit[strspn(commit, "0")] == '\0';
}

int hook_parse_github(
	const json_t *json, const char *event, struct hook_push *ret_push, struct error *err)
{
	static const char *const keys[HOOK_URLS_MAX] = {
		"clone_url", "ssh_url", "git_url", "html_url", "url"};
	const json_t *repository = json_object_get(json, "repository");
	struct hook_push push = {0};
	const char *text = NULL;
	size_t count = 0;
	int status;

	if (event == NULL) {
		return error_set(err, ERROR_INVALID, "the header X-GitHub-Event is missing");
	}
	if (!streq(event, "push")) {
		*ret_push = (struct hook_push){.nothing = true};
		return 0;
	}
	if (!json_is_object(repository)) {
		return error_set(err, ERROR_INVALID, "\"repository\" is missing");
	}
	for (size_t i = 0; i < HOOK_URLS_MAX; i++) {
		text = NULL;
		if ((status = json_get_str(repository, keys[i], &text, err)) < 0) {
			return status;
		}
		if (text != NULL) {
			push.urls[count++] = text;
		}
	}
	if ((status = json_get_str(json, "ref", &push.ref, err)) < 0 ||
		(status = json_get_str(json, "after", &push.commit, err)) < 0 ||
		(status = json_get_str(repository, "default_branch", &push.default_branch, err)) <
			0) {
		return status;
	}
	if (count == 0 || push.ref == NULL) {
		return error_set(err, ERROR_INVALID,
			count == 0 ? "\"repository\" has no address" : "\"ref\" is missing");
	}
	push.nothing = is_no_commit(push.commit); /* the branch is gone */
	*ret_push = push;
	return 0;
}

int hook_parse_generic(const json_t *json, struct hook_push *ret_push, struct error *err)
{
	static const char *const keys[] = {"environment", "url", "ref", "commit", NULL};
	struct hook_push push = {0};
	int status = json_check_keys(json, keys, err);

	if (status < 0 ||
		(status = json_get_str(json, "environment", &push.environment, err)) < 0 ||
		(status = json_get_str(json, "url", &push.urls[0], err)) < 0 ||
		(status = json_get_str(json, "ref", &push.ref, err)) < 0 ||
		(status = json_get_str(json, "commit", &push.commit, err)) < 0) {
		return status;
	}
	if ((push.environment == NULL) == (push.urls[0] == NULL)) {
		return error_set(err, ERROR_INVALID, "say either \"environment\" or \"url\"");
	}
	*ret_push = push;
	return 0;
}

/* ---- whom they concern ---- */

/* host/path of a url: "https://u@h:1/a/b.git/" and "git@h:a/b" are "h/a/b". free() it. */
static char *repository_of(const char *url)
{
	const char *scheme = strstr(url, "://");
	const char *start = scheme != NULL ? scheme + 3 : url;
	const char *host = start + strcspn(start, "/:@");
	size_t host_length, length;
	char *text;

	host = *host == '@' ? host + 1 : start;
	if (scheme == NULL && strchr(host, '@') != NULL &&
		strchr(host, '@') < host + strcspn(host, "/")) {
		host = strchr(host, '@') + 1;
	}
	host_length = strcspn(host, "/:");
	start = host + host_length;
	if (*start == ':' && scheme != NULL) {
		start += strcspn(start, "/"); /* a port */
	}
	start += strspn(start, ":/");
	text = xasprintf("%.*s/%s", (int)host_length, host, start);
	for (size_t i = 0; i < host_length; i++) {
		text[i] = (char)tolower((unsigned char)text[i]);
	}
	length = strlen(text);
	while (length > 0 && text[length - 1] == '/') {
		text[--length] = '\0';
	}
	if (length > 4 && streq(text + length - 4, ".git")) {
		text[length - 4] = '\0';
	}
	return text;
}

bool hook_same_repository(const char *a, const char *b)
{
	CLEANUP(free_p) char *first = repository_of(a);
	CLEANUP(free_p) char *second = repository_of(b);

	return streq(first, second);
}

static bool is_ref(const struct hook_push *push, const char *wanted)
{
	const char *branch = wanted;

	if (push->ref == NULL) {
		return true;
	}
	if (streq(wanted, "HEAD")) {
		if (push->default_branch == NULL) {
			return true; /* a build too many finds nothing changed */
		}
		branch = push->default_branch;
	}
	if (streq(push->ref, branch)) {
		return true;
	}
	return (str_starts(push->ref, "refs/heads/") && streq(push->ref + 11, branch)) ||
	       (str_starts(push->ref, "refs/tags/") && streq(push->ref + 10, branch));
}

bool hook_concerns(const struct hook_push *push, const struct environment *environment)
{
	if (push->nothing) {
		return false;
	}
	if (push->environment != NULL) {
		return streq(push->environment, environment->name);
	}
	for (size_t i = 0; i < environment->source_count; i++) {
		const struct environment_source *source = &environment->sources[i];

		for (const char *const *url = push->urls; *url != NULL; url++) {
			if (hook_same_repository(*url, source->url) && is_ref(push, source->ref)) {
				return true;
			}
		}
	}
	return false;
}
