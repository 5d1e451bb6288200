/* What unit tests share: cmocka with the headers it wants, and a temporary folder. */
#ifndef HOB_TESTS_LIB_TEST_H
#define HOB_TESTS_LIB_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/memory.h"

/* Fails the test with the error's own words. */
#define assert_ok(call, err)                                                                       \
	do {                                                                                       \
		if ((call) < 0) {                                                                  \
			fail_msg("%s: %s", #call, (err)->message);                                 \
		}                                                                                  \
	} while (0)
#define assert_kind(call, err, wanted)                                                             \
	do {                                                                                       \
		int status_ = (int)(call);                                                         \
		if (status_ != -(int)(wanted) || (err)->kind != (wanted)) {                        \
			fail_msg("%s: %d (%s), wanted %s", #call, status_, (err)->message,         \
				error_kind_name(wanted));                                          \
		}                                                                                  \
	} while (0)
#define assert_contains(text, part)                                                                \
	do {                                                                                       \
		if (strstr((text), (part)) == NULL) {                                              \
			fail_msg("\"%s\" is not in: %s", (part), (text));                          \
		}                                                                                  \
	} while (0)

/* A new folder below $TMPDIR or /tmp, mode 0755. temp_remove deletes it with all it holds, and
 * frees the text; NULL is fine. */
char *temp_folder(void);
void temp_remove(char *folder);
DEFINE_CLEANUP(temp_remove_p, char, temp_remove)
/* From now on below /dev/shm, where there is one: for tests of hundreds of synced commits, which
 * take minutes on a disk, and that cut no power. */
void temp_in_memory(void);
/* Unmounts it, waiting for what killed processes had started there to go. */
bool temp_unmount(const char *at);

/* folder/name with this text, 0644. */
void temp_write(const char *folder, const char *name, const char *text);
/* The text of folder/name; the caller frees it. */
char *temp_read(const char *folder, const char *name);

/* cmocka fixtures: *state becomes a temporary folder. */
int setup_folder(void **state);
int teardown_folder(void **state);

#endif
