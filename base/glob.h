/*
 * Patterns of paths, as .gitignore and git's pathspecs write them. "*" and "?" stop at a slash,
 * "[a-z]" and "[!a]" are classes, "**" spans folders, "\" takes the next character as it is. A
 * pattern with a slash before its end counts from the top, one without matches at any depth; one
 * that matches a folder takes all below it, and with a slash at its end only a folder. In a list,
 * the last pattern that matches decides, and "!" before it leaves out.
 */
#ifndef HOB_BASE_GLOB_H
#define HOB_BASE_GLOB_H

#include <stdbool.h>

/* Does the path of a file, without a slash at its start, match this one (without "!")? */
bool glob_match(const char *pattern, const char *path);
/* A NULL-terminated list. NULL matches everything, an empty one nothing. */
bool glob_list_match(char *const *patterns, const char *path);
/* Could one of them match something below this folder? True when that cannot be told. */
bool glob_list_reaches(char *const *patterns, const char *folder);
/* NULL, or why it is no pattern that could match: words for a message. */
const char *glob_problem(const char *pattern);

#endif
