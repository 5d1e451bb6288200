/* Paths by their spelling only: nothing here looks at a file system. */
#ifndef HOB_BASE_PATH_H
#define HOB_BASE_PATH_H

#include <stdbool.h>

/* `path`, or folder/path when it is relative, without "//", "." and "..". `folder` is absolute.
 * The caller owns the text. */
char *path_resolve(const char *folder, const char *path);
/* Is one of its components ".."? */
bool path_has_dotdot(const char *path);
/* Is `path` the folder itself or below it? Both absolute and resolved. */
bool path_is_below(const char *path, const char *folder);

#endif
