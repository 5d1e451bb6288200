/* The table of inodes: what was put there is found again, however much it grew, device by device.
 */
#include "tests/lib/test.h"

#include "base/inode_map.h"

static size_t freed;

static void count_freed(void *value)
{
	freed++;
	free(value);
}

static void test_values(void **state)
{
	struct inode_map map = {0};

	(void)state;
	for (ino_t inode = 1; inode <= 5000; inode++) {
		void **value = inode_map_at(&map, inode % 2, inode << 12);

		assert_null(*value);
		*value = xasprintf("%llu", (unsigned long long)inode);
	}
	for (ino_t inode = 1; inode <= 5000; inode++) {
		CLEANUP(free_p) char *wanted = xasprintf("%llu", (unsigned long long)inode);

		assert_string_equal(*inode_map_at(&map, inode % 2, inode << 12), wanted);
	}
	assert_int_equal(map.count, 5000);
	assert_null(*inode_map_at(&map, 7, 1 << 12)); /* of another device */
	freed = 0;
	inode_map_done(&map, count_freed);
	assert_int_equal(freed, 5000);
	assert_int_equal(map.count, 0);
}

static void test_empty(void **state)
{
	struct inode_map map = {0};

	(void)state;
	inode_map_done(&map, free);
	assert_null(*inode_map_at(&map, 1, 1));
	inode_map_done(&map, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
