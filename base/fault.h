/*
 * Named fault points, for tests that break hob at an exact step. HOB_FAULT="name[:n[:action]]"
 * makes the n-th passage (1 by default) of that point kill the process with SIGKILL (action "kill",
 * the default), stop it with SIGSTOP ("stop"), or fail with an errno ("ENOSPC", "EIO"). Without the
 * variable a point costs one test of a flag. HOB_FAULT_LIST=FILE appends the name of every point
 * passed to FILE, for tests that drive all.
 */
#ifndef HOB_BASE_FAULT_H
#define HOB_BASE_FAULT_H

/* 0, or the errno to fail with. */
int fault_point(const char *name);

#endif
