/* Checkouts large enough for two processes: in the order of the packs, by path when there are more
 * folders than are kept open, and with attributes. Judged by `git`, which reads every file. */
#include "tests/lib/git_kit.h"
#include "tests/lib/test.h"

#include "builder/git/git.h"
#include "builder/machine.h"
#include "builder/report.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define FILES 2100

static void make_files(const char *repository, int folders)
{
	struct error err = ERROR_INIT;

	for (int i = 0; i < FILES; i++) {
		CLEANUP(free_p) char *folder = xasprintf("%s/d%d/e", repository, i % folders);
		CLEANUP(free_p) char *name = xasprintf("f%d.txt", i);
		CLEANUP(free_p) char *text = xasprintf("first\nline %d\n", i);

		if (i < folders) {
			assert_ok(io_mkdir_all(AT_FDCWD, folder, 0755, &err), &err);
		}
		temp_write(folder, name, text);
	}
}

/* Commits, packs (unless there are attributes: then objects are loose), fetches and checks out;
 * true content and a clean status. */
static void check(int folders, const char *attributes, const char *wanted)
{
	CLEANUP(temp_remove_p) char *folder = temp_folder();
	CLEANUP(free_p) char *repository = git_kit_repository(folder, "project");
	CLEANUP(free_p) char *mirrors = xasprintf("%s/mirrors", folder);
	CLEANUP(free_p) char *workspace = xasprintf("%s/tree/w", folder);
	CLEANUP(free_p) char *tree = xasprintf("%s/tree", folder);
	CLEANUP(free_p) char *index = xasprintf("%s/.git/index", workspace);
	struct report *report = report_new(REPORT_QUIET);
	struct machine machine;
	struct git_source source = {
		.url = repository, .local = repository, .mirrors = mirrors, .stall_ms = 60000};
	struct git_checked_out counts = {0};
	struct git_found found = {0};
	struct error err = ERROR_INIT;
	struct git_place place = {.path = "/w", .previous_fd = -1};

	assert_ok(machine_init(&machine, NULL, report, &err), &err);
	assert_int_equal(mkdir(mirrors, 0700), 0);
	assert_int_equal(mkdir(tree, 0755), 0);
	make_files(repository, folders);
	temp_write(repository, ".gitattributes", attributes);
	free(git_kit_run(repository, "-c", "core.safecrlf=false", "add", ".", NULL));
	free(git_kit_commit(repository, "more", "more\n"));
	if (attributes[0] == '\0') {
		free(git_kit_run(repository, "gc", "-q", NULL));
	}
	assert_ok(git_fetch(&machine, &source, &found, &err), &err);
	place.tree_fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(git_checkout(&machine, &source, &found, &place, &counts, &err), &err);
	close(place.tree_fd);
	assert_int_equal(counts.files, FILES + 5); /* README, bin/run, link, more, attributes */
	for (int again = 0; again < 2; again++) {
		CLEANUP(free_p)
		char *status = git_kit_run(workspace, "status", "--porcelain", NULL);
		CLEANUP(free_p) char *text = temp_read(workspace, "d7/e/f7.txt");

		assert_string_equal(status, "");
		assert_string_equal(text, wanted);
		/* The second time with an index of git's own, so that it compares contents. */
		assert_int_equal(unlink(index), 0);
		free(git_kit_run(workspace, "reset", "-q", NULL));
	}
	machine_done(&machine);
	report_free(report);
}

static void test_in_pack_order(void **state)
{
	(void)state;
	check(20, "", "first\nline 7\n");
}

static void test_with_more_folders_than_are_kept(void **state)
{
	(void)state;
	check(700, "", "first\nline 7\n");
}

static void test_with_attributes(void **state)
{
	(void)state;
	check(20, "*.txt text eol=crlf\n", "first\r\nline 7\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_pack_order),
		cmocka_unit_test(test_with_more_folders_than_are_kept),
		cmocka_unit_test(test_with_attributes),
	};

	git_kit_setup();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
