/*
 * Power loss. A store is on a block device, a process commits, flattens, collects, exports and
 * imports without end, and in the middle of it the device is cloned, as of one instant and without
 * a sync: what was only in memory is not in the clone. The clone is mounted (the journal is
 * replayed) and recovered: whatever had been acknowledged before is there, every byte of it, and
 * whatever shows at all is whole. A second run leaves out syncfs and has to find damage.
 *
 * The device is a loop over a file of an XFS that shares blocks, so that FICLONE, which waits for
 * the write under way and keeps the next out, is the clone. Everything is mounted in a namespace of
 * its own and goes with the process, killed or not.
 */
#include "snapshots/archive/archive.h"
#include "snapshots/gc.h"
#include "snapshots/tree/flatten.h"
#include "snapshots/verify.h"
#include "snapshots/volume/loop_device.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/process.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define FILES 12 /* of a layer */
#define FILE_BYTES_MAX 40000
#define BASE 300000
#define KEEP_LAST 10
#define ACKS_MAX 100000
#define TRIES 3
#define TRIES_LONG 50
#define TRIES_LYING 100 /* until damage is found: others may sync the whole machine */

/* In place of the C library's: the store's, and nobody else's, in this program. */
static bool lying;

int syncfs(int fd)
{
	return lying ? 0 : (int)syscall(SYS_syncfs, fd);
}

/* ---- what is in a layer: to be told from its number alone ---- */

static size_t content_make(int layer, int file, char *content)
{
	size_t size = (size_t)(layer * 7919 + file * 3571) % FILE_BYTES_MAX;
	char mark[32];
	size_t length = (size_t)snprintf(mark, sizeof(mark), "%d.%d/", layer, file);

	for (size_t i = 0; i < size; i++) {
		content[i] = mark[i % length];
	}
	return size;
}

static struct layer layer_make(struct store *store, int number)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {.kind = "step", .title = "power", .id_base = BASE, .id_count = 65536};
	static char content[FILE_BYTES_MAX];
	struct error err = ERROR_INIT;

	assert_ok(staging_new(store, &staging, &err), &err);
	assert_ok(io_mkdir_all(staging_fd(staging), "tree", 0755, &err), &err);
	for (int i = 0; i < FILES; i++) {
		char path[64];
		size_t size = content_make(number, i, content);
		CLEANUP(close_p) int fd = -1;

		snprintf(path, sizeof(path), "tree/%d.%d", number, i);
		fd = io_open(staging_fd(staging), path, O_WRONLY | O_CREAT, 0644, &err);
		assert_ok(fd, &err);
		assert_ok(io_write_full(fd, content, size, &err), &err);
		assert_int_equal(fchown(fd, BASE, BASE), 0);
	}
	assert_ok(layer_seal(store, staging, &layer, &err), &err);
	return layer;
}

/* ---- the one that works ---- */

enum ack_kind { ACK_SNAPSHOT, ACK_IMAGE, ACK_GOES_SNAPSHOT, ACK_GOES_IMAGE };

struct ack {
	enum ack_kind what;
	int64_t id;
};

struct worker {
	struct store *store;
	int acks;
	int number; /* of the last layer */
	int64_t image, parent; /* parent 0: the image */
	char *numbers; /* of the layers in the chain, "0,4,5" */
};

static void acknowledge(struct worker *worker, enum ack_kind what, int64_t id)
{
	struct ack ack = {.what = what, .id = id};

	assert_int_equal(write(worker->acks, &ack, sizeof(ack)), sizeof(ack));
}

static void work_image(struct worker *worker)
{
	struct layer layer = layer_make(worker->store, ++worker->number);

	worker->image = store_kit_commit(worker->store, "power", &layer.id, 1);
	acknowledge(worker, ACK_IMAGE, worker->image);
	worker->parent = 0;
	free(worker->numbers);
	worker->numbers = xasprintf("%d", worker->number);
}

static void work_snapshot(struct worker *worker)
{
	CLEANUP(snapshot_done) struct snapshot below = {0};
	struct image image = {0};
	CLEANUP(free_p) char *name = xasprintf("snap-%lld", (long long)worker->parent);
	CLEANUP(free_p) char *numbers = NULL;
	CLEANUP(free_p) char *metadata = NULL;
	CLEANUP(free_p) struct layer *layers = NULL;
	struct snapshot snapshot = {.reason = SNAPSHOT_MANUAL,
		.environment = "power",
		.image_id = worker->image,
		.parent_id = worker->parent,
		.own_count = 1};
	struct error err = ERROR_INIT;
	size_t count;

	if (worker->parent != 0) {
		assert_ok(snapshot_find(worker->store, name, &below, &err), &err);
		count = below.layer_count;
	} else {
		CLEANUP(free_p) char *img = xasprintf("img-%lld", (long long)worker->image);

		assert_ok(image_find(worker->store, img, &image, &err), &err);
		count = image.layer_count;
	}
	layers = xcalloc(count + 1, sizeof(*layers));
	memcpy(layers, worker->parent != 0 ? below.layers : image.layers, count * sizeof(*layers));
	image_done(&image);
	layers[count] = layer_make(worker->store, ++worker->number);
	numbers = xasprintf("%s,%d", worker->numbers, worker->number);
	metadata = xasprintf("{\"layers\":\"%s\"}", numbers);
	snapshot.metadata = metadata;
	snapshot.layers = layers;
	snapshot.layer_count = count + 1;
	assert_ok(snapshot_commit(worker->store, &snapshot, &err), &err);
	acknowledge(worker, ACK_SNAPSHOT, snapshot.id);
	worker->parent = snapshot.id;
	free(worker->numbers);
	worker->numbers = steal_ptr(numbers);
}

static void work_gc(struct worker *worker)
{
	const struct gc_policy policy = {.environment = NULL, .keep_last = KEEP_LAST};
	struct gc_result result;
	struct gc_plan plan;
	struct error err = ERROR_INIT;

	assert_ok(gc_plan_make(worker->store, &policy, 1, &plan, &err), &err);
	for (size_t i = 0; i < plan.count; i++) {
		if (plan.decisions[i].remove && plan.decisions[i].kind == GC_SNAPSHOT) {
			acknowledge(worker, ACK_GOES_SNAPSHOT, plan.decisions[i].id);
		} else if (plan.decisions[i].remove && plan.decisions[i].kind == GC_IMAGE) {
			acknowledge(worker, ACK_GOES_IMAGE, plan.decisions[i].id);
		}
	}
	assert_ok(gc_plan_run(worker->store, &plan, &result, &err), &err);
	gc_plan_done(&plan);
}

static void work_export_import(struct worker *worker)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	CLEANUP(snapshot_done) struct snapshot imported = {0};
	CLEANUP(import_source_close) struct import_source source = IMPORT_SOURCE_INIT;
	CLEANUP(free_p) char *name = xasprintf("snap-%lld", (long long)worker->parent);
	CLEANUP(close_p) int archive = memfd_create("archive", MFD_CLOEXEC);
	struct error err = ERROR_INIT;
	uint64_t freed;

	assert_ok(snapshot_find(worker->store, name, &snapshot, &err), &err);
	assert_ok(snapshot_export(worker->store, &snapshot, true, archive, &freed, &err), &err);
	acknowledge(worker, ACK_GOES_SNAPSHOT, worker->parent);
	assert_ok(snapshot_remove(worker->store, worker->parent, &freed, &err), &err);
	assert_int_equal(lseek(archive, 0, SEEK_SET), 0);
	assert_ok(import_source_open(archive, &source, &err), &err);
	assert_ok(snapshot_import(worker->store, &source, BASE, &imported, &err), &err);
	acknowledge(worker, ACK_SNAPSHOT, imported.id);
	worker->parent = imported.id;
}

static void on_damage(void *context, const struct layer *layer, const char *path, const char *what)
{
	(void)context;
	(void)layer;
	(void)path;
	(void)what;
}

static void work_verify(struct worker *worker)
{
	const struct verify_events events = {.damage = on_damage};
	enum verify_outcome outcome;
	struct layer *layers = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	assert_ok(verify_run_layers(worker->store, 0, &layers, &count, &err), &err);
	for (size_t i = count > 3 ? count - 3 : 0; i < count; i++) {
		assert_ok(layer_verify(worker->store, &layers[i], false, &events, &outcome, &err),
			&err);
		assert_int_not_equal(outcome, VERIFY_DAMAGED);
	}
	free(layers);
}

static _Noreturn void work(const char *folder, int acks)
{
	struct worker worker = {.acks = acks};
	struct flatten_result flattened;
	struct error err = ERROR_INIT;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	/* A failure here is not to run the parent's next tests. */
	(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
	worker.store = store_kit_open(folder);
	work_image(&worker);
	for (int i = 1;; i++) {
		work_snapshot(&worker);
		if (i % 4 == 0) {
			assert_ok(snapshot_flatten(worker.store, worker.parent, &flattened, &err),
				&err);
		}
		if (i % 5 == 0) {
			work_verify(&worker);
		}
		if (i % 6 == 0) {
			work_export_import(&worker);
		}
		if (i % 7 == 0) {
			work_gc(&worker);
		}
		if (i % 9 == 0) {
			work_image(&worker);
		}
	}
}

/* ---- what was found ---- */

struct finding {
	size_t tries, snapshots, damaged_tries;
	size_t damages; /* of the try under way */
};

static void damage(struct finding *finding, const char *what, const char *name)
{
	if (finding->damages++ < 3) {
		printf("# try %zu: %s: %s\n", finding->tries, name, what);
	}
}

static bool file_is_whole(
	struct store *store, const struct layer *layer, const char *name, int number, int file)
{
	static char wanted[FILE_BYTES_MAX], found[FILE_BYTES_MAX + 1];
	size_t size = content_make(number, file, wanted);
	char path[128];
	CLEANUP(close_p) int fd = -1;
	struct stat status;

	snprintf(path, sizeof(path), "layers/%lld/tree/%s", (long long)layer->id, name);
	fd = openat(store_fd(store), path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == BASE &&
	       read(fd, found, sizeof(found)) == (ssize_t)size && memcmp(found, wanted, size) == 0;
}

static void check_layers(struct store *store, const struct layer *layers, size_t count,
	const char *numbers, const char *who, struct finding *finding)
{
	for (const char *at = numbers; at != NULL && *at != '\0';) {
		char *rest;
		int number = (int)strtol(at, &rest, 10);

		for (int file = 0; file < FILES; file++) {
			char name[32];
			bool whole = false;

			snprintf(name, sizeof(name), "%d.%d", number, file);
			for (size_t i = 0; i < count && !whole; i++) {
				whole = file_is_whole(store, &layers[i], name, number, file);
			}
			if (!whole) {
				damage(finding, name, who);
			}
		}
		at = *rest == ',' ? rest + 1 : NULL;
	}
}

static void check_snapshot(struct store *store, int64_t id, struct finding *finding)
{
	CLEANUP(free_p) char *name = xasprintf("snap-%lld", (long long)id);
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	const char *numbers;

	finding->snapshots++;
	if (snapshot_find(store, name, &snapshot, &err) < 0) {
		damage(finding, err.message, name);
		return;
	}
	numbers = strstr(snapshot.metadata, ":\"");
	check_layers(store, snapshot.layers, snapshot.layer_count,
		numbers != NULL ? numbers + 2 : NULL, name, finding);
	for (size_t i = 0; i < snapshot.layer_count; i++) {
		const struct verify_events events = {.damage = on_damage};
		enum verify_outcome outcome = VERIFY_DAMAGED;

		err = ERROR_INIT;
		if (layer_verify(store, &snapshot.layers[i], false, &events, &outcome, &err) < 0 ||
			outcome == VERIFY_DAMAGED) {
			damage(finding, "verify says that it is damaged", name);
		}
	}
}

static bool is_going(const struct ack *acks, size_t count, enum ack_kind what, int64_t id)
{
	size_t i = 0;

	while (i < count && (acks[i].what != what || acks[i].id != id)) {
		i++;
	}
	return i < count;
}

/* `before` of the acks came before the clone was begun. */
static void check_store(const char *folder, const struct ack *acks, size_t before, size_t count,
	struct finding *finding)
{
	CLEANUP(free_p) char *path = xasprintf("%s/store", folder);
	CLEANUP(store_close_p) struct store *store = NULL;
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	struct snapshot *all = NULL;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	size_t shown = 0;

	if (store_open(path, STORE_CREATE, &store, &err) < 0 ||
		store_recover(store, &sweep, &err) < 0 ||
		snapshot_list(store, &filter, &all, &shown, &err) < 0) {
		damage(finding, err.message, "the store");
		return;
	}
	if (sweep.missing > 0 || sweep.stuck > 0 || store_kit_count(store, "staging") > 0) {
		damage(finding, "is not in order after recovery", "the store");
	}
	for (size_t i = 0; i < shown; i++) {
		check_snapshot(store, all[i].id, finding);
	}
	snapshots_free(all, shown);
	for (size_t i = 0; i < before; i++) {
		CLEANUP(free_p)
		char *name = xasprintf("%s-%lld", acks[i].what == ACK_IMAGE ? "img" : "snap",
			(long long)acks[i].id);
		struct image image = {0};

		err = ERROR_INIT;
		if (acks[i].what == ACK_SNAPSHOT &&
			!is_going(acks, count, ACK_GOES_SNAPSHOT, acks[i].id)) {
			check_snapshot(store, acks[i].id, finding);
		} else if (acks[i].what == ACK_IMAGE &&
			   !is_going(acks, count, ACK_GOES_IMAGE, acks[i].id) &&
			   image_find(store, name, &image, &err) < 0) {
			damage(finding, err.message, name);
		}
		image_done(&image);
	}
}

/* ---- devices ---- */

struct place {
	char *folder;
	const char *type;
	struct ack *acks;
	size_t ack_count;
};

static char *in_place(const struct place *place, const char *name)
{
	return xasprintf("%s/%s", place->folder, name);
}

static void run(const char *command)
{
	char *argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t)command, NULL};
	struct error err = ERROR_INIT;
	int code = 0;

	assert_ok(process_run(argv, NULL, &code, &err), &err);
	if (code != 0) {
		fail_msg("%s: exit code %d", command, code);
	}
}

static bool mount_file(const char *file, const char *at, const char *type, const char *options)
{
	CLEANUP(loop_device_done) struct loop_device device = LOOP_DEVICE_INIT;
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, file, O_RDWR, 0, &err);

	assert_ok(fd, &err);
	assert_ok(loop_device_attach(fd, &device, &err), &err);
	assert_true(mkdir(at, 0755) == 0 || errno == EEXIST);
	return mount(device.path, at, type, 0, options) == 0;
}

static int place_open(void **state, const char *type)
{
	struct place *place = xcalloc(1, sizeof(*place));
	CLEANUP(free_p) char *outer = NULL;
	CLEANUP(free_p) char *at = NULL;
	CLEANUP(free_p) char *command = NULL;
	CLEANUP(free_p) char *more = NULL;

	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	*state = place;
	place->folder = temp_folder();
	place->type = type;
	place->acks = xcalloc(ACKS_MAX, sizeof(*place->acks));
	outer = in_place(place, "outer");
	at = in_place(place, "disks");
	command = xasprintf("PATH=$PATH:/usr/sbin; truncate -s 4G %s && mkfs.xfs -q -K -s "
			    "size=4096 -m reflink=1 %s",
		outer, outer);
	run(command);
	assert_true(mount_file(outer, at, "xfs", "discard"));
	more = xasprintf("PATH=$PATH:/usr/sbin; cd %s; truncate -s 600M live && %s live", at,
		streq(type, "xfs") ? "mkfs.xfs -q -K -s size=4096"
				   : "mkfs.ext4 -q -F -E nodiscard");
	run(more);
	return 0;
}

static int open_ext4(void **state)
{
	return place_open(state, "ext4");
}
static int open_xfs(void **state)
{
	return place_open(state, "xfs");
}

static int place_close(void **state)
{
	struct place *place = *state;
	CLEANUP(free_p) char *disks = in_place(place, "disks");

	(void)umount2(disks, MNT_DETACH);
	temp_remove(place->folder);
	free(place->acks);
	free(place);
	return 0;
}

static void drain(struct place *place, int fd)
{
	ssize_t got;

	while (place->ack_count < ACKS_MAX &&
		(got = read(fd, &place->acks[place->ack_count], sizeof(struct ack))) > 0) {
		assert_int_equal(got, sizeof(struct ack));
		place->ack_count++;
	}
}

static void clone_disk(const struct place *place, const char *from, const char *to)
{
	CLEANUP(free_p) char *source = in_place(place, from);
	CLEANUP(free_p) char *target = in_place(place, to);
	CLEANUP(close_p) int from_fd = open(source, O_RDONLY | O_CLOEXEC);
	CLEANUP(close_p) int to_fd = open(target, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(from_fd >= 0 && to_fd >= 0);
	assert_int_equal(ioctl(to_fd, FICLONE, from_fd), 0);
}

static void try_once(struct place *place, int acks_fd, struct finding *finding)
{
	CLEANUP(free_p) char *file = in_place(place, "disks/clone");
	CLEANUP(free_p) char *at = in_place(place, "clone");
	size_t before;

	usleep(20000 + (useconds_t)(clock_mono_us() % 100000));
	drain(place, acks_fd);
	before = place->ack_count;
	clone_disk(place, "disks/live", "disks/clone");
	drain(place, acks_fd);
	finding->tries++;
	finding->damages = 0;
	if (!mount_file(file, at, place->type, streq(place->type, "xfs") ? "nouuid" : "")) {
		damage(finding, strerror(errno), "mount");
	} else {
		check_store(at, place->acks, before, place->ack_count, finding);
		assert_true(temp_unmount(at));
	}
	finding->damaged_tries += finding->damages > 0 ? 1 : 0;
	assert_int_equal(unlink(file), 0);
}

static struct finding lose_power(struct place *place, size_t tries)
{
	CLEANUP(free_p) char *file = in_place(place, "disks/live");
	CLEANUP(free_p) char *at = in_place(place, "live");
	struct finding finding = {0};
	int ends[2], code;
	pid_t pid;

	assert_true(mount_file(file, at, place->type, ""));
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		work(at, ends[1]);
	}
	close(ends[1]);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	while (place->ack_count < 3) {
		assert_int_equal(waitpid(pid, &code, WNOHANG), 0);
		usleep(10000);
		drain(place, ends[0]);
	}
	for (; finding.tries < tries && (!lying || finding.damaged_tries == 0);
		assert_int_equal(waitpid(pid, &code, WNOHANG), 0)) {
		try_once(place, ends[0], &finding);
	}
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, &code, 0);
	close(ends[0]);
	assert_true(temp_unmount(at));
	printf("# %s%s: %zu tries, %zu with damage, %zu snapshots looked at, %zu "
	       "acknowledgements\n",
		place->type, lying ? " without syncfs" : "", finding.tries, finding.damaged_tries,
		finding.snapshots, place->ack_count);
	return finding;
}

static void test_nothing_is_lost(void **state)
{
	struct finding finding;

	lying = false;
	finding = lose_power(*state, getenv("HOB_TEST_LONG") != NULL ? TRIES_LONG : TRIES);
	assert_int_equal(finding.damaged_tries, 0);
	assert_true(finding.snapshots >= finding.tries);
}

/* The proof that the test above can fail. */
static void test_without_syncfs_it_is(void **state)
{
	struct finding finding;

	lying = true;
	finding = lose_power(*state, TRIES_LYING);
	lying = false;
	assert_true(finding.damaged_tries > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_is_lost, open_ext4, place_close),
		cmocka_unit_test_setup_teardown(test_nothing_is_lost, open_xfs, place_close),
		cmocka_unit_test_setup_teardown(test_without_syncfs_it_is, open_ext4, place_close),
		cmocka_unit_test_setup_teardown(test_without_syncfs_it_is, open_xfs, place_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
