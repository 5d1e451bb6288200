/* Live snapshots of real sandboxes through the launcher: what is in them, what they share, who may
 * not interfere; and what a sandbox leaves when it ends. */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_compare.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define ROOT_NEEDED(kit)                                                                           \
	do {                                                                                       \
		if ((kit) == NULL) {                                                               \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

static char *stored(const struct sandbox_kit *kit, const char *path)
{
	return xasprintf("%s/%s", kit->config.store, path);
}

static void staging_make(const struct sandbox_kit *kit, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/staging/%s", kit->config.store, name);

	assert_int_equal(mkdir(path, 0700), 0);
}

/* staging/<name>/tree becomes a layer with the ids of this slot; its number. */
static int64_t layer_make(struct sandbox_kit *kit, const char *name, uint32_t slot)
{
	CLEANUP(free_p) char *from = xasprintf("%s/staging/%s/tree", kit->config.store, name);
	CLEANUP(free_p)
	char *to = sandbox_kit_layer(kit, launcher_slot_base(kit->launcher, slot), ID_RANGE);

	assert_int_equal(rmdir(to), 0);
	assert_int_equal(rename(from, to), 0);
	return (int64_t)kit->layer_count;
}

static bool is_frozen(struct sandbox_kit *kit, const char *id)
{
	struct sandbox_usage usage;

	assert_ok(sandbox_usage_read(&kit->config, id, &usage, &kit->err), &kit->err);
	return usage.frozen;
}

static const char changes[] =
	"mkdir -p /workspace/a/b; echo one > /workspace/a/b/one; ln /workspace/a/b/one "
	"/workspace/two;"
	"echo more >> /etc/passwd; rm -r /home; rm -r /var; mkdir /var; mkfifo /workspace/fifo;"
	"ln -s /nowhere /workspace/link; chown 1000:1000 /workspace/two; chmod 4755 /workspace/two;"
	"head -c 3000000 /dev/urandom > /workspace/large";

static void test_a_snapshot_is_what_the_sandbox_has_changed(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(free_p) char *tree = NULL;
	CLEANUP(free_p) char *folder = NULL;
	CLEANUP(free_p) char *said = NULL;
	struct kit_box box, other;
	char value[8];

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-live", 3);
	free(box_shell(&box, changes, NULL));
	staging_make(kit, "live");
	assert_ok(kit_snapshot(kit, box.id, "live", 0), &kit->err);
	assert_false(is_frozen(kit, box.id));
	assert_true(kit->copied.files >= 13);
	assert_true(kit->copied.pause_us > 0 && kit->copied.pause_us < kit->copied.total_us);
	upper = stored(kit, "sandboxes/sb-live/upper");
	tree = stored(kit, "staging/live/tree");
	assert_int_equal(assert_same_trees(upper, tree), kit->copied.files);
	folder = xasprintf("%s/etc", tree);
	assert_int_equal(lgetxattr(folder, "trusted.overlay.origin", value, sizeof(value)), -1);
	free(folder);
	/* Nothing is beside it: layer_seal would refuse that. */
	folder = stored(kit, "staging/live/scratch");
	assert_int_equal(access(folder, F_OK), -1);
	/* In another slot, over the same layers, it is all there. */
	(void)layer_make(kit, "live", 3);
	box_open(kit, &other, "sb-restored", 4);
	said = box_shell(&other,
		"cat /workspace/two; stat -c '%U %h %a' /workspace/two; tail -1 /etc/passwd;"
		"ls -d /home /var/* 2>&1; stat -c %s /workspace/large",
		&(int){0});
	assert_string_equal(said,
		"one\nagent 2 4755\nmore\nls: cannot access '/home': No such file or directory\n"
		"ls: cannot access '/var/*': No such file or directory\n3000000");
	assert_int_equal(box_close(&other), 0);
	assert_int_equal(box_close(&box), 0);
}

static void test_the_next_one_shares_what_has_not_changed(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(free_p) char *tree = NULL;
	struct kit_box box;
	uint64_t regular;
	int64_t layer;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-twice", 3);
	free(box_shell(&box, changes, NULL));
	usleep(2100000);
	staging_make(kit, "first");
	assert_ok(kit_snapshot(kit, box.id, "first", 0), &kit->err);
	regular = kit->copied.copied + kit->copied.cloned;
	layer = layer_make(kit, "first", 3);
	free(box_shell(&box, "echo x >> /etc/passwd", NULL));
	staging_make(kit, "second");
	assert_ok(kit_snapshot(kit, box.id, "second", layer), &kit->err);
	assert_true(kit->copied.cloned > 0 || kit->copied.linked == regular - 1);
	upper = stored(kit, "sandboxes/sb-twice/upper");
	tree = stored(kit, "staging/second/tree");
	assert_same_trees(upper, tree);
	/* Another layer than the one that the list is of gives nothing. */
	staging_make(kit, "third");
	assert_ok(kit_snapshot(kit, box.id, "third", KIT_LAYER_HOST), &kit->err);
	assert_int_equal(kit->copied.linked, 0);
	assert_int_equal(box_close(&box), 0);
}

static void test_a_frozen_sandbox_stays_frozen(void **state)
{
	struct sandbox_kit *kit = *state;
	struct kit_box box;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-cold", 3);
	free(box_shell(&box, changes, NULL));
	assert_ok(kit_freeze(kit, box.id), &kit->err);
	staging_make(kit, "cold");
	assert_ok(kit_snapshot(kit, box.id, "cold", 0), &kit->err);
	assert_true(is_frozen(kit, box.id));
	assert_ok(kit_thaw(kit, box.id), &kit->err);
	free(box_shell(&box, "true", NULL));
	assert_int_equal(box_close(&box), 0);
}

static void test_what_cannot_be_is_refused(void **state)
{
	struct sandbox_kit *kit = *state;
	struct kit_box box;

	ROOT_NEEDED(kit);
	staging_make(kit, "none");
	assert_int_equal(kit_snapshot(kit, "sb-none", "none", 0), -ERROR_NOT_FOUND);
	assert_int_equal(kit_snapshot(kit, "bs-build", "none", 0), -ERROR_INVALID);
	assert_int_equal(kit_snapshot(kit, "sb-none", "../x", 0), -ERROR_INVALID);
	assert_int_equal(kit_snapshot(kit, "sb-none", "none", -1), -ERROR_INVALID);
	assert_int_equal(kit_keep(kit, "sb-none", "none"), -ERROR_NOT_FOUND);
	box_open(kit, &box, "sb-there", 3);
	assert_int_equal(kit_snapshot(kit, box.id, "missing", 0), -ERROR_NOT_FOUND);
	assert_ok(kit_snapshot(kit, box.id, "none", 0), &kit->err);
	/* Never into a tree that is there. */
	assert_int_equal(kit_snapshot(kit, box.id, "none", 0), -ERROR_EXISTS);
	assert_false(is_frozen(kit, box.id));
	assert_int_equal(box_close(&box), 0);
}

static void test_what_a_sandbox_leaves_is_kept(void **state)
{
	struct sandbox_kit *kit = *state;
	CLEANUP(free_p) char *folder = NULL;
	CLEANUP(free_p) char *file = NULL;
	CLEANUP(free_p) char *said = NULL;
	struct kit_box box;
	char value[8];
	int status;

	ROOT_NEEDED(kit);
	box_open(kit, &box, "sb-last", 3);
	free(box_shell(&box, changes, NULL));
	box_disconnect(&box);
	staging_make(kit, "last");
	do {
		status = kit_keep(kit, box.id, "last");
	} while (status == -ERROR_BUSY);
	assert_ok(status, &kit->err);
	folder = stored(kit, "sandboxes/sb-last");
	assert_int_equal(access(folder, F_OK), -1);
	file = stored(kit, "staging/last/tree/etc");
	assert_int_equal(lgetxattr(file, "trusted.overlay.origin", value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
	/* Asking again is answered in the same way. */
	assert_ok(kit_keep(kit, box.id, "last"), &kit->err);
	assert_int_equal(box_close(&box), 0);
	(void)layer_make(kit, "last", 3);
	box_open(kit, &box, "sb-next", 5);
	said = box_shell(&box, "cat /workspace/two; ls -d /home 2>&1", &(int){0});
	assert_string_equal(said, "one\nls: cannot access '/home': No such file or directory");
	assert_int_equal(box_close(&box), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_snapshot_is_what_the_sandbox_has_changed,
			sandbox_kit_setup, sandbox_kit_teardown),
		cmocka_unit_test_setup_teardown(test_the_next_one_shares_what_has_not_changed,
			sandbox_kit_setup, sandbox_kit_teardown),
		cmocka_unit_test_setup_teardown(test_a_frozen_sandbox_stays_frozen,
			sandbox_kit_setup, sandbox_kit_teardown),
		cmocka_unit_test_setup_teardown(
			test_what_cannot_be_is_refused, sandbox_kit_setup, sandbox_kit_teardown),
		cmocka_unit_test_setup_teardown(test_what_a_sandbox_leaves_is_kept,
			sandbox_kit_setup, sandbox_kit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
