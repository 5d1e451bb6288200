/* Files through a real hob-init: what it moves, what it refuses, and what is left when it is cut
 * off. */
#include "tests/lib/init_kit.h"
#include "tests/lib/test.h"

#include "base/io.h"
#include "base/loop.h"
#include "pool/sandbox/init_protocol.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>

#define LARGE (64 * 1024 * 1024)

/* One request and its answers. */
struct job {
	struct init_kit *kit;
	struct init_file_handle *file;
	bool informed, done;
	bool hold; /* do not consume */
	struct file_info info;
	struct buffer data; /* read: bytes; list: "name type size target\n" in any order */
	size_t room;
	uint64_t bytes;
	struct error error;
};

static void on_info(void *context, const struct file_info *info)
{
	struct job *job = context;

	assert_false(job->informed);
	job->informed = true;
	job->info = *info;
	loop_stop(job->kit->loop);
}

static void on_entry(void *context, const struct file_info *entry)
{
	struct job *job = context;

	buffer_addf(&job->data, "%s %o %llu %s\n", entry->name, entry->mode,
		(unsigned long long)(S_ISREG(entry->mode) ? entry->size : 0),
		entry->target != NULL ? entry->target : "-");
}

static void on_data(void *context, const void *data, size_t length)
{
	struct job *job = context;

	assert_true(job->informed);
	buffer_add(&job->data, data, length);
	if (!job->hold) {
		init_file_consumed(job->file, length);
	}
	loop_stop(job->kit->loop);
}

static void on_room(void *context, size_t bytes)
{
	struct job *job = context;

	job->room += bytes;
	loop_stop(job->kit->loop);
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct job *job = context;

	assert_false(job->done);
	job->done = true;
	job->bytes = bytes;
	if (err != NULL) {
		job->error = *err;
	}
	loop_stop(job->kit->loop);
}

static const struct file_events events = {
	.info = on_info, .entry = on_entry, .data = on_data, .room = on_room, .done = on_done};

static void job_init(struct job *job, struct init_kit *kit)
{
	*job = (struct job){.kit = kit, .hold = job->hold};
	buffer_init(&job->data, 0);
}

static void job_finish(struct job *job, enum error_kind kind, int sys)
{
	init_kit_until(job->kit, &job->done);
	if (job->error.kind != kind || job->error.sys != sys) {
		fail_msg("%s: kind %d, errno %d; wanted %d, %d", job->error.message,
			job->error.kind, job->error.sys, kind, sys);
	}
}

/* Reads and returns what came; the caller frees it. */
static char *read_whole(struct init_kit *kit, const char *path, enum error_kind kind, int sys)
{
	struct job job = {.hold = false};
	struct error err = ERROR_INIT;

	job_init(&job, kit);
	assert_ok(init_file_read(kit->client, path, 1000, &events, &job, &job.file, &err), &err);
	job_finish(&job, kind, sys);
	return buffer_steal(&job.data);
}

static void write_part(struct job *job, const char *data, size_t length)
{
	struct error err = ERROR_INIT;

	while (length > 0 && !job->done) {
		size_t size = length < job->room ? length : job->room;

		if (size == 0) {
			init_kit_pause(job->kit, 1);
			continue;
		}
		assert_ok(init_file_send(job->file, data, size, &err), &err);
		job->room -= size;
		data += size;
		length -= size;
	}
}

static void write_start(struct job *job, struct init_kit *kit, const char *path, uint64_t bytes_max)
{
	struct error err = ERROR_INIT;

	job_init(job, kit);
	assert_ok(
		init_file_write(kit->client, path, 0640, bytes_max, &events, job, &job->file, &err),
		&err);
}

static void write_whole(
	struct init_kit *kit, const char *path, const char *text, enum error_kind kind, int sys)
{
	struct job job = {.hold = false};

	write_start(&job, kit, path, 1000);
	write_part(&job, text, strlen(text));
	if (!job.done) {
		init_file_send_end(job.file);
	}
	job_finish(&job, kind, sys);
	if (kind == ERROR_NONE) {
		assert_int_equal(job.bytes, strlen(text));
	}
	buffer_done(&job.data);
}

static char *path_in(const struct init_kit *kit, const char *name)
{
	return xasprintf("%s/%s", kit->folder, name);
}

/* How many names of unfinished files the folder has. */
static int temporaries(const struct init_kit *kit)
{
	DIR *folder = opendir(kit->folder);
	struct dirent *entry;
	int count = 0;

	assert_non_null(folder);
	while ((entry = readdir(folder)) != NULL) {
		count += str_starts(entry->d_name, ".hob-") ? 1 : 0;
	}
	closedir(folder);
	return count;
}

static void test_write_and_read(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = path_in(kit, "a/b/c.txt");
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *empty = path_in(kit, "empty");
	CLEANUP(free_p) char *nothing = NULL;
	struct stat st;

	write_whole(kit, path, "hello", ERROR_NONE, 0);
	write_whole(kit, path, "hello again", ERROR_NONE, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	text = read_whole(kit, path, ERROR_NONE, 0);
	assert_string_equal(text, "hello again");
	write_whole(kit, empty, "", ERROR_NONE, 0);
	nothing = read_whole(kit, empty, ERROR_NONE, 0);
	assert_string_equal(nothing, "");
	assert_int_equal(temporaries(kit), 0);
}

static void test_replacing_keeps_the_owner(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = path_in(kit, "owned");
	struct stat st;

	if (geteuid() != 0) {
		skip();
	}
	temp_write(kit->folder, "owned", "old");
	assert_int_equal(chown(path, 1234, 4321), 0);
	write_whole(kit, path, "new", ERROR_NONE, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 4321);
}

static void test_links_lead_on(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *link = path_in(kit, "link");
	CLEANUP(free_p) char *loop = path_in(kit, "loop");
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *again = NULL;

	assert_int_equal(symlink("real/../target", link), 0);
	temp_write(kit->folder, "target", "old");
	write_whole(kit, link, "x", ERROR_NOT_FOUND, ENOENT);
	unlink(link);
	assert_int_equal(symlink("target", link), 0);
	write_whole(kit, link, "through", ERROR_NONE, 0);
	text = temp_read(kit->folder, "target");
	assert_string_equal(text, "through");
	again = read_whole(kit, link, ERROR_NONE, 0);
	assert_string_equal(again, "through");
	assert_int_equal(symlink("loop", loop), 0);
	write_whole(kit, loop, "x", ERROR_INVALID, ELOOP);
}

static void test_refuses_what_is_no_file(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *fifo = path_in(kit, "fifo");
	CLEANUP(free_p) char *to_proc = path_in(kit, "to-proc");
	struct job job = {.hold = false};
	struct error err = ERROR_INIT;

	assert_int_equal(mkfifo(fifo, 0644), 0);
	free(read_whole(kit, fifo, ERROR_INVALID, EINVAL));
	write_whole(kit, fifo, "x", ERROR_INVALID, EINVAL);
	free(read_whole(kit, kit->folder, ERROR_INVALID, EISDIR));
	write_whole(kit, kit->folder, "x", ERROR_INVALID, EISDIR);
	free(read_whole(kit, "/dev/null", ERROR_INVALID, EINVAL));
	write_whole(kit, "/proc/self/oom_score_adj", "0", ERROR_DENIED, EACCES);
	/* Magic links would reach what hob-init has open. */
	free(read_whole(kit, "/proc/self/exe", ERROR_INVALID, ELOOP));
	assert_int_equal(symlink("/proc/self/fd/3", to_proc), 0);
	free(read_whole(kit, to_proc, ERROR_INVALID, ELOOP));
	job_init(&job, kit);
	assert_kind(init_file_read(kit->client, "relative", 1, &events, &job, &job.file, &err),
		&err, ERROR_INVALID);
	assert_ok(init_file_list(kit->client, fifo, &events, &job, &job.file, &err), &err);
	job_finish(&job, ERROR_NOT_FOUND, ENOTDIR);
}

static void test_size_limits(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = path_in(kit, "limit");
	CLEANUP(free_p) char *text = xcalloc(1, 1002);

	memset(text, 'x', 1001);
	write_whole(kit, path, text, ERROR_LIMIT, EFBIG);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(temporaries(kit), 0);
	temp_write(kit->folder, "limit", text);
	free(read_whole(kit, path, ERROR_LIMIT, EFBIG));
}

static void test_cut_off_writes_leave_nothing(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = path_in(kit, "cut");
	struct job job = {.hold = false};

	write_start(&job, kit, path, 1000);
	write_part(&job, "half", 4);
	init_kit_pause(kit, 50);
	assert_int_equal(temporaries(kit), 1);
	init_file_cancel(job.file);
	init_kit_pause(kit, 50);
	assert_int_equal(temporaries(kit), 0);
	write_start(&job, kit, path, 1000);
	write_part(&job, "half", 4);
	init_kit_reconnect(kit);
	assert_int_equal(temporaries(kit), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_false(job.done);
}

static void test_large_files_leave_room_for_others(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = path_in(kit, "large");
	CLEANUP(free_p) char *data = xmalloc(LARGE);
	struct job job = {.hold = true};
	struct kit_run run = {.hold = false};
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < LARGE; i++) {
		data[i] = (char)(i * 7 + i / 4096);
	}
	write_start(&job, kit, path, LARGE);
	write_part(&job, data, LARGE);
	init_file_send_end(job.file);
	job_finish(&job, ERROR_NONE, 0);
	job_init(&job, kit);
	assert_ok(init_file_read(kit->client, path, LARGE, &events, &job, &job.file, &err), &err);
	init_kit_pause(kit, 100);
	/* It waits for credit, and commands go on. */
	assert_int_equal(job.data.length, INIT_WINDOW_DEFAULT);
	kit_run_shell(kit, &run, "echo meanwhile");
	assert_string_equal(buffer_text(&run.out), "meanwhile\n");
	kit_run_done(&run);
	job.hold = false;
	init_file_consumed(job.file, job.data.length);
	job_finish(&job, ERROR_NONE, 0);
	assert_int_equal(job.info.size, LARGE);
	assert_int_equal(job.bytes, LARGE);
	assert_int_equal(job.data.length, LARGE);
	assert_memory_equal(job.data.data, data, LARGE);
	buffer_done(&job.data);
}

static void test_list(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *folder = path_in(kit, "folder");
	struct job job = {.hold = false};
	struct error err = ERROR_INIT;
	size_t lines = 0;

	assert_int_equal(mkdir(folder, 0755), 0);
	temp_write(folder, "file", "12345");
	for (int i = 0; i < 3000; i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/link-%d", folder, i);

		assert_int_equal(symlink("some where", path), 0);
	}
	job_init(&job, kit);
	assert_ok(init_file_list(kit->client, folder, &events, &job, &job.file, &err), &err);
	job_finish(&job, ERROR_NONE, 0);
	assert_true(job.informed && S_ISDIR(job.info.mode));
	assert_int_equal(job.bytes, 3001);
	assert_contains(buffer_text(&job.data), "file 100644 5 -\n");
	assert_contains(buffer_text(&job.data), "link-2999 120777 0 some where\n");
	for (size_t i = 0; i < job.data.length; i++) {
		lines += job.data.data[i] == '\n' ? 1 : 0;
	}
	assert_int_equal(lines, 3001);
	buffer_done(&job.data);
}

static uint64_t remove_path(
	struct init_kit *kit, const char *path, bool recursive, enum error_kind kind, int sys)
{
	struct job job = {.hold = false};
	struct error err = ERROR_INIT;

	job_init(&job, kit);
	assert_ok(init_file_remove(kit->client, path, recursive, &events, &job, &job.file, &err),
		&err);
	job_finish(&job, kind, sys);
	return job.bytes;
}

/* A folder with `depth` folders in each other, each with a file and a link that leads away. */
static void tree_make(const char *path, int depth, const char *outside)
{
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = -1;

	assert_int_equal(mkdir(path, 0755), 0);
	fd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &err);
	assert_ok(fd, &err);
	for (int i = 0; i < depth; i++) {
		int next;

		assert_int_equal(symlinkat(outside, fd, "out"), 0);
		assert_int_equal(mknodat(fd, "file", S_IFREG | 0600, 0), 0);
		assert_int_equal(mkdirat(fd, "zz", 0755), 0);
		assert_int_equal(mkdirat(fd, "aa", 0755), 0);
		next = openat(fd, i % 2 == 0 ? "aa" : "zz", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
}

static void test_remove(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *tree = path_in(kit, "tree");
	CLEANUP(free_p) char *wide = path_in(kit, "wide");
	CLEANUP(free_p) char *keep = path_in(kit, "keep");
	CLEANUP(free_p) char *link = path_in(kit, "keep-link");

	assert_int_equal(mkdir(keep, 0755), 0);
	temp_write(keep, "file", "kept");
	assert_int_equal(symlink(keep, link), 0);
	tree_make(tree, 600, keep);
	assert_int_equal(mkdir(wide, 0755), 0);
	for (int i = 0; i < 5000; i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/a-rather-long-name-%d", wide, i);

		assert_int_equal(
			i % 5 == 0 ? mkdir(path, 0755) : mknod(path, S_IFREG | 0600, 0), 0);
	}
	(void)remove_path(kit, "/", true, ERROR_INVALID, EISDIR);
	(void)remove_path(kit, "/no-such", true, ERROR_NOT_FOUND, ENOENT);
	(void)remove_path(kit, tree, false, ERROR_CONFLICT, ENOTEMPTY);
	assert_int_equal(remove_path(kit, tree, true, ERROR_NONE, 0), 600 * 4 + 1);
	assert_int_equal(access(tree, F_OK), -1);
	assert_int_equal(remove_path(kit, wide, true, ERROR_NONE, 0), 5001);
	assert_int_equal(access(wide, F_OK), -1);
	assert_int_equal(remove_path(kit, link, true, ERROR_NONE, 0), 1);
	free(temp_read(keep, "file"));
}

/* A command keeps swapping files for fifos, links and folders while init works on them. */
static void test_hostile_folder(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p)
	char *script = xasprintf(
		"cd %s; mkdir h; i=0; while [ $i -lt 400 ]; do rm -rf h/x; echo 1 > h/x; rm -f "
		"h/x; "
		"mkfifo h/x; rm -f h/x; ln -s /proc/self/fd/0 h/x; rm h/x; mkdir -p h/x/y/z; "
		"mv h/x h/w$i 2>/dev/null; i=$((i+1)); done; rm -rf h; echo end",
		kit->folder);
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, script, NULL};
	struct exec_spec spec = {.argv = argv};
	CLEANUP(free_p) char *x = path_in(kit, "h/x");
	CLEANUP(free_p) char *h = path_in(kit, "h");
	struct kit_run run = {.hold = false};

	kit_run_start(kit, &run, &spec);
	while (!run.ended) {
		struct job jobs[4] = {{.hold = false}};
		struct error err = ERROR_INIT;

		for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
			job_init(&jobs[i], kit);
		}
		assert_ok(
			init_file_read(kit->client, x, 100, &events, &jobs[0], &jobs[0].file, &err),
			&err);
		assert_ok(init_file_list(kit->client, h, &events, &jobs[1], &jobs[1].file, &err),
			&err);
		assert_ok(init_file_remove(
				  kit->client, x, true, &events, &jobs[2], &jobs[2].file, &err),
			&err);
		assert_ok(init_file_write(
				  kit->client, x, 0600, 10, &events, &jobs[3], &jobs[3].file, &err),
			&err);
		init_file_send_end(jobs[3].file);
		for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
			init_kit_until(kit, &jobs[i].done);
			buffer_done(&jobs[i].data);
		}
	}
	assert_string_equal(buffer_text(&run.out), "end\n");
	kit_run_done(&run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, init_kit_setup, init_kit_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_and_read),
		TEST(test_replacing_keeps_the_owner),
		TEST(test_links_lead_on),
		TEST(test_refuses_what_is_no_file),
		TEST(test_size_limits),
		TEST(test_cut_off_writes_leave_nothing),
		TEST(test_large_files_leave_room_for_others),
		TEST(test_list),
		TEST(test_remove),
		TEST(test_hostile_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
