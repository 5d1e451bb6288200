/* Layers seen as one tree, and the differences of two: whiteouts, opaque folders, replaced types,
 * copied-up entries that are the same, links that lead out. Needs root for whiteouts. */
#include "snapshots/tree/tree_walk.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include "base/buffer.h"

#include <fcntl.h>
#include <stdio.h>

static int add_line(void *context, const struct tree_change *change, struct error *err)
{
	static const char marks[] = {'+', '~', '-'};
	struct buffer *text = context;

	(void)err;
	buffer_addf(text, "%c%s", marks[change->kind], change->path);
	for (unsigned bit = 1, letter = 0; letter < 6; bit <<= 1, letter++) {
		if ((change->what & bit) != 0) {
			buffer_addf(text, " %c", "tcmoax"[letter]);
		}
	}
	buffer_add_str(text, "\n");
	return 0;
}

static void assert_diff(struct store *store, const struct layer *a, size_t a_count,
	const struct layer *b, size_t b_count, const char *expected)
{
	CLEANUP(tree_view_close_p) struct tree_view *before = NULL;
	CLEANUP(tree_view_close_p) struct tree_view *after = NULL;
	CLEANUP(buffer_done) struct buffer text = {0};
	struct error err = ERROR_INIT;

	assert_ok(tree_view_open(store, a, a_count, &before, &err), &err);
	assert_ok(tree_view_open(store, b, b_count, &after, &err), &err);
	assert_ok(tree_diff(before, after, add_line, &text, &err), &err);
	assert_string_equal(buffer_text(&text), expected);
}

#define BASE                                                                                       \
	"mkdir -p a/b c d; echo 1 > a/one; echo 2 > a/b/two; echo 3 > c/three; echo 4 > d/four;"   \
	"ln -s /etc/passwd link; touch -d @1000000000 a/one a/b/two c/three d/four;"               \
	"touch -h -d @1000000000 link; chown -hR 100000:100000 ."

static void test_a_layer_changes_adds_and_deletes(void **state)
{
	struct layer layers[2] = {tree_kit_layer(*state, 100000, BASE)};

	/* a/one: other content; a/b/two copied up as it is, by another sandbox; c goes; d is
	 * replaced by a new folder; link becomes a file. */
	layers[1] = tree_kit_layer(*state, 200000,
		"mkdir -p a/b d; echo 9 > a/one; echo 2 > a/b/two; echo 5 > a/new;"
		"mknod c c 0 0; echo 6 > d/six; echo x > link;"
		"touch -d @1000000000 a/one a/b/two; chown -hR 200000:200000 .;"
		"setx d trusted.overlay.opaque y");
	assert_diff(*state, layers, 1, layers, 2,
		"+a/new\n~a/one c\n-c\n-c/three\n-d/four\n+d/six\n~link t\n");
	assert_diff(*state, layers, 2, layers, 1,
		"-a/new\n~a/one c\n+c\n+c/three\n+d/four\n-d/six\n~link t\n");
	assert_diff(*state, layers, 2, layers, 2, "");
}

static void test_attributes(void **state)
{
	struct layer layers[2] = {tree_kit_layer(*state, 100000, BASE)};

	layers[1] = tree_kit_layer(*state, 100000,
		"mkdir -p a/b c d; echo 1 > a/one; echo 2 > a/b/two; echo 3 > c/three; echo 4 > "
		"d/four;"
		"touch -d @1000000000 a/one a/b/two c/three; chown -hR 100000:100000 .;"
		"chown 100005 a/b/two; chmod 600 a/one; setx c/three user.x 1;"
		"touch -d @1000000001 d/four; chmod 700 d");
	assert_diff(*state, layers, 1, layers, 2,
		"~a/b/two o\n~a/one m\n~c/three x\n~d m\n~d/four a\n");
}

static void test_a_whiteout_counts_once(void **state)
{
	struct layer layers[3] = {tree_kit_layer(*state, 0, "mkdir a; echo 1 > a/x; echo 2 > y")};

	layers[1] = tree_kit_layer(*state, 0, "mknod a c 0 0; mknod y c 0 0");
	layers[2] = tree_kit_layer(*state, 0, "mkdir a; echo 3 > a/z");
	/* The folder that comes back does not show what was below the whiteout. */
	assert_diff(*state, layers, 1, layers, 3, "-a/x\n+a/z\n-y\n");
	assert_diff(*state, layers, 1, layers, 2, "-a\n-a/x\n-y\n");
}

static void test_paths_are_found_without_following(void **state)
{
	struct layer layer =
		tree_kit_layer(*state, 0, "mkdir a; echo 1 > a/x; ln -s / out; ln -s a in");
	CLEANUP(tree_view_close_p) struct tree_view *view = NULL;
	static const char *const absent[] = {"a/y", "out/etc/passwd", "in/x", "/b", "a/x/y"};
	struct tree_dir dir = {0};
	struct tree_entry entry;
	struct error err = ERROR_INIT;

	assert_ok(tree_view_open(*state, &layer, 1, &view, &err), &err);
	assert_ok(tree_find(view, "//a/x", &dir, &entry, &err), &err);
	assert_int_equal(entry.stat.st_size, 2);
	free(entry.name);
	tree_dir_done(&dir);
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		assert_kind(tree_find(view, absent[i], &dir, &entry, &err), &err, ERROR_NOT_FOUND);
	}
	assert_kind(tree_find(view, "a/../a/x", &dir, &entry, &err), &err, ERROR_INVALID);
	assert_kind(tree_find(view, "/", &dir, &entry, &err), &err, ERROR_INVALID);
}

static void test_what_is_read_is_not_removed(void **state)
{
	int64_t image = store_kit_image(*state, "webapp");
	CLEANUP(tree_view_close_p) struct tree_view *view = NULL;
	struct image found;
	struct error err = ERROR_INIT;
	uint64_t freed;

	assert_ok(image_find(*state, "1", &found, &err), &err);
	assert_ok(tree_view_open(*state, found.layers, 1, &view, &err), &err);
	image_done(&found);
	assert_ok(image_head_clear(*state, "webapp", &err), &err);
	assert_kind(image_remove(*state, image, &freed, &err), &err, ERROR_BUSY);
	tree_view_close(steal_ptr(view));
	assert_ok(image_remove(*state, image, &freed, &err), &err);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_a_layer_changes_adds_and_deletes),
		IN_STORE(test_attributes),
		IN_STORE(test_a_whiteout_counts_once),
		IN_STORE(test_paths_are_found_without_following),
		IN_STORE(test_what_is_read_is_not_removed),
	};

	if (geteuid() != 0) {
		puts("needs root: skipped");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
