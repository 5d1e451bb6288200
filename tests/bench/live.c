/*
 * Live snapshots of a running sandbox with many changed files, beside what copies the same folder
 * without stopping anybody: `live [files [bytes each [rounds]]]` prints JSON, medians, for a store
 * below $TMPDIR. The sandbox goes on writing to a few of the files all the time. As root.
 */
#include "base/io.h"
#include "base/process.h"
#include "tests/lib/bench_kit.h"
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define ROUNDS_DEFAULT 5
#define FILES_DEFAULT 10000
#define BYTES_DEFAULT 100000
#define FOLDERS 100

static long rounds = ROUNDS_DEFAULT;

static void files_make(struct kit_box *box, long files, long bytes)
{
	for (int i = 0; i < FOLDERS; i++) {
		CLEANUP(free_p)
		char *script = xasprintf("mkdir /workspace/d%d && cd /workspace/d%d && "
					 "head -c %ld /dev/urandom | split -a 4 -d -b %ld - ''",
			i, i, files / FOLDERS * bytes, bytes);

		free(box_shell(box, script, NULL));
	}
	free(box_shell(box,
		"sync; cd /workspace; (while :; do for i in 1 2 3 4 5 6 7 8; do "
		"echo a line >> d$i/0000; done; sleep 0.02; done) > /dev/null 2>&1 &",
		NULL));
}

static double command_us(const char *folder, const char *command)
{
	CLEANUP(free_p)
	char *script = xasprintf("cd %s && %s && sync -f %s", folder, command, folder);
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, script, NULL};
	double start = now_us();
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, NULL, &code, &err), &err);
	assert_true(code == 0 || code == 1); /* tar's word for a file that changed under way */
	return now_us() - start;
}

static void removed(const char *store, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", store, name);
	struct error err = ERROR_INIT;

	assert_ok(io_remove_tree(AT_FDCWD, path, &err), &err);
}

/* `again`: over the one before. */
static void snapshots_measure(
	struct sandbox_kit *kit, struct kit_box *box, bool again, const char *name)
{
	CLEANUP(free_p) char *staging = xasprintf("%s/staging/bench", kit->config.store);
	struct samples pause = {0}, total = {0};

	for (int i = 0; i < rounds; i++) {
		assert_int_equal(mkdir(staging, 0700), 0);
		assert_ok(
			kit_snapshot(kit, box->id, "bench", again ? (int64_t)kit->layer_count : 0),
			&kit->err);
		samples_add(&pause, (double)kit->copied.pause_us);
		samples_add(&total, (double)kit->copied.total_us);
		if (again) {
			CLEANUP(free_p) char *tree = xasprintf("%s/tree", staging);
			CLEANUP(free_p)
			char *to = sandbox_kit_layer(
				kit, launcher_slot_base(kit->launcher, box->slot), ID_RANGE);

			assert_int_equal(rmdir(to), 0);
			assert_int_equal(rename(tree, to), 0);
		}
		removed(kit->config.store, "staging/bench");
	}
	printf("\"%s\": {\"files\": %llu, \"bytes\": %llu, \"copied\": %llu, \"linked\": %llu, "
	       "\"cloned\": %llu, \"passes\": %u, \"pause_us\": %.0f, \"pause_max_us\": %.0f, "
	       "\"total_us\": %.0f}, ",
		name, (unsigned long long)kit->copied.files, (unsigned long long)kit->copied.bytes,
		(unsigned long long)kit->copied.copied, (unsigned long long)kit->copied.linked,
		(unsigned long long)kit->copied.cloned, kit->copied.passes, samples_at(&pause, 0.5),
		samples_at(&pause, 1), samples_at(&total, 0.5));
	samples_done(&pause);
	samples_done(&total);
}

static void rivals_measure(struct sandbox_kit *kit, const struct kit_box *box)
{
	CLEANUP(free_p)
	char *copy = xasprintf("cp -a sandboxes/%s/upper copied", box->id);
	CLEANUP(free_p)
	char *archive = xasprintf("tar -C sandboxes/%s/upper -cf copied . 2> /dev/null", box->id);
	struct samples copies = {0}, archives = {0};

	for (int i = 0; i < rounds; i++) {
		samples_add(&copies, command_us(kit->config.store, copy));
		removed(kit->config.store, "copied");
		samples_add(&archives, command_us(kit->config.store, archive));
		removed(kit->config.store, "copied");
	}
	printf("\"cp_us\": %.0f, \"tar_us\": %.0f}\n", samples_at(&copies, 0.5),
		samples_at(&archives, 0.5));
	samples_done(&copies);
	samples_done(&archives);
}

int main(int argc, char **argv)
{
	long files = argc > 1 ? strtol(argv[1], NULL, 10) : FILES_DEFAULT;
	long bytes = argc > 2 ? strtol(argv[2], NULL, 10) : BYTES_DEFAULT;
	struct sandbox_kit *kit;
	struct kit_box box;

	if (geteuid() != 0) {
		(void)fprintf(stderr, "live: needs root\n");
		return 1;
	}
	rounds = argc > 3 ? strtol(argv[3], NULL, 10) : ROUNDS_DEFAULT;
	kit = sandbox_kit_new(1);
	box_open(kit, &box, "sb-bench", 3);
	files_make(&box, files, bytes);
	printf("{");
	snapshots_measure(kit, &box, false, "first");
	snapshots_measure(kit, &box, true, "again");
	rivals_measure(kit, &box);
	assert_int_equal(box_close(&box), 0);
	sandbox_kit_free(kit);
	return 0;
}
