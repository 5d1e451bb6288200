/* The matching of patterns. Its time is bounded: a "*" is tried again only from the last one, and
 * the "**" of a pattern are few (GLOB_STARS_MAX), so that a hostile pattern costs little. */
#include "base/glob.h"

#include "base/memory.h"

#define GLOB_BYTES_MAX 1024
#define GLOB_STARS_MAX 4

/* The class that starts behind "["; NULL: it has no end. */
static const char *match_class(const char *pattern, char c, bool *ret_match)
{
	bool negated = *pattern == '!' || *pattern == '^', match = false, first = true;

	pattern += negated ? 1 : 0;
	for (; *pattern != ']' || first; first = false) {
		unsigned char low, high;

		if (*pattern == '\\' && pattern[1] != '\0') {
			pattern++;
		}
		if (*pattern == '\0') {
			return NULL;
		}
		low = high = (unsigned char)*pattern++;
		if (pattern[0] == '-' && pattern[1] != ']' && pattern[1] != '\0') {
			high = (unsigned char)pattern[1];
			pattern += 2;
		}
		match = match || ((unsigned char)c >= low && (unsigned char)c <= high);
	}
	*ret_match = match != negated;
	return pattern + 1;
}

/* One character of the pattern that is no star; where it goes on, or NULL. */
static const char *match_one(const char *pattern, char c)
{
	bool match = false;

	if (c == '\0' || (c == '/' && *pattern != '/')) {
		return NULL;
	}
	if (*pattern == '?') {
		return pattern + 1;
	}
	if (*pattern == '[') {
		pattern = match_class(pattern + 1, c, &match);
		return match ? pattern : NULL;
	}
	if (*pattern == '\\' && pattern[1] != '\0') {
		pattern++;
	}
	return *pattern == c ? pattern + 1 : NULL;
}

/* `whole`: the path must end with the pattern; else it may go on below a folder. */
static bool ends_here(const char *path, bool whole)
{
	return *path == '\0' || (!whole && *path == '/');
}

static bool match_from(const char *pattern, const char *path, bool whole);

/* Behind a double star and its slash: at this folder or any below. */
static bool match_below(const char *pattern, const char *path, bool whole)
{
	for (;;) {
		if (match_from(pattern, path, whole)) {
			return true;
		}
		path = strchr(path, '/');
		if (path == NULL) {
			return false;
		}
		path++;
	}
}

static bool match_from(const char *pattern, const char *path, bool whole)
{
	const char *star = NULL, *star_path = NULL;

	for (;;) {
		const char *next;

		if (str_starts(pattern, "**/")) {
			return match_below(pattern + 3, path, whole);
		}
		if (streq(pattern, "**")) {
			return *path != '\0';
		}
		if (*pattern == '*') {
			star = ++pattern;
			star_path = path;
			continue;
		}
		if (*pattern == '\0' && ends_here(path, whole)) {
			return true;
		}
		next = *pattern != '\0' ? match_one(pattern, *path) : NULL;
		if (next != NULL) {
			pattern = next;
			path++;
			continue;
		}
		/* The last star of this folder takes one more. */
		if (star == NULL || *star_path == '\0' || *star_path == '/') {
			return false;
		}
		pattern = star;
		path = ++star_path;
	}
}

bool glob_match(const char *pattern, const char *path)
{
	size_t length = strlen(pattern);
	bool folder = length > 1 && pattern[length - 1] == '/';
	CLEANUP(free_p) char *trimmed = xstrndup(pattern, folder ? length - 1 : length);
	const char *start = trimmed[0] == '/' ? trimmed + 1 : trimmed;
	bool anywhere = strchr(trimmed, '/') == NULL;
	CLEANUP(free_p) char *below = NULL;

	if (folder) {
		/* Files are what is asked for, so one below it is what shows the folder. */
		below = xasprintf("%s%s/**", anywhere ? "**/" : "", start);
		return match_from(below, path, true);
	}
	return anywhere ? match_below(start, path, false) : match_from(start, path, false);
}

bool glob_list_match(char *const *patterns, const char *path)
{
	bool match = patterns == NULL;

	for (; patterns != NULL && *patterns != NULL; patterns++) {
		bool leave_out = **patterns == '!';

		if (match == leave_out && glob_match(*patterns + leave_out, path)) {
			match = !leave_out;
		}
	}
	return match;
}

/* Does the pattern lead to the folder, or is it about one of the folders on the way there? */
static bool reaches(const char *pattern, const char *folder)
{
	CLEANUP(free_p) char *part = NULL;
	const char *start = pattern[0] == '/' ? pattern + 1 : pattern;
	size_t length = strlen(pattern);

	if (strchr(pattern, '/') == NULL || strchr(pattern, '/') == pattern + length - 1) {
		return true; /* it matches at any depth */
	}
	for (;;) {
		size_t wanted = strcspn(start, "/"), there = strcspn(folder, "/");
		CLEANUP(free_p) char *name = xstrndup(folder, there);

		free(part);
		part = xstrndup(start, wanted);
		if (streq(part, "**") || part[0] == '\0') {
			return true;
		}
		if (!match_from(part, name, true)) {
			return false;
		}
		if (start[wanted] == '\0' || folder[there] == '\0') {
			return true;
		}
		start += wanted + 1;
		folder += there + 1;
	}
}

bool glob_list_reaches(char *const *patterns, const char *folder)
{
	if (patterns == NULL) {
		return true;
	}
	for (; *patterns != NULL; patterns++) {
		if (**patterns != '!' && reaches(*patterns, folder)) {
			return true;
		}
	}
	return false;
}

const char *glob_problem(const char *pattern)
{
	const char *at = *pattern == '!' ? pattern + 1 : pattern;
	size_t stars = 0;
	bool match;

	if (at[0] == '\0' || strspn(at, "/") == strlen(at)) {
		return "is empty";
	}
	if (strlen(at) > GLOB_BYTES_MAX) {
		return "is too long";
	}
	if (streq(at, "..") || str_starts(at, "../") || str_starts(at, "/../") ||
		strstr(at, "/../") != NULL || str_starts(at, "./")) {
		return "must not hold \"./\" or \"../\": it counts from the top of a source";
	}
	for (; *at != '\0'; at++) {
		stars += at[0] == '*' && at[1] == '*' ? 1 : 0;
		if (*at == '\\' && at[1] != '\0') {
			at++;
		} else if (*at == '[') {
			at = match_class(at + 1, 'a', &match);
			if (at == NULL) {
				return "has a \"[\" without its \"]\"";
			}
			at--;
		}
	}
	return stars > GLOB_STARS_MAX ? "has more than four \"**\"" : NULL;
}
