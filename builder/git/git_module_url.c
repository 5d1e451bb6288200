/*
 * Where a submodule lies. A url of .gitmodules may be relative to the repository that names it, and
 * leads to a server, or, for a repository on this machine, to a folder beside that one: a commit
 * must not be able to read whatever hob can.
 */
#include "builder/git/git_modules.h"

#include "base/path.h"
#include "builder/git/git.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int refuse(struct error *err, const char *url, const char *why)
{
	CLEANUP(free_p) char *shown = git_url_public(url);

	error_set(err, ERROR_DENIED, "its url %.300s %s", shown, why);
	return error_hint(err, "`submodules: false` of the source leaves submodules empty");
}

/* ---- the parts of a url ---- */

/* Behind "://"; NULL: it has none. */
static const char *after_scheme(const char *url)
{
	const char *colon = strstr(url, "://");

	return colon != NULL && strcspn(url, "/") > (size_t)(colon - url) ? colon + 3 : NULL;
}

static bool has_scheme(const char *url, const char *scheme)
{
	size_t length = strlen(scheme);

	return strncasecmp(url, scheme, length) == 0 && str_starts(url + length, "://");
}

static bool is_web(const char *url)
{
	return has_scheme(url, "https") || has_scheme(url, "http");
}

/* host:path, as scp takes it; "helper::address" is none. */
static bool is_scp(const char *url)
{
	size_t colon = strcspn(url, ":");

	return url[0] != '/' && url[0] != '.' && after_scheme(url) == NULL && url[colon] == ':' &&
	       strcspn(url, "/") > colon && url[colon + 1] != ':';
}

static bool is_ssh(const char *url)
{
	return has_scheme(url, "ssh") || has_scheme(url, "git+ssh") || has_scheme(url, "ssh+git") ||
	       is_scp(url);
}

static bool is_local(const char *url)
{
	return url[0] == '/' || str_starts(url, "file://");
}

/* "host[:port]" without a user, in lower case; of scp's form without a port. */
static char *host_of(const char *url)
{
	const char *start = after_scheme(url), *at;
	size_t length;
	char *host;

	if (start == NULL) {
		start = url;
		length = strcspn(url, ":");
	} else {
		length = strcspn(start, "/?#");
	}
	at = memrchr(start, '@', length);
	if (at != NULL) {
		length -= (size_t)(at + 1 - start);
		start = at + 1;
	}
	host = xstrndup(start, length);
	for (char *c = host; *c != '\0'; c++) {
		*c = (char)tolower((unsigned char)*c);
	}
	return host;
}

bool git_urls_share_host(const char *one, const char *other)
{
	CLEANUP(free_p) char *first = NULL;
	CLEANUP(free_p) char *second = NULL;

	if (is_ssh(one) != is_ssh(other) ||
		has_scheme(one, "https") != has_scheme(other, "https") || is_local(one) ||
		is_local(other)) {
		return false;
	}
	first = host_of(one);
	second = host_of(other);
	return first[0] != '\0' && streq(first, second);
}

/* ---- relative to the parent ---- */

/* Takes the last part of a path or of scp's form away; false: there is none. */
static bool chop(char *url, bool *colon)
{
	const char *start = after_scheme(url);
	char *from = url + (start != NULL ? (size_t)(start - url) : 0);
	char *slash = strrchr(from, '/');

	if (slash == NULL && start == NULL && strchr(url, ':') != NULL) {
		slash = strrchr(url, ':');
		*colon = true;
	}
	if (slash == NULL || (slash == from && is_local(url))) {
		return false;
	}
	*slash = '\0';
	return true;
}

static int resolve(const char *parent, const char *url, char **ret_url, struct error *err)
{
	CLEANUP(free_p) char *folder = xstrdup(parent);
	const char *rest = url;
	size_t length = strlen(folder);
	bool colon = false;
	char *whole;

	while (length > 1 && folder[length - 1] == '/') {
		folder[--length] = '\0';
	}
	for (;;) {
		if (str_starts(rest, "./")) {
			rest += 2;
		} else if (!str_starts(rest, "../")) {
			break;
		} else if (colon || !chop(folder, &colon)) {
			return refuse(err, url, "leads out of the repository's server");
		} else {
			rest += 3;
		}
	}
	whole = xasprintf("%s%s%s", folder, colon ? ":" : "/", rest);
	length = strlen(whole);
	if (length > 0 && whole[length - 1] == '/') {
		whole[length - 1] = '\0';
	}
	*ret_url = whole;
	return 0;
}

/* ---- what may be fetched ---- */

/* Beside the repository that names it, or below; as the folders really are. */
static int check_local(const char *parent, const char *url, struct error *err)
{
	CLEANUP(free_p) char *from = git_url_path(parent);
	CLEANUP(free_p) char *to = git_url_path(url);
	CLEANUP(free_p) char *real = NULL;
	CLEANUP(free_p) char *folder = NULL;
	char *slash;

	if (from == NULL || to == NULL) {
		return refuse(err, url, "names a folder of this machine");
	}
	folder = realpath(from, NULL);
	folder = folder != NULL ? folder : path_resolve("/", from);
	real = realpath(to, NULL);
	real = real != NULL ? real : path_resolve("/", to);
	slash = strrchr(folder, '/');
	if (slash != folder) {
		*slash = '\0';
	}
	if (slash == folder || !path_is_below(real, folder) || streq(real, folder)) {
		return refuse(err, url, "names a folder that is not beside the repository's own");
	}
	return 0;
}

static int check_remote(const char *url, struct error *err)
{
	CLEANUP(free_p) char *host = host_of(url);

	if (host[0] == '\0' || host[0] == '-' || host[0] == ':') {
		return refuse(err, url, "names no host");
	}
	return 0;
}

/* What stands before "@" is no secret of ours to use. */
static char *without_user(const char *url)
{
	const char *start = after_scheme(url);
	const char *at = memrchr(start, '@', strcspn(start, "/?#"));

	return at == NULL ? xstrdup(url) : xasprintf("%.*s%s", (int)(start - url), url, at + 1);
}

/* git@host:path of a parent at https://host/…, for which there is no key: the same repository. */
static char *by_web(const char *parent, const char *url)
{
	CLEANUP(free_p) char *host = host_of(url);
	CLEANUP(free_p) char *parent_host = host_of(parent);
	const char *start = after_scheme(url);
	const char *path = start != NULL ? start + strcspn(start, "/") : strchr(url, ':') + 1;

	if (!streq(host, parent_host)) {
		return NULL;
	}
	path += strspn(path, "/");
	return xasprintf("%.*s://%s/%s", (int)strcspn(parent, ":"), parent, host, path);
}

int git_module_url(const char *parent, const char *url, char **ret_url, struct error *err)
{
	CLEANUP(free_p) char *whole = NULL;
	char *web;
	int status = 0;

	if (strcspn(url, " \t\r\n\v\f") != strlen(url)) {
		return refuse(err, url, "holds a space");
	}
	if (str_starts(url, "./") || str_starts(url, "../")) {
		status = resolve(parent, url, &whole, err);
	} else {
		whole = xstrdup(url);
	}
	if (status < 0) {
		return status;
	}
	if (is_local(whole)) {
		status = check_local(parent, whole, err);
	} else if (is_web(whole) || has_scheme(whole, "git") || is_ssh(whole)) {
		status = check_remote(whole, err);
	} else {
		status = refuse(err, url, "is of no kind that is fetched");
	}
	if (status < 0) {
		return status;
	}
	web = is_ssh(whole) && is_web(parent) ? by_web(parent, whole) : NULL;
	if (web == NULL && is_web(whole)) {
		web = without_user(whole);
	}
	*ret_url = web != NULL ? web : steal_ptr(whole);
	return 0;
}
