/* The grammar of github.com/distribution/reference, with docker.io as the default host. Strict:
 * what is accepted here goes into the paths of requests as it is. */
#include "configs/oci_reference.h"

#include <ctype.h>
#include <string.h>

#define REPOSITORY_MAX 255
#define TAG_MAX 128
#define HOST_MAX 255

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Parts of a-z and 0-9 with single separators between them: ".", "_", "__" or dashes. */
static bool component_is_valid(const char *text, size_t length)
{
	for (size_t i = 0; i < length;) {
		size_t word = i, gap;

		while (i < length && is_lower_or_digit(text[i])) {
			i++;
		}
		if (i == word) {
			return false;
		}
		if (i == length) {
			return true;
		}
		gap = i;
		while (i < length && text[i] == text[gap] && strchr("._-", text[i]) != NULL) {
			i++;
		}
		if (i == gap || i == length ||
			(text[gap] != '-' && i - gap > (text[gap] == '_' ? 2U : 1U))) {
			return false;
		}
	}
	return false;
}

static bool repository_is_valid(const char *text)
{
	size_t length = strlen(text);

	if (length == 0 || length > REPOSITORY_MAX) {
		return false;
	}
	for (;;) {
		size_t part = strcspn(text, "/");

		if (!component_is_valid(text, part)) {
			return false;
		}
		if (text[part] == '\0') {
			return true;
		}
		text += part + 1;
	}
}

/* A name, an IPv4 address or [an IPv6 address], and perhaps a port. */
static bool host_is_valid(const char *host)
{
	size_t length = strlen(host), name;
	const char *port;

	if (length == 0 || length > HOST_MAX) {
		return false;
	}
	if (host[0] == '[') {
		name = strspn(host + 1, "0123456789abcdefABCDEF:.") + 1;
		if (name < 3 || host[name] != ']') {
			return false;
		}
		port = host + name + 1;
	} else {
		name = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789.-");
		if (name == 0 || host[0] == '.' || host[0] == '-') {
			return false;
		}
		port = host + name;
	}
	if (port[0] == '\0') {
		return true;
	}
	length = strlen(port);
	return port[0] == ':' && length >= 2 && length <= 6 &&
	       strspn(port + 1, "0123456789") == length - 1;
}

static bool tag_is_valid(const char *tag)
{
	size_t length = strlen(tag);

	if (length == 0 || length > TAG_MAX || tag[0] == '.' || tag[0] == '-') {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (!isalnum((unsigned char)tag[i]) && strchr("._-", tag[i]) == NULL) {
			return false;
		}
	}
	return true;
}

/* Cuts "@sha256:…" off; false when what stands after the @ is no such digest. The names of files
 * may hold an @, but nothing that looks like a digest. */
static bool take_digest(char *text, struct oci_reference *reference)
{
	bool path = text[0] == '/' || text[0] == '.';
	char *at = path ? strstr(text, "@sha256:") : strchr(text, '@');

	if (at == NULL) {
		return true;
	}
	if (!str_starts(at, "@sha256:") || !digest_is_valid(at + 8)) {
		return false;
	}
	memcpy(reference->digest, at + 8, SHA256_TEXT_SIZE);
	*at = '\0';
	return true;
}

static const char *parse_name(char *text, struct oci_reference *reference)
{
	char *slash = strchr(text, '/'), *colon;
	char *rest = text;

	if (slash != NULL) {
		size_t length = (size_t)(slash - text);
		CLEANUP(free_p) char *first = xstrndup(text, length);

		if (strpbrk(first, ".:[") != NULL || streq(first, "localhost")) {
			reference->host = steal_ptr(first);
			rest = slash + 1;
		}
	}
	if (reference->host == NULL) {
		reference->host = xstrdup("docker.io");
	}
	colon = strrchr(rest, ':');
	if (colon != NULL && strchr(colon, '/') == NULL) {
		reference->tag = xstrdup(colon + 1);
		*colon = '\0';
	}
	reference->repository = streq(reference->host, "docker.io") && strchr(rest, '/') == NULL
					? xasprintf("library/%s", rest)
					: xstrdup(rest);
	if (!host_is_valid(reference->host)) {
		return "names a registry that is no host or host:port";
	}
	if (!repository_is_valid(reference->repository)) {
		return "holds no name that a registry allows: a-z, 0-9, \".\", \"_\", \"-\" and "
		       "\"/\"";
	}
	if (reference->tag != NULL && !tag_is_valid(reference->tag)) {
		return "has no valid tag after \":\"";
	}
	return NULL;
}

bool oci_reference_parse(
	const char *text, struct oci_reference *ret_reference, const char **ret_problem)
{
	struct oci_reference reference = {0};
	CLEANUP(free_p) char *copy = xstrdup(text);
	const char *problem = NULL;

	if (!take_digest(copy, &reference)) {
		*ret_problem = "has no valid digest: @sha256: and 64 hex digits";
		return false;
	}
	if (copy[0] == '/' || copy[0] == '.') {
		reference.path = steal_ptr(copy);
	} else {
		problem = parse_name(copy, &reference);
	}
	if (problem != NULL) {
		oci_reference_done(&reference);
		*ret_problem = problem;
		return false;
	}
	*ret_reference = reference;
	return true;
}

void oci_reference_done(struct oci_reference *reference)
{
	free(reference->path);
	free(reference->host);
	free(reference->repository);
	free(reference->tag);
	*reference = (struct oci_reference){0};
}

char *oci_reference_name(const struct oci_reference *reference)
{
	if (reference->path != NULL) {
		return xstrdup(reference->path);
	}
	return xasprintf("%s/%s%s%s", reference->host, reference->repository,
		reference->tag != NULL ? ":" : "", reference->tag != NULL ? reference->tag : "");
}

bool oci_host_is_loopback(const char *host)
{
	size_t length = strcspn(host, ":");

	if (str_starts(host, "[::1]")) {
		return true;
	}
	if (length == strlen("localhost") && strncmp(host, "localhost", length) == 0) {
		return true;
	}
	/* 127.0.0.0/8 in digits: a name such as 127.example.com is somebody else. */
	return str_starts(host, "127.") && strspn(host, "0123456789.") == length;
}
