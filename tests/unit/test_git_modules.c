/* What .gitmodules says, in git's syntax, and where a submodule's url leads. */
#include "tests/lib/test.h"

#include "builder/git/git.h"
#include "builder/git/git_modules.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int parse(const char *text, struct git_module_list *list, struct error *err)
{
	*list = (struct git_module_list){0};
	return git_modules_parse(text, strlen(text), list, err);
}

static void test_syntax(void **state)
{
	static const char text[] =
		"\xef\xbb\xbf# a comment\r\n"
		"[Submodule \"with \\\"quotes\\\" \\\\\"] Path = a/b ; comment\r\n"
		"\tURL=\"../x # y \" \t\n"
		"[core]\n\tpath = nobody\n\tbare\n"
		"[submodule.Old]\n\tpath = old  dir  \n\turl = https://h/a\\\n/b\n\tupdate = none\n"
		"[submodule \"with \\\"quotes\\\" \\\\\"]\n\tpath = later\n\tignore\n"
		"[submodule \"sub\"] path = \"q\"uo\\\\ted\n";
	struct git_module_list list;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(parse(text, &list, &err), &err);
	assert_int_equal(list.count, 3);
	assert_string_equal(list.items[0].name, "with \"quotes\" \\");
	assert_string_equal(list.items[0].path, "later");
	assert_string_equal(list.items[0].url, "../x # y ");
	assert_false(list.items[0].left_out);
	assert_string_equal(list.items[1].name, "old");
	assert_string_equal(list.items[1].path, "old  dir");
	assert_string_equal(list.items[1].url, "https://h/a/b");
	assert_true(list.items[1].left_out);
	assert_string_equal(list.items[2].path, "quo\\ted");
	assert_null(list.items[2].url);
	git_module_list_done(&list);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		enum error_kind kind;
	} rows[] = {
		{"path = x", ERROR_NONE}, /* of no section: nobody's */
		{"[submodule \"a\"", ERROR_INVALID},
		{"[submodule \"a\n\"]", ERROR_INVALID},
		{"[submodule a]", ERROR_INVALID},
		{"[submodule \"a\"]\n= x", ERROR_INVALID},
		{"[submodule \"a\"]\npath x", ERROR_INVALID},
		{"[submodule \"a\"]\npath = \"x", ERROR_INVALID},
		{"[submodule \"a\"]\npath = \\q", ERROR_INVALID},
		{"[submodule \"\"]\npath = x", ERROR_DENIED},
		{"[submodule \"..\"]\npath = x", ERROR_DENIED},
		{"[submodule \"a/../b\"]\npath = x", ERROR_DENIED},
		{"[submodule \"a\\\\..\"]\npath = x", ERROR_DENIED},
		{"[submodule \"a..b\"]\npath = x", ERROR_NONE},
		{"[submodule \"a\"]\npath = /x", ERROR_DENIED},
		{"[submodule \"a\"]\npath = x/", ERROR_DENIED},
		{"[submodule \"a\"]\npath = x/.GIT/y", ERROR_DENIED},
		{"[submodule \"a\"]\npath = -x", ERROR_DENIED},
		{"[submodule \"a\"]\nurl = -x", ERROR_DENIED},
		{"[submodule \"a\"]\nurl = \"http://x/\\ny\"", ERROR_DENIED},
		{"[submodule \"a\"]\nupdate = !rm", ERROR_DENIED},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct git_module_list list;
		struct error err = ERROR_INIT;

		if (parse(rows[i].text, &list, &err) != -(int)rows[i].kind) {
			fail_msg("%s: %s", rows[i].text, err.message);
		}
		git_module_list_done(&list);
	}
}

/* NULL: refused. */
struct url_row {
	const char *parent, *url, *wanted;
};

static void check_url(const struct url_row *row)
{
	CLEANUP(free_p) char *found = NULL;
	struct error err = ERROR_INIT;
	int status = git_module_url(row->parent, row->url, &found, &err);

	if (row->wanted == NULL ? status != -ERROR_DENIED
				: status < 0 || !streq(found, row->wanted)) {
		fail_msg(
			"%s of %s: %s", row->url, row->parent, found != NULL ? found : err.message);
	}
}

static void test_urls(void **state)
{
	static const struct url_row rows[] = {
		{"https://h/a/b.git", "../c.git", "https://h/a/c.git"},
		{"https://h/a/b.git/", "../../c/", "https://h/c"},
		{"https://h/a/b.git", "./c", "https://h/a/b.git/c"},
		{"https://h/a", "../../c", NULL},
		{"https://h/a", "../../../etc", NULL},
		{"git@h:a/b", "../c", "git@h:a/c"},
		{"git@h:a", "../c", "git@h:c"},
		{"git@h:a", "../../c", NULL},
		{"ssh://git@h:22/a/b", "../c", "ssh://git@h:22/a/c"},
		{"https://h/a", "https://other/x", "https://other/x"},
		{"https://h/a", "https://user:password@other/x", "https://other/x"},
		{"https://h/a", "git@h:x/y.git", "https://h/x/y.git"},
		{"https://h/a", "ssh://git@h/x/y.git", "https://h/x/y.git"},
		{"https://h/a", "git@other:x/y.git", "git@other:x/y.git"},
		{"https://h/a", "git://other/x", "git://other/x"},
		{"https://h/a", "/etc", NULL},
		{"https://h/a", "file:///etc", NULL},
		{"https://h/a", "ext::sh -c x", NULL},
		{"https://h/a", "ext::x", NULL},
		{"https://h/a", "ftp://other/x", NULL},
		{"https://h/a", "other/x", NULL},
		{"https://h/a", "https:///x", NULL},
		{"https://h/a", "ssh://-oProxyCommand=x/y", NULL},
		{"https://h/a", "-oX@y:z", "-oX@y:z"}, /* git_modules_parse refuses it */
		{"https://h/a", "https://x/a b", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		check_url(&rows[i]);
	}
}

/* Folders of this machine: beside the repository, as the links on the way really lead. */
static void test_folders(void **state)
{
	CLEANUP(free_p) char *folder = realpath(*state, NULL);
	CLEANUP(free_p) char *own = xasprintf("%s/in/own", folder);
	CLEANUP(free_p) char *beside = xasprintf("%s/in/beside", folder);
	CLEANUP(free_p) char *by_url = xasprintf("file://%s/in/beside", folder);
	CLEANUP(free_p) char *inside = xasprintf("%s/in/own/inside", folder);
	CLEANUP(free_p) char *outside = xasprintf("%s/outside", folder);
	CLEANUP(free_p) char *link = xasprintf("%s/in/link", folder);
	CLEANUP(free_p) char *in = xasprintf("%s/in", folder);
	const struct url_row rows[] = {{own, "../beside", beside}, {own, beside, beside},
		{own, by_url, by_url}, {own, "./inside", inside}, {own, outside, NULL},
		{own, "../../outside", NULL}, {own, "../link", NULL}, {own, "..", NULL},
		{own, "../", NULL}, {own, in, NULL}, {"/own", "../etc", NULL}};

	assert_int_equal(mkdir(in, 0755), 0);
	assert_int_equal(mkdir(own, 0755), 0);
	assert_int_equal(mkdir(beside, 0755), 0);
	assert_int_equal(mkdir(outside, 0755), 0);
	assert_int_equal(symlink("../outside", link), 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		check_url(&rows[i]);
	}
}

static void test_hosts(void **state)
{
	(void)state;
	assert_true(git_urls_share_host("https://h/a", "https://H/b"));
	assert_true(git_urls_share_host("git@h:a", "git@h:b"));
	assert_true(git_urls_share_host("ssh://git@h/a", "git@h:b"));
	assert_false(git_urls_share_host("https://h/a", "http://h/b"));
	assert_false(git_urls_share_host("https://h/a", "https://h:8443/b"));
	assert_false(git_urls_share_host("https://h/a", "https://h.evil/b"));
	assert_false(git_urls_share_host("https://h/a", "https://evil/@h/b"));
	assert_false(git_urls_share_host("https://h/a", "https://h@evil/b"));
	assert_false(git_urls_share_host("https://h/a", "https://evil?@h/b"));
	assert_false(git_urls_share_host("https://h/a", "git@h:b"));
	assert_false(git_urls_share_host("/a", "/b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_urls),
		cmocka_unit_test_setup_teardown(test_folders, setup_folder, teardown_folder),
		cmocka_unit_test(test_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
