/* Matching of paths, segment by segment. An argument too long to be any id matches nothing. */
#include "pool/api/http_route.h"

#include "base/memory.h"

static bool segment_is(const char *segment, size_t length, const char *text, size_t text_length)
{
	return length == text_length && strncmp(segment, text, length) == 0;
}

static bool match_path(const char *pattern, const char *path, struct route_match *match)
{
	size_t args = 0;

	for (;;) {
		size_t wanted, given;

		if (*pattern == '\0' || *path == '\0') {
			return *pattern == *path;
		}
		/* Both are at a '/'. */
		if (*pattern != '/' || *path != '/') {
			return false;
		}
		pattern++;
		path++;
		wanted = strcspn(pattern, "/");
		given = strcspn(path, "/");
		if (segment_is(pattern, wanted, "**", 2)) {
			match->rest = path;
			return true;
		}
		if (segment_is(pattern, wanted, "*", 1)) {
			if (given == 0 || given >= ROUTE_ARG_SIZE || args == ROUTE_ARGS_MAX) {
				return false;
			}
			memcpy(match->args[args], path, given);
			match->args[args++][given] = '\0';
		} else if (!segment_is(path, given, pattern, wanted)) {
			return false;
		}
		pattern += wanted;
		path += given;
	}
}

struct route_match route_find(const struct route *routes, const char *method, const char *path)
{
	struct route_match match = {0};
	bool other = false;

	if (streq(method, "HEAD")) {
		method = "GET";
	}
	for (; routes->method != NULL; routes++) {
		memset(&match, 0, sizeof(match));
		if (!match_path(routes->pattern, path, &match)) {
			continue;
		}
		if (streq(routes->method, method)) {
			match.route = routes;
			return match;
		}
		other = true;
	}
	memset(&match, 0, sizeof(match));
	match.other_method = other;
	return match;
}
