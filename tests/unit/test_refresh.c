/* Which new images warm sandboxes can be brought forward to: a question of two lists of layers. */
#include "tests/lib/test.h"

#include "pool/sync/refresh.h"
#include "snapshots/store.h"

#include <stdio.h>

/* "base:1:k source:2 step:3:x": kind, id, step key. */
static size_t layers_make(const char *text, struct layer layers[8])
{
	size_t count = 0;

	while (*text != '\0') {
		struct layer *layer = &layers[count++];
		int length = 0;
		long long id = 0;

		*layer = (struct layer){.id = 0};
		assert_true(sscanf(text, "%8[a-z]:%lld:%8[a-z]%n", layer->kind, &id,
				    layer->step_key, &length) == 3);
		layer->id = id;
		text += length;
		text += *text == ' ' ? 1 : 0;
	}
	return count;
}

static bool differ_in_source(const char *from, const char *to)
{
	struct layer a[8], b[8];
	size_t a_count = layers_make(from, a), b_count = layers_make(to, b);

	return layers_differ_in_source_only(a, a_count, b, b_count);
}

static void test_source_alone(void **state)
{
	(void)state;
	assert_true(differ_in_source("base:1:b source:2:s", "base:1:b source:3:t"));
	assert_true(differ_in_source("base:1:b source:2:s", "base:1:b source:2:s delta:4:d"));
	assert_true(differ_in_source("base:1:b source:2:s delta:4:d step:5:x",
		"base:1:b source:2:s delta:6:e step:5:x"));
	/* Another layer of the same step over the same inputs. */
	assert_true(
		differ_in_source("base:1:b source:2:s step:5:x", "base:1:b source:3:t step:9:x"));
}

static void test_more_than_source(void **state)
{
	(void)state;
	assert_false(differ_in_source("base:1:b source:2:s", "base:7:c source:2:s"));
	assert_false(
		differ_in_source("base:1:b source:2:s step:5:x", "base:1:b source:3:t step:6:y"));
	assert_false(differ_in_source("base:1:b source:2:s step:5:x", "base:1:b source:3:t"));
	assert_false(differ_in_source("base:1:b source:2:s", "base:1:b source:2:s step:5:x"));
	assert_false(differ_in_source("base:1:b step:5:x step:6:y", "base:1:b step:6:y step:5:x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source_alone),
		cmocka_unit_test(test_more_than_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
