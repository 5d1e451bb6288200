/* Flattening: random stacks of layers show the same before and after, as overlayfs itself sees
 * them; leases keep the old list; nothing to do is nothing done. Needs root. */
#include "snapshots/tree/flatten.h"
#include "snapshots/gc.h"
#include "snapshots/store_private.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include "base/buffer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

static unsigned long seed;

static unsigned chance(unsigned below)
{
	seed = seed * 6364136223846793005UL + 1442695040888963407UL;
	return (unsigned)(seed >> 33) % below;
}

/* A script of random changes to a tree of few names, so that they meet often. */
static char *random_script(int64_t id_base, bool lowest)
{
	static const char *const folders[] = {"a", "b", "a/c", "a/c/d", "b/e"};
	struct buffer script = {0};

	for (int i = 0; i < 14; i++) {
		const char *folder = folders[chance(ARRAY_SIZE(folders))];
		unsigned file = chance(4);

		switch (chance(lowest ? 3 : 6)) {
		case 0:
			buffer_addf(&script, "mkdir -p %s 2>/dev/null && chmod 7%u5 %s || true;",
				folder, chance(8), folder);
			break;
		case 1:
			buffer_addf(&script,
				"mkdir -p %s 2>/dev/null && { rm -rf %s/f%u; echo %u > %s/f%u; } "
				"|| true;",
				folder, folder, file, chance(1000), folder, file);
			break;
		case 2:
			buffer_addf(&script,
				"mkdir -p %s 2>/dev/null && ln -sfn t%u %s/f%u || true;", folder,
				chance(9), folder, file);
			break;
		case 3:
			buffer_addf(&script,
				"mkdir -p %s 2>/dev/null && { rm -rf %s/f%u; mknod %s/f%u c 0 0; } "
				"|| true;",
				folder, folder, file, folder, file);
			break;
		case 4:
			buffer_addf(&script, "rm -rf %s; mknod %s c 0 0 2>/dev/null || true;",
				folder, folder);
			break;
		default:
			buffer_addf(&script,
				"rm -rf %s; mkdir -p %s 2>/dev/null &&"
				" setx %s trusted.overlay.opaque y || true;",
				folder, folder, folder);
			break;
		}
	}
	buffer_addf(&script, "chown -hR %lld:%lld .", (long long)id_base, (long long)id_base);
	return buffer_steal(&script);
}

/* What overlayfs makes of the layers, with their owners' range taken off. */
static void describe_mounted(
	struct store *store, const struct layer *layers, size_t count, struct buffer *text)
{
	CLEANUP(free_p) char *at = xasprintf("%s/../mnt", store_path(store));
	struct buffer options = {0};

	buffer_add_str(&options, "lowerdir=");
	for (size_t i = count; i-- > 0;) {
		buffer_addf(&options, "%s/layers/%lld/tree%s", store_path(store),
			(long long)layers[i].id, i > 0 ? ":" : "");
	}
	/* Two are the fewest; an empty one changes nothing. */
	buffer_addf(&options, ":%s/../empty", store_path(store));
	assert_true(mkdir(at, 0755) == 0 || errno == EEXIST);
	assert_int_equal(mount("overlay", at, "overlay", MS_RDONLY, options.data), 0);
	/* Gone with the descriptor, also when an assertion fails. */
	CLEANUP(close_p) int root = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(umount2(at, MNT_DETACH), 0);
	tree_kit_describe(root, ".", 0, text);
	buffer_done(&options);
}

/* Owners differ from layer to layer and are left out; so are the ghosts of the random layers, which
 * have whiteouts where there is nothing to hide. A flattened layer must have none. */
static void strip(struct buffer *text, bool ghosts)
{
	CLEANUP(free_p) char *copy = xstrdup(buffer_text(text));
	char *rest = NULL;

	buffer_clear(text);
	for (char *line = strtok_r(copy, "\n", &rest); line != NULL;
		line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, " GHOST") != NULL) {
			assert_true(ghosts);
			continue;
		}
		char *colon = strchr(line, ':');
		char *before = colon, *after = colon;

		while (before > line && before[-1] != ' ') {
			before--;
		}
		while (*after != '\0' && *after != ' ') {
			after++;
		}
		buffer_addf(text, "%.*s%s\n", (int)(before - line), line, after);
	}
}

static void assert_shows_the_same(struct store *store, const struct layer *before, size_t count,
	const struct layer *after, size_t after_count, bool ghosts)
{
	CLEANUP(buffer_done) struct buffer was = {0};
	CLEANUP(buffer_done) struct buffer is = {0};

	describe_mounted(store, before, count, &was);
	describe_mounted(store, after, after_count, &is);
	strip(&was, true);
	strip(&is, ghosts);
	assert_string_equal(buffer_text(&is), buffer_text(&was));
}

static int64_t commit_over(
	struct store *store, struct layer *layers, size_t count, int64_t image, int64_t parent)
{
	struct snapshot snapshot = {.environment = "webapp",
		.image_id = image,
		.parent_id = parent,
		.layers = layers,
		.layer_count = count,
		.own_count = 1};
	struct error err = ERROR_INIT;

	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
	return snapshot.id;
}

static int64_t commit(struct store *store, struct layer *layers, size_t count, int64_t image)
{
	return commit_over(store, layers, count, image, 0);
}

static struct layer random_layer(struct store *store, int64_t id_base, bool lowest)
{
	CLEANUP(free_p) char *script = random_script(id_base, lowest);

	return tree_kit_layer(store, id_base, script);
}

static void test_random_trees_show_the_same(void **state)
{
	CLEANUP(free_p) char *empty = xasprintf("%s/../empty", store_path(*state));
	struct error err = ERROR_INIT;

	assert_int_equal(mkdir(empty, 0755), 0);
	for (unsigned round = 0; round < 30; round++) {
		struct layer layers[6];
		CLEANUP(snapshot_done) struct snapshot flat = {0};
		struct flatten_result result;
		CLEANUP(free_p) char *name = NULL;
		size_t count = 3 + round % 4;
		int64_t image, id;

		seed = 12345 + round;
		for (size_t i = 0; i < count; i++) {
			layers[i] = random_layer(*state,
				round % 3 == 2 ? 100000 * (int64_t)(i % 2 + 1) : 100000, i == 0);
		}
		image = store_kit_commit(*state, "webapp", &layers[0].id, 1);
		id = commit(*state, layers, count, image);
		assert_ok(snapshot_lease(*state, id, "test", &err), &err);
		assert_ok(snapshot_flatten(*state, id, &result, &err), &err);
		assert_int_equal(result.before, count);
		assert_int_equal(result.after, 2);
		name = xasprintf("%lld", (long long)id);
		assert_ok(snapshot_find(*state, name, &flat, &err), &err);
		assert_int_equal(flat.layer_count, 2);
		assert_shows_the_same(*state, layers, count, flat.layers, 2, false);
	}
}

static void test_old_lists_stay_while_leased(void **state)
{
	struct layer layers[3];
	CLEANUP(gc_plan_done) struct gc_plan none = {0};
	CLEANUP(gc_plan_done) struct gc_plan made = {0};
	struct flatten_result result;
	struct gc_result collected;
	struct error err = ERROR_INIT;
	int64_t image, id;

	seed = 7;
	for (size_t i = 0; i < 3; i++) {
		layers[i] = random_layer(*state, 100000, i == 0);
	}
	image = store_kit_commit(*state, "webapp", &layers[0].id, 1);
	id = commit(*state, layers, 3, image);
	assert_ok(snapshot_lease(*state, id, "hobd", &err), &err);
	assert_ok(snapshot_flatten(*state, id, &result, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 4);
	assert_true(result.linked > 0);
	assert_int_equal(result.copied, 0);
	assert_ok(gc_plan_make(*state, NULL, 0, &none, &err), &err);
	assert_int_equal(none.removals, 0);
	assert_ok(snapshot_unlease(*state, id, "hobd", &err), &err);
	assert_ok(gc_plan_make(*state, NULL, 0, &made, &err), &err);
	assert_int_equal(made.removals, 1);
	assert_ok(gc_plan_run(*state, &made, &collected, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 2);
	assert_ok(snapshot_flatten(*state, id, &result, &err), &err);
	assert_int_equal(result.before, result.after);
}

static void test_without_leases_the_old_goes_at_once(void **state)
{
	struct layer layers[3];
	struct flatten_result result;
	struct error err = ERROR_INIT;
	int64_t parent, child;
	uint64_t freed;

	seed = 8;
	for (size_t i = 0; i < 3; i++) {
		layers[i] = random_layer(*state, 100000, i == 0);
	}
	parent = commit(*state, layers, 2, 0);
	child = commit(*state, layers, 3, 0);
	assert_ok(snapshot_flatten(*state, child, &result, &err), &err);
	assert_int_equal(result.after, 1);
	/* The parent still lists two of the three. */
	assert_int_equal(store_kit_count(*state, "layers"), 3);
	assert_ok(snapshot_remove(*state, parent, &freed, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
}

static void find(struct store *store, int64_t id, struct snapshot *ret_snapshot)
{
	CLEANUP(free_p) char *name = xasprintf("%lld", (long long)id);
	struct error err = ERROR_INIT;

	assert_ok(snapshot_find(store, name, ret_snapshot, &err), &err);
}

/* Lists that begin with the flattened one become as much shorter; others stay as they are. */
static void test_what_stands_on_it_becomes_short_too(void **state)
{
	CLEANUP(free_p) char *empty = xasprintf("%s/../empty", store_path(*state));
	struct flatten_result result;
	struct error err = ERROR_INIT;
	int64_t image, ids[4], other, late;

	assert_int_equal(mkdir(empty, 0755), 0);
	for (unsigned round = 0; round < 5; round++) {
		struct layer layers[8], list[8];

		seed = 4711 + round;
		for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
			layers[i] = random_layer(*state, 100000, i == 0);
		}
		image = store_kit_commit(*state, "webapp", &layers[0].id, 1);
		for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
			ids[i] = commit_over(*state, layers, 4 + i, image, i > 0 ? ids[i - 1] : 0);
		}
		other = commit(*state, layers, 7, image); /* as long, and no descendant */
		assert_ok(snapshot_lease(*state, ids[3], "test", &err), &err);
		assert_ok(snapshot_flatten(*state, ids[0], &result, &err), &err);
		assert_int_equal(result.after, 2);
		for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
			CLEANUP(snapshot_done) struct snapshot now = {0};

			find(*state, ids[i], &now);
			assert_int_equal(now.layer_count, 2 + i);
			assert_int_equal(now.own_count, 1);
			assert_shows_the_same(
				*state, layers, 4 + i, now.layers, now.layer_count, i > 0);
		}
		/* Of a sandbox that stands on the leased one's old list. */
		memcpy(list, layers, sizeof(list)); /* becomes the shorter one */
		late = commit_over(*state, list, 8, image, ids[3]);
		CLEANUP(snapshot_done) struct snapshot last = {0};
		find(*state, late, &last);
		assert_int_equal(last.layer_count, 6);
		assert_shows_the_same(*state, layers, 8, last.layers, 6, true);
		CLEANUP(snapshot_done) struct snapshot apart = {0};
		find(*state, other, &apart);
		assert_int_equal(apart.layer_count, 7);
	}
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_random_trees_show_the_same),
		IN_STORE(test_old_lists_stay_while_leased),
		IN_STORE(test_without_leases_the_old_goes_at_once),
		IN_STORE(test_what_stands_on_it_becomes_short_too),
	};

	if (geteuid() != 0) {
		puts("needs root: skipped");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
