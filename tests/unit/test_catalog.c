/* The catalog's plumbing: queries and transactions, and files that are no catalog of this hob. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "snapshots/catalog.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static sqlite3 *open_catalog(const struct store *store)
{
	CLEANUP(free_p) char *path = xasprintf("%s/catalog.db", store_path(store));
	struct error err = ERROR_INIT;
	sqlite3 *db = NULL;

	assert_ok(catalog_open(path, store_fd(store), false, &db, &err), &err);
	return db;
}

static int64_t ask(sqlite3 *db, const char *sql)
{
	CLEANUP(query_done) struct query query = {0};
	struct error err = ERROR_INIT;

	query_init(&query, db, sql);
	assert_int_equal(query_row(&query, &err), 1);
	return query_int(&query, 0);
}

static void test_every_connection_is_set_up(void **state)
{
	sqlite3 *db = open_catalog(*state);
	CLEANUP(query_done) struct query query = {0};
	struct error err = ERROR_INIT;

	assert_int_equal(ask(db, "PRAGMA synchronous"), 2);
	assert_int_equal(ask(db, "PRAGMA foreign_keys"), 1);
	assert_true(ask(db, "PRAGMA busy_timeout") > 0);
	query_init(&query, db, "PRAGMA journal_mode");
	assert_int_equal(query_row(&query, &err), 1);
	assert_string_equal(query_text(&query, 0), "wal");
	query_done(&query);
	catalog_close(db);
}

static void test_queries_bind_read_and_report(void **state)
{
	sqlite3 *db = open_catalog(*state);
	CLEANUP(query_done) struct query query = {0};
	struct error err = ERROR_INIT;
	char text[4];

	query_init(&query, db, "SELECT ?, ?, ?");
	query_bind_int(&query, -5);
	query_bind_text(&query, "long text");
	query_bind_text(&query, NULL);
	assert_int_equal(query_row(&query, &err), 1);
	assert_int_equal(query_int(&query, 0), -5);
	query_copy(&query, 1, text, sizeof(text));
	assert_string_equal(text, "lon");
	assert_string_equal(query_text(&query, 2), "");
	assert_int_equal(query_row(&query, &err), 0);
	query_done(&query);
	query_init(&query, db, "SELECT nonsense FROM nowhere");
	query_bind_int(&query, 1);
	assert_kind(query_row(&query, &err), &err, ERROR_INTERNAL);
	assert_contains(err.message, "nowhere");
	query_done(&query);
	query_init(&query, db, "SELECT 1");
	query_bind_int(&query, 1);
	assert_kind(query_run(&query, NULL, &err), &err, ERROR_INTERNAL);
	query_done(&query);
	catalog_close(db);
}

static void test_a_transaction_left_open_is_undone(void **state)
{
	sqlite3 *db = open_catalog(*state);
	struct error err = ERROR_INIT;

	{
		CLEANUP(transaction_done) struct transaction transaction = {NULL};

		assert_ok(transaction_begin(&transaction, db, TRANSACTION_WRITE, &err), &err);
		assert_ok(catalog_exec(db, "INSERT INTO marks VALUES ('e', 1)", &err), &err);
		assert_int_equal(ask(db, "SELECT count(*) FROM marks"), 1);
	}
	assert_int_equal(ask(db, "SELECT count(*) FROM marks"), 0);
	catalog_close(db);
}

/* Opens the store in a state that `sql` made. */
static int open_after(struct store *store, const char *sql, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/catalog.db", store_path(store));
	struct store *again = NULL;
	sqlite3 *db = NULL;
	int status;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	status = store_open(store_path(store), STORE_WRITE, &again, err);
	store_close(again);
	return status;
}

static void test_a_newer_schema_is_refused(void **state)
{
	struct error err = ERROR_INIT;

	assert_kind(open_after(*state, "PRAGMA user_version = 9", &err), &err, ERROR_UNSUPPORTED);
	assert_contains(err.message, "schema 9");
	assert_true(err.hint[0] != '\0');
}

static void test_another_programs_database_is_refused(void **state)
{
	struct error err = ERROR_INIT;

	assert_kind(open_after(*state, "PRAGMA application_id = 1", &err), &err, ERROR_CORRUPT);
}

static void overwrite(const struct store *store, off_t at, const char *text)
{
	int fd = openat(store_fd(store), "catalog.db", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
	close(fd);
}

static void test_a_file_that_is_no_database_is_refused(void **state)
{
	CLEANUP(free_p) char *path = xstrdup(store_path(*state));
	struct store *store = NULL;
	struct error err = ERROR_INIT;

	overwrite(*state, 0, "this was a catalog once");
	unlinkat(store_fd(*state), "catalog.db-wal", 0);
	assert_kind(store_open(path, STORE_WRITE, &store, &err), &err, ERROR_CORRUPT);
	assert_true(err.hint[0] != '\0');
	assert_kind(store_open(path, STORE_CREATE, &store, &err), &err, ERROR_CORRUPT);
	assert_kind(store_open(path, STORE_READ, &store, &err), &err, ERROR_CORRUPT);
}

static void test_damage_inside_is_corrupt_not_a_crash(void **state)
{
	CLEANUP(free_p) char *path = xstrdup(store_path(*state));
	CLEANUP(free_p) char *rubbish = xcalloc(1, 60001);
	struct store *store = NULL;
	struct image *images = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;
	int status;

	store_kit_image(*state, "webapp");
	sqlite3 *db = open_catalog(*state);
	assert_ok(catalog_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", &err), &err);
	catalog_close(db);
	memset(rubbish, 0x5a, 60000);
	overwrite(*state, 4096, rubbish);
	status = store_open(path, STORE_WRITE, &store, &err);
	if (status == 0) {
		status = image_list(store, NULL, &images, &count, &err);
	}
	assert_kind(status, &err, ERROR_CORRUPT);
	store_close(store);
}

/* RLIMIT_FSIZE makes writes past it fail as a full disk does, but with EFBIG: sqlite3 and the store
 * must come out with an error and an untouched catalog. */
static int commit_without_space(const char *path)
{
	struct rlimit limit = {600000, 600000}; /* over what a new catalog takes */
	struct error err = ERROR_INIT;
	struct store *store = NULL;
	int begun = 0;

	if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &limit) < 0 ||
		store_open(path, STORE_WRITE, &store, &err) < 0) {
		return 1;
	}
	for (int i = 0; i < 200; i++) {
		struct build build;
		int log = -1;

		if (build_begin(store, "webapp", &build, &log, &err) < 0) {
			break;
		}
		begun++;
		close(log);
	}
	store_close(store);
	return begun > 0 && begun < 200 && err.kind == ERROR_IO ? 0 : 2;
}

static void test_writes_that_fail_harm_nothing(void **state)
{
	CLEANUP(store_close_p) struct store *again = NULL;
	struct error err = ERROR_INIT;
	struct store_sweep sweep;
	int status = 0;
	pid_t child;

	store_kit_image(*state, "webapp");
	child = fork();
	if (child == 0) {
		_exit(commit_without_space(store_path(*state)));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_ok(store_open(store_path(*state), STORE_WRITE, &again, &err), &err);
	assert_ok(store_recover(again, &sweep, &err), &err);
	assert_true(sweep.builds > 0);
	assert_int_equal(sweep.missing, 0);
	store_kit_image(again, "webapp");
}

static int open_new(const char *path)
{
	struct store *store = NULL;
	struct error err = ERROR_INIT;
	int status = store_open(path, STORE_CREATE, &store, &err);

	if (status < 0) {
		print_error("%s\n", err.message);
	}
	store_close(store);
	return -status;
}

static void test_many_meet_a_new_store(void **state)
{
	for (int round = 0; round < 20; round++) {
		CLEANUP(free_p) char *path = xasprintf("%s/a/b%d", store_path(*state), round);
		pid_t children[6];

		for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
			children[i] = fork();
			if (children[i] == 0) {
				_exit(open_new(path));
			}
		}
		for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
			int status = 0;

			assert_int_equal(waitpid(children[i], &status, 0), children[i]);
			assert_int_equal(status, 0);
		}
	}
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_every_connection_is_set_up),
		IN_STORE(test_queries_bind_read_and_report),
		IN_STORE(test_a_transaction_left_open_is_undone),
		IN_STORE(test_a_newer_schema_is_refused),
		IN_STORE(test_another_programs_database_is_refused),
		IN_STORE(test_a_file_that_is_no_database_is_refused),
		IN_STORE(test_damage_inside_is_corrupt_not_a_crash),
		IN_STORE(test_writes_that_fail_harm_nothing),
		IN_STORE(test_many_meet_a_new_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
