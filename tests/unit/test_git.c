/* Fetching and checking out: by path, file://, git:// and http://, what must be refused, what must
 * heal. The workspaces are judged by the `git` program. */
#include "tests/lib/git_kit.h"
#include "tests/lib/test.h"

#include "builder/git/git.h"
#include "builder/machine.h"
#include "builder/report.h"

#include "base/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define STALL_MS 20000

struct bench {
	char *folder;
	char *repository; /* folder/project */
	char *mirrors;
	struct report *report;
	struct machine machine;
	struct git_source source;
	struct git_found found;
	struct error err;
};

static int setup(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));

	git_kit_setup();
	bench->folder = temp_folder();
	bench->repository = git_kit_repository(bench->folder, "project");
	bench->mirrors = xasprintf("%s/mirrors", bench->folder);
	assert_int_equal(mkdir(bench->mirrors, 0700), 0);
	bench->report = report_new(REPORT_QUIET);
	assert_ok(machine_init(&bench->machine, NULL, bench->report, &bench->err), &bench->err);
	bench->source = (struct git_source){.url = bench->repository,
		.local = bench->repository,
		.mirrors = bench->mirrors,
		.stall_ms = STALL_MS};
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	machine_done(&bench->machine);
	report_free(bench->report);
	temp_remove(bench->folder);
	free(bench->repository);
	free(bench->mirrors);
	free(bench);
	return 0;
}

static void fetch(struct bench *bench)
{
	assert_ok(git_fetch(&bench->machine, &bench->source, &bench->found, &bench->err),
		&bench->err);
}

static void fetch_fails(struct bench *bench, enum error_kind kind)
{
	assert_kind(git_fetch(&bench->machine, &bench->source, &bench->found, &bench->err),
		&bench->err, kind);
}

/* Checks out what was found into folder/tree<n>/workspace and returns that path. */
static char *check_out(struct bench *bench)
{
	static int count;
	CLEANUP(free_p) char *tree = xasprintf("%s/tree%d", bench->folder, ++count);
	CLEANUP(close_p) int fd = -1;
	struct git_checked_out counts = {0};
	struct git_place place;

	assert_int_equal(mkdir(tree, 0755), 0);
	fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	place = (struct git_place){.tree_fd = fd, .path = "/workspace", .previous_fd = -1};
	assert_ok(git_checkout(&bench->machine, &bench->source, &bench->found, &place, &counts,
			  &bench->err),
		&bench->err);
	return xasprintf("%s/workspace", tree);
}

static void assert_git(
	const char *folder, const char *command, const char *argument, const char *wanted)
{
	CLEANUP(free_p) char *output = git_kit_run(folder, command, argument, NULL);

	assert_string_equal(output, wanted);
}

static void assert_workspace(struct bench *bench, const char *workspace)
{
	CLEANUP(free_p) char *head = git_kit_run(bench->repository, "rev-parse", "HEAD", NULL);
	CLEANUP(free_p) char *readme = temp_read(workspace, "README");
	CLEANUP(free_p) char *run = xasprintf("%s/bin/run", workspace);
	CLEANUP(free_p) char *link = xasprintf("%s/link", workspace);
	char target[64] = "";
	struct stat seen;

	assert_non_null(readme);
	assert_string_equal(bench->found.commit, head);
	assert_git(workspace, "rev-parse", "HEAD", head);
	assert_git(workspace, "status", "--porcelain", "");
	assert_git(workspace, "fsck", "--no-dangling", "");
	assert_int_equal(stat(run, &seen), 0);
	assert_int_equal(seen.st_mode & 07777, 0755);
	assert_int_equal(readlink(link, target, sizeof(target) - 1), 6);
	assert_string_equal(target, "README");
}

static void test_urls(void **state)
{
	CLEANUP(free_p) char *plain = git_url_path("/srv/a b");
	CLEANUP(free_p) char *file = git_url_path("file:///srv/a%20b");
	CLEANUP(free_p) char *host = git_url_path("file://localhost/srv");
	CLEANUP(free_p) char *hidden = git_url_public("https://me:secret@example.com/x.git");
	CLEANUP(free_p) char *user = git_url_public("https://me@example.com/a:b@c");

	(void)state;
	assert_string_equal(plain, "/srv/a b");
	assert_string_equal(file, "/srv/a b");
	assert_string_equal(host, "/srv");
	assert_null(git_url_path("https://example.com/x.git"));
	assert_null(git_url_path("file://elsewhere/srv"));
	assert_string_equal(hidden, "https://me@example.com/x.git");
	assert_string_equal(user, "https://me@example.com/a:b@c");
}

static void test_workspace_is_ordinary(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p)
	char *workspace = NULL, *url = NULL, *branch = NULL, *upstream = NULL, *commit = NULL;

	fetch(bench);
	assert_true(bench->found.fetched);
	assert_true(bench->found.is_head);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
	url = git_kit_run(workspace, "remote", "get-url", "origin", NULL);
	assert_string_equal(url, bench->repository);
	branch = git_kit_run(workspace, "symbolic-ref", "HEAD", NULL);
	assert_string_equal(branch, "refs/heads/main");
	upstream = git_kit_run(workspace, "rev-parse", "--abbrev-ref", "HEAD@{upstream}", NULL);
	assert_string_equal(upstream, "origin/main");
	assert_ok(git_mirror_drop(&bench->source, &bench->err), &bench->err);
	commit = git_kit_commit(workspace, "new", "text\n");
	assert_git(workspace, "status", "--porcelain", "");
	assert_git(workspace, "fsck", "--no-dangling", "");
}

/* What git would read again shows in `git ls-files --debug`; here the times must simply agree. */
static void test_index_matches(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *workspace = NULL, *when = NULL, *path = NULL, *index = NULL;
	struct stat seen, index_seen;

	fetch(bench);
	workspace = check_out(bench);
	when = git_kit_run(workspace, "log", "-1", "--format=%ct", NULL);
	path = xasprintf("%s/README", workspace);
	index = xasprintf("%s/.git/index", workspace);
	assert_int_equal(stat(path, &seen), 0);
	assert_int_equal(seen.st_mtime, strtoll(when, NULL, 10));
	assert_int_equal(stat(index, &index_seen), 0);
	assert_true(index_seen.st_mtime > seen.st_mtime);
	/* Same size, same time, other content: only a file that is read again would be noticed. */
	{
		const struct timespec times[2] = {seen.st_atim, seen.st_mtim};

		temp_write(workspace, "README", "HELLO\n");
		assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
		assert_git(workspace, "status", "--porcelain", "");
	}
}

static void test_unchanged_then_incremental(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *workspace = NULL;

	fetch(bench);
	fetch(bench);
	assert_false(bench->found.fetched);
	free(git_kit_commit(bench->repository, "second", "2\n"));
	fetch(bench);
	assert_true(bench->found.fetched);
	assert_int_equal(bench->found.objects, 3);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void test_history_rewritten(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *workspace = NULL;

	free(git_kit_commit(bench->repository, "second", "2\n"));
	fetch(bench);
	free(git_kit_run(bench->repository, "reset", "-q", "--hard", "HEAD~1", NULL));
	free(git_kit_commit(bench->repository, "third", "3\n"));
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void test_packed_and_loose(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *workspace = NULL;

	free(git_kit_commit(bench->repository, "second", "2\n"));
	free(git_kit_run(bench->repository, "repack", "-q", "-a", "-d", NULL));
	free(git_kit_commit(bench->repository, "third", "3\n"));
	fetch(bench);
	assert_true(bench->found.bytes > 0);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void test_alternates(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *workspace = NULL;
	CLEANUP(free_p) char *borrower = xasprintf("%s/borrower", bench->folder);

	free(git_kit_run(bench->repository, "repack", "-q", "-a", "-d", NULL));
	free(git_kit_run(
		bench->folder, "clone", "-q", "--shared", bench->repository, borrower, NULL));
	free(git_kit_commit(borrower, "own", "own\n"));
	free(git_kit_run(borrower, "repack", "-q", "-a", "-d", "-l", NULL));
	free(bench->repository);
	bench->repository = xstrdup(borrower);
	bench->source.url = bench->source.local = bench->repository;
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void test_by_file_url(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *url = xasprintf("file://%s", bench->repository);
	CLEANUP(free_p) char *local = git_url_path(url);
	CLEANUP(free_p) char *workspace = NULL;

	bench->source.url = url;
	bench->source.local = local;
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void from_server(struct bench *bench, const char *url)
{
	CLEANUP(free_p) char *first = NULL, *second = NULL;

	bench->source.url = url;
	bench->source.local = NULL;
	fetch(bench);
	assert_true(bench->found.fetched);
	assert_true(bench->found.is_head);
	first = check_out(bench);
	assert_workspace(bench, first);
	fetch(bench);
	assert_false(bench->found.fetched);
	free(git_kit_commit(bench->repository, "second", "2\n"));
	fetch(bench);
	assert_true(bench->found.fetched);
	second = check_out(bench);
	assert_workspace(bench, second);
}

static void test_by_daemon(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_daemon(bench->folder);
	CLEANUP(free_p) char *url = xasprintf("git://127.0.0.1:%d/project", server.port);

	from_server(bench, url);
}

static void test_by_http(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", server.port);

	from_server(bench, url);
}

static void test_tag_and_commit(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", server.port);
	CLEANUP(free_p) char *first = git_kit_run(bench->repository, "rev-parse", "HEAD", NULL);
	CLEANUP(free_p) char *tagged = NULL, *detached = NULL;

	free(git_kit_run(bench->repository, "tag", "-a", "-m", "one", "v1.0", NULL));
	free(git_kit_commit(bench->repository, "second", "2\n"));
	for (int remote = 0; remote < 2; remote++) {
		if (remote == 1) {
			bench->source.url = url;
			bench->source.local = NULL;
		}
		bench->source.ref = "v1.0";
		fetch(bench);
		assert_string_equal(bench->found.ref, "refs/tags/v1.0");
		assert_string_equal(bench->found.commit, first);
		tagged = check_out(bench);
		assert_git(tagged, "describe", "--exact-match", "v1.0");
		assert_git(tagged, "fsck", "--no-dangling", "");
		free(tagged);
		bench->source.ref = first;
		fetch(bench);
		assert_string_equal(bench->found.ref, "");
		assert_string_equal(bench->found.commit, first);
		detached = check_out(bench);
		assert_git(detached, "rev-parse", "HEAD", first);
		assert_git(detached, "status", "--porcelain", "");
		free(detached);
	}
	tagged = detached = NULL;
}

static void test_missing_ref(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", server.port);

	free(git_kit_run(bench->repository, "branch", "feature/login", NULL));
	for (int remote = 0; remote < 2; remote++) {
		bench->source.ref = "feature/logn";
		fetch_fails(bench, ERROR_NOT_FOUND);
		assert_contains(bench->err.message, "\"feature/logn\"");
		assert_contains(bench->err.hint, "feature/login");
		bench->source.ref = "0123456789012345678901234567890123456789";
		fetch_fails(bench, ERROR_NOT_FOUND);
		bench->source.url = url;
		bench->source.local = NULL;
	}
}

static void test_empty_and_absent(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *empty = xasprintf("%s/empty", bench->folder);

	free(git_kit_run(bench->folder, "init", "-q", "empty", NULL));
	bench->source.url = bench->source.local = empty;
	fetch_fails(bench, ERROR_NOT_FOUND);
	assert_contains(bench->err.message, "empty");
	bench->source.url = bench->source.local = bench->folder;
	fetch_fails(bench, ERROR_NOT_FOUND);
	assert_contains(bench->err.message, "no git repository");
	bench->source.url = bench->source.local = "/does/not/exist";
	fetch_fails(bench, ERROR_NOT_FOUND);
}

static void test_shallow_and_partial(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *file = xasprintf("file://%s", bench->repository);
	CLEANUP(free_p) char *shallow = xasprintf("%s/shallow", bench->folder);
	CLEANUP(free_p) char *partial = xasprintf("%s/partial", bench->folder);
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/shallow", server.port);

	free(git_kit_commit(bench->repository, "second", "2\n"));
	free(git_kit_run(bench->repository, "config", "uploadpack.allowFilter", "true", NULL));
	free(git_kit_run(bench->folder, "clone", "-q", "--depth=1", file, "shallow", NULL));
	free(git_kit_run(
		bench->folder, "clone", "-q", "--filter=blob:none", file, "partial", NULL));
	bench->source.url = bench->source.local = shallow;
	fetch_fails(bench, ERROR_UNSUPPORTED);
	assert_contains(bench->err.message, "shallow");
	bench->source.url = bench->source.local = partial;
	fetch_fails(bench, ERROR_UNSUPPORTED);
	assert_contains(bench->err.message, "partial");
	bench->source.url = url;
	bench->source.local = NULL;
	fetch_fails(bench, ERROR_UNSUPPORTED);
	assert_contains(bench->err.hint, "shallow");
}

static void test_submodule(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *other = git_kit_repository(bench->folder, "other");
	CLEANUP(free_p) char *workspace = NULL, *inside = NULL;

	free(git_kit_run(bench->repository, "submodule", "--quiet", "add", other, "sub", NULL));
	free(git_kit_commit(bench->repository, "second", "2\n"));
	fetch(bench);
	workspace = check_out(bench);
	inside = xasprintf("%s/sub/README", workspace);
	assert_int_equal(access(inside, F_OK), -1);
	assert_git(workspace, "status", "--porcelain", "");
}

static void test_unreachable(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *absent = xasprintf("http://127.0.0.1:%d/absent", server.port);

	bench->source.local = NULL;
	bench->source.url = "http://127.0.0.1:1/x";
	fetch_fails(bench, ERROR_REMOTE);
	bench->source.url = "git://127.0.0.1:1/x";
	fetch_fails(bench, ERROR_REMOTE);
	bench->source.url = absent;
	fetch_fails(bench, ERROR_REMOTE);
	assert_contains(bench->err.message, "/absent");
}

static void test_hanging_server(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "hang");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", server.port);

	bench->source.url = url;
	bench->source.local = NULL;
	bench->source.stall_ms = 500;
	fetch_fails(bench, ERROR_TIMEOUT);
	assert_contains(bench->err.message, "nothing came for 0.5 s");
}

static void test_server_vanishes(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server cut = git_kit_http(bench->folder, "cut");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", cut.port);
	CLEANUP(free_p) char *workspace = NULL;

	bench->source.url = url;
	bench->source.local = NULL;
	fetch_fails(bench, ERROR_REMOTE);
	/* The same mirror serves again once the server is whole. */
	bench->source.local = bench->repository;
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static void test_killed_in_the_middle(void **state)
{
	struct bench *bench = *state;
	CLEANUP(git_kit_stop) struct git_kit_server server = git_kit_http(bench->folder, "");
	CLEANUP(free_p) char *url = xasprintf("http://127.0.0.1:%d/project", server.port);
	CLEANUP(free_p) char *workspace = NULL;
	static const char *const points[] = {"git.transfer", "git.transfer:3", "git.fetched"};

	bench->source.url = url;
	bench->source.local = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		setenv("HOB_FAULT", points[i], 1);
		fetch_fails(bench, ERROR_FAILED);
		unsetenv("HOB_FAULT");
	}
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

/* The path of the only mirror. */
static char *the_mirror(const struct bench *bench)
{
	struct error err = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, bench->mirrors, &err);
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL) {
		if (strstr(entry->d_name, ".git") != NULL &&
			strstr(entry->d_name, ".lock") == NULL) {
			return xasprintf("%s/%s", bench->mirrors, entry->d_name);
		}
	}
	fail_msg("no mirror in %s", bench->mirrors);
	return NULL;
}

static void test_leftovers_are_cleared(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *mirror = NULL, *leftover = NULL;

	fetch(bench);
	mirror = the_mirror(bench);
	temp_write(mirror, "refs/heads/main.lock", "");
	temp_write(mirror, "objects/pack/tmp_pack_1234", "half a pack");
	leftover = xasprintf("%s/objects/pack/tmp_pack_1234", mirror);
	free(git_kit_commit(bench->repository, "second", "2\n"));
	fetch(bench);
	assert_true(bench->found.fetched);
	assert_int_equal(access(leftover, F_OK), -1);
}

static void test_broken_mirror_heals(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *mirror = NULL, *head = NULL, *packs = NULL, *workspace = NULL;

	fetch(bench);
	mirror = the_mirror(bench);
	head = xasprintf("%s/HEAD", mirror);
	assert_int_equal(unlink(head), 0);
	fetch(bench);
	assert_true(bench->found.fetched);
	packs = xasprintf("%s/objects/pack", mirror);
	assert_ok(io_remove_tree(AT_FDCWD, packs, &bench->err), &bench->err);
	assert_int_equal(mkdir(packs, 0755), 0);
	fetch(bench);
	workspace = check_out(bench);
	assert_workspace(bench, workspace);
}

static size_t count_packs(const char *mirror)
{
	CLEANUP(free_p) char *path = xasprintf("%s/objects/pack", mirror);
	struct error err = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, path, &err);
	struct dirent *entry;
	size_t count = 0;

	while ((entry = readdir(dir)) != NULL) {
		count += strstr(entry->d_name, ".pack") != NULL;
	}
	return count;
}

static void test_many_fetches_stay_few_packs(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *mirror = NULL, *old = NULL, *new = NULL;

	fetch(bench);
	mirror = the_mirror(bench);
	for (int i = 0; i < 30; i++) {
		CLEANUP(free_p) char *text = xasprintf("%d\n", i);

		free(git_kit_commit(bench->repository, "changing", text));
		fetch(bench);
		if (i == 20) {
			old = check_out(bench);
		}
	}
	assert_in_range(count_packs(mirror), 1, 24);
	new = check_out(bench);
	assert_workspace(bench, new);
	assert_git(old, "fsck", "--no-dangling", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_urls),
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_workspace_is_ordinary),
		CASE(test_index_matches),
		CASE(test_unchanged_then_incremental),
		CASE(test_history_rewritten),
		CASE(test_packed_and_loose),
		CASE(test_alternates),
		CASE(test_by_file_url),
		CASE(test_by_daemon),
		CASE(test_by_http),
		CASE(test_tag_and_commit),
		CASE(test_missing_ref),
		CASE(test_empty_and_absent),
		CASE(test_shallow_and_partial),
		CASE(test_submodule),
		CASE(test_unreachable),
		CASE(test_hanging_server),
		CASE(test_server_vanishes),
		CASE(test_killed_in_the_middle),
		CASE(test_leftovers_are_cleared),
		CASE(test_broken_mirror_heals),
		CASE(test_many_fetches_stay_few_packs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
