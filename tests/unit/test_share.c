/*
 * Equal files of successive layers are stored once: by links on any file system, by blocks where it
 * can. A layer shows the same before and after, whatever was replaced; what is in a mount is left
 * alone; killed at every step, both layers stay what they were. Needs root.
 */
#include "snapshots/share/share.h"
#include "snapshots/gc.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"
#include "snapshots/verify.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include "base/buffer.h"
#include "base/io.h"
#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ID_BASE 700000

/* Two builds of one step: what is equal, what differs only in content, time, mode, owner, an
 * attribute or the number of names, and folders with times of their own. */
#define TREE                                                                                       \
	"mkdir -p a/deep b; head -c 300000 /dev/zero | tr '\\0' e > a/equal;"                      \
	" head -c 20000 /dev/zero | tr '\\0' d > a/deep/equal; echo same > b/time; echo x > "      \
	"b/mode;"                                                                                  \
	" echo x > b/owner; echo x > b/attribute; echo two > b/name1; ln b/name1 b/name2;"         \
	" echo apart > b/part1; echo apart > b/part2; ln -s equal a/link; : > b/empty;"
#define AFTER                                                                                      \
	" find . -type f -exec touch -d @1500000000.123456789 {} +;"                               \
	" chown -hR 700000:700000 .; find . -type d -exec touch -d @1400000000.5 {} +"

static const char first_script[] = TREE " echo one > a/content;" AFTER;
static const char second_script[] = TREE " echo two > a/content; chmod 600 b/mode;"
					 " setx b/attribute trusted.overlay.test v;"
					 " rm b/part2; ln b/part1 b/part2;" AFTER
					 "; touch -d @1600000000 b/time; chown 700001 b/owner;"
					 " touch -d @1400000000.5 b";

struct two {
	struct layer first, second;
	struct buffer before[2];
	int64_t images[2];
};

static void describe(struct store *store, int64_t id, struct buffer *text)
{
	CLEANUP(free_p) char *path = xasprintf("%s/layers/%lld", store_path(store), (long long)id);
	CLEANUP(close_p) int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *at;

	assert_true(folder >= 0);
	tree_kit_describe(folder, "tree", ID_BASE, text);
	/* How many links a file has is what sharing changes. */
	while ((at = strstr(text->data, " links ")) != NULL) {
		size_t number = strspn(at + 7, "0123456789") + 7;

		memmove(at, at + number, strlen(at + number) + 1);
	}
}

static void verify(struct store *store, const struct layer *layer, enum verify_outcome wanted);

static void make_two(struct store *store, struct two *two)
{
	two->first = tree_kit_layer(store, ID_BASE, first_script);
	two->images[0] = store_kit_commit(store, "webapp", &two->first.id, 1);
	two->second = tree_kit_layer(store, ID_BASE, second_script);
	two->images[1] = store_kit_commit(store, "webapp", &two->second.id, 1);
	describe(store, two->first.id, &two->before[0]);
	describe(store, two->second.id, &two->before[1]);
	verify(store, &two->first, VERIFY_RECORDED);
	verify(store, &two->second, VERIFY_RECORDED);
}

static void two_done(struct two *two)
{
	buffer_done(&two->before[0]);
	buffer_done(&two->before[1]);
}

static void show_damage(
	void *context, const struct layer *layer, const char *path, const char *what)
{
	(void)context;
	print_message("layer %lld: %s %s\n", (long long)layer->id, path, what);
}

static void verify(struct store *store, const struct layer *layer, enum verify_outcome wanted)
{
	const struct verify_events events = {.damage = show_damage};
	enum verify_outcome outcome = VERIFY_DAMAGED;
	struct error err = ERROR_INIT;

	assert_ok(layer_verify(store, layer, false, &events, &outcome, &err), &err);
	assert_int_equal(outcome, wanted);
}

static void assert_unchanged(struct store *store, const struct two *two)
{
	CLEANUP(buffer_done) struct buffer first = {0};
	CLEANUP(buffer_done) struct buffer second = {0};

	verify(store, &two->first, VERIFY_SOUND);
	verify(store, &two->second, VERIFY_SOUND);
	describe(store, two->first.id, &first);
	describe(store, two->second.id, &second);
	assert_string_equal(first.data, two->before[0].data);
	assert_string_equal(second.data, two->before[1].data);
}

static struct share_result share(struct store *store)
{
	const struct share_events events = {NULL, NULL, NULL};
	struct share_result result = {0};
	struct error err = ERROR_INIT;

	assert_ok(store_share(store, &events, &result, &err), &err);
	return result;
}

static ino_t inode_of(struct store *store, int64_t layer, const char *path)
{
	CLEANUP(free_p)
	char *name = xasprintf("%s/layers/%lld/tree/%s", store_path(store), (long long)layer, path);
	struct stat status;

	assert_int_equal(lstat(name, &status), 0);
	return status.st_ino;
}

static bool is_one(struct store *store, const struct two *two, const char *path)
{
	return inode_of(store, two->first.id, path) == inode_of(store, two->second.id, path);
}

static void assert_shared_by_links(struct store *store, const struct two *two)
{
	static const char *const apart[] = {"a/content", "b/time", "b/mode", "b/owner",
		"b/attribute", "b/name1", "b/part1", "b/part2", "b/empty"};

	assert_true(is_one(store, two, "a/equal"));
	assert_true(is_one(store, two, "a/deep/equal"));
	for (size_t i = 0; i < ARRAY_SIZE(apart); i++) {
		if (is_one(store, two, apart[i])) {
			fail_msg("%s is shared", apart[i]);
		}
	}
}

static void test_links(void **state)
{
	CLEANUP(two_done) struct two two = {0};
	uint64_t exclusive = 0, shared = 0, twice = 0, freed = 0;
	struct error err = ERROR_INIT;
	struct share_result result;
	struct layer layer;

	make_two(*state, &two);
	result = share(*state);
	if (result.method == SHARE_BLOCKS) {
		skip(); /* the file system of the temporary folder shares blocks */
	}
	assert_int_equal(result.files, 2);
	assert_int_equal(result.layers, 1);
	assert_int_equal(result.waiting, 0);
	assert_true(result.bytes >= 320000);
	assert_shared_by_links(*state, &two);
	assert_unchanged(*state, &two);

	/* What is said of it: counted once, and freed by the last that has it. */
	assert_ok(shared_bytes(*state, &twice, &err), &err);
	assert_int_equal(twice, result.bytes);
	assert_ok(layer_get(*state, two.second.id, &layer, &err), &err);
	assert_int_equal(layer.shared, result.bytes);
	assert_ok(image_bytes(*state, two.images[0], &exclusive, &shared, &err), &err);
	assert_int_equal(shared, result.bytes);
	assert_ok(image_remove(*state, two.images[0], &freed, &err), &err);
	assert_int_equal(freed, exclusive);
	assert_ok(layer_get(*state, two.second.id, &layer, &err), &err);
	assert_int_equal(layer.shared, 0);
	assert_ok(image_bytes(*state, two.images[1], &exclusive, &shared, &err), &err);
	assert_int_equal(exclusive, layer.stored);

	/* Nothing is done twice, and without its pair the layer stands for itself. */
	assert_int_equal(share(*state).files, 0);
	verify(*state, &two.second, VERIFY_SOUND);
}

static void test_ranges_apart(void **state)
{
	struct layer first = tree_kit_layer(*state, ID_BASE, first_script), second;
	struct share_result result;

	store_kit_commit(*state, "webapp", &first.id, 1);
	second = tree_kit_layer(*state, ID_BASE + 65536, first_script);
	store_kit_commit(*state, "webapp", &second.id, 1);
	result = share(*state);
	assert_int_equal(result.files, 0);
	assert_int_equal(result.owners, 1);
}

/* ---- in a mount ---- */

static int mount_layer(struct store *store, int64_t layer, const char *at)
{
	CLEANUP(free_p)
	char *options = xasprintf(
		"lowerdir=%s/layers/%lld/tree:%s", store_path(store), (long long)layer, at);

	assert_int_equal(mount("overlay", at, "overlay", MS_RDONLY, options), 0);
	/* Gone with the descriptor, also when an assertion fails. */
	CLEANUP(close_p) int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(umount2(at, MNT_DETACH), 0);
	return steal_fd(&fd);
}

static ino_t inode_in(int mounted, const char *path)
{
	struct stat status;

	assert_int_equal(fstatat(mounted, path, &status, 0), 0);
	return status.st_ino;
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	sync();
	if (fd >= 0) {
		(void)!write(fd, "2", 1);
		close(fd);
	}
}

/* Of a leased and an unleased layer, the unleased one's names become links: whoever has the other
 * mounted sees neither another inode nor other content, with caches and without. */
static void test_mounted(void **state)
{
	CLEANUP(two_done) struct two two = {0};
	CLEANUP(free_p) char *at = xasprintf("%s/../mnt", store_path(*state));
	CLEANUP(buffer_done) struct buffer before = {0};
	CLEANUP(buffer_done) struct buffer after = {0};
	struct error err = ERROR_INIT;
	ino_t first, second;

	make_two(*state, &two);
	assert_int_equal(mkdir(at, 0755), 0);
	assert_ok(image_lease(*state, two.images[0], "somebody", &err), &err);
	assert_ok(image_lease(*state, two.images[1], "hobd", &err), &err);
	first = inode_of(*state, two.first.id, "a/equal");
	second = inode_of(*state, two.second.id, "a/equal");
	if (share(*state).method == SHARE_BLOCKS) {
		skip();
	}
	assert_int_equal(inode_of(*state, two.first.id, "a/equal"), first);
	assert_int_equal(inode_of(*state, two.second.id, "a/equal"), second);

	/* The older one is left: it is the one that changes. */
	assert_ok(image_unlease(*state, two.images[0], "somebody", &err), &err);
	{
		CLEANUP(close_p) int mounted = mount_layer(*state, two.second.id, at);
		CLEANUP(close_p) int file = openat(mounted, "a/equal", O_RDONLY | O_CLOEXEC);
		ino_t seen = inode_in(mounted, "a/equal");
		char byte = 0;

		tree_kit_describe(mounted, ".", ID_BASE, &before);
		assert_int_equal(share(*state).files, 2);
		drop_caches();
		tree_kit_describe(mounted, ".", ID_BASE, &after);
		assert_int_equal(inode_in(mounted, "a/equal"), seen);
		assert_int_equal(pread(file, &byte, 1, 299999), 1);
		assert_int_equal(byte, 'e');
	}
	assert_int_equal(inode_of(*state, two.second.id, "a/equal"), second);
	assert_int_equal(inode_of(*state, two.first.id, "a/equal"), second);
	assert_shared_by_links(*state, &two);
	assert_unchanged(*state, &two);
}

/* A build that holds a layer counts as a mount. */
static void test_held(void **state)
{
	CLEANUP(two_done) struct two two = {0};
	struct share_result result;
	CLEANUP(close_p) int first = -1;
	CLEANUP(close_p) int second = -1;
	struct store *store = *state;
	char name[ID_TEXT_SIZE];
	struct error err = ERROR_INIT;

	make_two(store, &two);
	id_format(name, two.first.id);
	assert_ok(store_lock(store->layers_fd, name, LOCK_SH, &first, &err), &err);
	id_format(name, two.second.id);
	assert_ok(store_lock(store->layers_fd, name, LOCK_SH, &second, &err), &err);
	result = share(store);
	if (result.method == SHARE_BLOCKS) {
		skip();
	}
	assert_int_equal(result.waiting, 1);
	assert_int_equal(result.files, 0);
	fd_done(&second);
	result = share(store);
	assert_int_equal(result.waiting, 0);
	assert_int_equal(result.files, 2);
	assert_unchanged(store, &two);
}

/* ---- a session ---- */

static int64_t take(struct store *store, int64_t image_id, const struct layer *base,
	const char *script, struct layer *ret_layer)
{
	struct layer list[2] = {*base};
	struct snapshot snapshot = {.environment = "webapp",
		.image_id = image_id,
		.sandbox = "sb-1",
		.layers = list,
		.layer_count = 2,
		.own_count = 1};
	struct error err = ERROR_INIT;
	int64_t id;

	list[1] = tree_kit_layer(store, ID_BASE, script);
	*ret_layer = list[1];
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	id = snapshot.id;
	snapshot.layers = NULL;
	snapshot_done(&snapshot);
	return id;
}

/* What was kept at the end of a sandbox has most of what its last snapshot has. */
static void test_snapshots_of_one_sandbox(void **state)
{
	struct layer base = store_kit_seal(*state, "", 1000), first, second;
	int64_t image = store_kit_commit(*state, "webapp", &base.id, 1);
	uint64_t freed = 0;
	struct error err = ERROR_INIT;
	int64_t snapshot = take(*state, image, &base, first_script, &first);

	take(*state, image, &base, second_script, &second);
	if (share(*state).method == SHARE_BLOCKS) {
		skip();
	}
	assert_int_equal(
		inode_of(*state, first.id, "a/equal"), inode_of(*state, second.id, "a/equal"));
	assert_ok(snapshot_remove(*state, snapshot, &freed, &err), &err);
	assert_true(freed < first.stored - 300000);
}

/* ---- stops and kills ---- */

static bool stop_at(void *context)
{
	return ++*(unsigned *)context > 12;
}

static void test_stopped(void **state)
{
	unsigned asked = 0;
	const struct share_events events = {stop_at, NULL, &asked};
	CLEANUP(two_done) struct two two = {0};
	struct share_result result = {0};
	struct error err = ERROR_INIT;

	make_two(*state, &two);
	assert_kind(store_share(*state, &events, &result, &err), &err, ERROR_CANCELLED);
	assert_unchanged(*state, &two);
	if (share(*state).method == SHARE_LINKS) {
		assert_shared_by_links(*state, &two);
	}
	assert_unchanged(*state, &two);
}

static bool run_with_fault(const char *path, const char *point, int passage, const char *action)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		CLEANUP(free_p) char *fault = xasprintf("%s:%d:%s", point, passage, action);
		const char *program = "/proc/self/exe";

		setenv("HOB_FAULT", fault, 1);
		execl(program, program, "--share", path, (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 99);
	/* True when the point was passed as often as that. */
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void break_at(const char *point, int passage, const char *action, bool *ret_hit)
{
	CLEANUP(two_done) struct two two = {0};
	CLEANUP(store_close_p) struct store *store = NULL;
	CLEANUP(temp_remove_p) char *folder = temp_folder();
	struct store_sweep sweep;
	struct error err = ERROR_INIT;

	store = store_kit_open(folder);
	make_two(store, &two);
	*ret_hit = run_with_fault(store_path(store), point, passage, action);
	assert_ok(store_recover(store, &sweep, &err), &err);
	assert_int_equal(store_kit_count(store, "staging"), 0);
	/* Verifying, too, puts right what was cut off: each gets its turn. */
	if (passage % 2 == 0) {
		assert_ok(share_settle_all(store, &err), &err);
	}
	assert_unchanged(store, &two);
	share(store);
	assert_shared_by_links(store, &two);
	assert_unchanged(store, &two);
}

static void test_killed_at_every_step(void **state)
{
	static const char *const points[] = {"share.noted", "share.linked", "share.replaced",
		"share.restored", "share.before_record"};
	CLEANUP(two_done) struct two two = {0};

	make_two(*state, &two);
	if (share(*state).method == SHARE_BLOCKS) {
		skip();
	}
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		bool hit = true;
		int passage = 0;

		while (hit) {
			break_at(points[i], ++passage, "kill", &hit);
			if (hit) {
				break_at(points[i], passage, "ENOSPC", &hit);
				assert_true(hit);
			}
		}
		assert_true(passage > 1); /* each point is passed */
	}
}

/* ---- blocks ---- */

static void run(const char *script)
{
	char *argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-ec",
		(char *)(uintptr_t)script, NULL};
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, NULL, &code, &err), &err);
	assert_int_equal(code, 0);
}

/* On an XFS of its own; a mount goes with the test's mount namespace. */
static int setup_xfs(void **state)
{
	CLEANUP(free_p) char *folder = temp_folder();
	CLEANUP(free_p) char *script = NULL;

	if (!process_exists("mkfs.xfs")) {
		*state = NULL;
		return 0;
	}
	script = xasprintf("cd %s; truncate -s 320M disk; mkfs.xfs -q -m reflink=1 disk;"
			   " mkdir mnt; mount -o loop disk mnt",
		folder);
	run(script);
	{
		CLEANUP(free_p) char *mounted = xasprintf("%s/mnt", folder);

		*state = store_kit_open(mounted);
	}
	return 0;
}

static int teardown_xfs(void **state)
{
	CLEANUP(free_p) char *script = NULL;
	char *path;

	if (*state == NULL) {
		return 0;
	}
	path = xstrdup(store_path(*state));
	store_close(*state);
	*strrchr(path, '/') = '\0';
	script = xasprintf("umount %s", path);
	run(script);
	*strrchr(path, '/') = '\0';
	temp_remove(path);
	return 0;
}

/* Names, inodes and times stay, also of files that only have equal content, leased or not. */
static void test_blocks(void **state)
{
	CLEANUP(two_done) struct two two = {0};
	uint64_t twice = 0;
	struct error err = ERROR_INIT;
	struct share_result result;
	struct layer layer;
	ino_t inode;

	if (*state == NULL) {
		skip(); /* no mkfs.xfs */
	}
	make_two(*state, &two);
	assert_ok(image_lease(*state, two.images[0], "somebody", &err), &err);
	assert_ok(image_lease(*state, two.images[1], "hobd", &err), &err);
	inode = inode_of(*state, two.second.id, "a/equal");
	result = share(*state);
	assert_int_equal(result.method, SHARE_BLOCKS);
	assert_int_equal(result.waiting, 0);
	assert_true(result.bytes >= 320000);
	assert_int_equal(inode_of(*state, two.second.id, "a/equal"), inode);
	assert_false(is_one(*state, &two, "a/equal"));
	assert_unchanged(*state, &two);
	assert_ok(layer_get(*state, two.second.id, &layer, &err), &err);
	assert_true(layer.shared >= 320000);
	sync();
	assert_ok(shared_bytes(*state, &twice, &err), &err);
	assert_true(twice >= 320000 && twice <= two.second.stored);
}

static int share_in_child(const char *path)
{
	const struct share_events events = {NULL, NULL, NULL};
	CLEANUP(store_close_p) struct store *store = NULL;
	struct share_result result;
	struct error err = ERROR_INIT;

	return store_open(path, STORE_WRITE, &store, &err) < 0 ||
			       store_share(store, &events, &result, &err) < 0
		       ? 1
		       : 0;
}

/* Removed since it was listed: nothing is damaged. */
static void test_verify_after_removal(void **state)
{
	const struct verify_events events = {.damage = show_damage};
	const struct layer removed = {.id = 12345};
	enum verify_outcome outcome = VERIFY_SOUND;
	struct error err = ERROR_INIT;

	assert_kind(
		layer_verify(*state, &removed, false, &events, &outcome, &err), &err, ERROR_BUSY);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_links, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_ranges_apart, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_mounted, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_held, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(
			test_snapshots_of_one_sandbox, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(
			test_verify_after_removal, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_stopped, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(
			test_killed_at_every_step, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_blocks, setup_xfs, teardown_xfs),
	};

	if (argc == 3 && streq(argv[1], "--share")) {
		return share_in_child(argv[2]);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
