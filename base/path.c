/* Joining and tidying paths by their spelling. */
#include "base/path.h"

#include "base/memory.h"

#include <string.h>

static void append_part(char *out, size_t *length, const char *part, size_t part_length)
{
	if (part_length == 0 || (part_length == 1 && part[0] == '.')) {
		return;
	}
	if (part_length == 2 && part[0] == '.' && part[1] == '.') {
		while (*length > 0 && out[--*length] != '/') {
			continue;
		}
		return;
	}
	out[(*length)++] = '/';
	memcpy(out + *length, part, part_length);
	*length += part_length;
}

char *path_resolve(const char *folder, const char *path)
{
	CLEANUP(free_p)
	char *joined = path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", folder, path);
	char *out = xmalloc(strlen(joined) + 2);
	size_t length = 0;

	for (const char *part = joined; *part != '\0';) {
		size_t part_length = strcspn(part, "/");

		append_part(out, &length, part, part_length);
		part += part_length;
		part += *part == '/' ? 1 : 0;
	}
	if (length == 0) {
		out[length++] = '/';
	}
	out[length] = '\0';
	return out;
}

bool path_has_dotdot(const char *path)
{
	while (*path != '\0') {
		size_t length = strcspn(path, "/");

		if (length == 2 && path[0] == '.' && path[1] == '.') {
			return true;
		}
		path += length;
		path += *path == '/' ? 1 : 0;
	}
	return false;
}

bool path_is_below(const char *path, const char *folder)
{
	size_t length = strlen(folder);

	if (streq(folder, "/")) {
		return path[0] == '/';
	}
	return strncmp(path, folder, length) == 0 && (path[length] == '\0' || path[length] == '/');
}
