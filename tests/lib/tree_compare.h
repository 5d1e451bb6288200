/* Walks two file trees and compares everything that a copy has to keep. */
#ifndef HOB_TESTS_LIB_TREE_COMPARE_H
#define HOB_TESTS_LIB_TREE_COMPARE_H

#include <stddef.h>

struct tree_compare {
	size_t entries; /* that were compared */
	size_t differences;
	char first[2][512]; /* what differs first, and where the walk was */
};

/* Types, modes, owners, sizes, times of change to the nanosecond, devices, targets, extended
 * attributes (of overlayfs' only "opaque"), content, holes, and which names are one inode. Sockets
 * of the first are ignored. */
void tree_compare(const char *first, const char *second, struct tree_compare *ret_result);
/* The same, failing the test with what differs. Returns the entries. */
size_t assert_same_trees(const char *first, const char *second);

#endif
