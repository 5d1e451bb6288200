/* The verbs of hob-snapshots about snapshots as an operator runs them: output, JSON, exit codes. */
#include "snapshots/snapshot.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include "base/json.h"
#include "base/process.h"

#include <stdio.h>
#include <sys/stat.h>

static int run_words(const struct store *store, char **ret_output, const char *const *words)
{
	CLEANUP(strv_free_p) char **argv = NULL;
	CLEANUP(free_p) char *program = NULL;
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_sibling("../../hob-snapshots", &program, &err), &err);
	strv_add(&argv, program);
	for (; *words != NULL; words++) {
		strv_add(&argv, *words);
	}
	strv_add(&argv, "--store");
	strv_add(&argv, store_path(store));
	assert_ok(process_run(argv, ret_output, &code, &err), &err);
	return code;
}

#define RUN(store, output, ...)                                                                    \
	run_words((store), (output), (const char *const[]){__VA_ARGS__, NULL})

static json_t *run_json(const struct store *store, const char *const *words)
{
	CLEANUP(free_p) char *text = NULL;
	json_t *json = NULL;
	struct error err = ERROR_INIT;

	assert_int_equal(run_words(store, &text, words), 0);
	assert_ok(json_parse_object(text, strlen(text), &json, &err), &err);
	return json;
}

#define RUN_JSON(store, ...) run_json((store), (const char *const[]){__VA_ARGS__, "--json", NULL})

static void take(
	struct store *store, int64_t parent, const char *label, enum snapshot_reason reason)
{
	struct layer own = store_kit_seal(store, "", 20000), list[8] = {0};
	struct snapshot snapshot = {.environment = "webapp",
		.image_id = 1,
		.parent_id = parent,
		.reason = reason,
		.sandbox = "sb-abc",
		.layers = list,
		.own_count = 1};
	CLEANUP(snapshot_done) struct snapshot above = {0};
	CLEANUP(free_p) char *name = xasprintf("%lld", (long long)parent);
	struct error err = ERROR_INIT;

	if (parent != 0) {
		assert_ok(snapshot_find(store, name, &above, &err), &err);
		for (size_t i = 0; i < above.layer_count; i++) {
			list[snapshot.layer_count++].id = above.layers[i].id;
		}
	} else {
		list[snapshot.layer_count++].id = 1;
	}
	list[snapshot.layer_count++].id = own.id;
	snprintf(snapshot.label, sizeof(snapshot.label), "%s", label);
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
}

/* img-1 of webapp; snap-1 over it with children snap-2 and snap-3, and snap-4 over the latter. */
static void fill(struct store *store)
{
	store_kit_image(store, "webapp");
	take(store, 0, "first", SNAPSHOT_SESSION);
	take(store, 1, "left", SNAPSHOT_EXIT);
	take(store, 1, "right", SNAPSHOT_MANUAL);
	take(store, 3, "far right", SNAPSHOT_MANUAL);
}

static void test_ls(void **state)
{
	CLEANUP(free_p) char *all = NULL;
	CLEANUP(free_p) char *few = NULL;
	CLEANUP(free_p) char *sorted = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *first;

	fill(*state);
	assert_int_equal(RUN(*state, &all, "ls"), 0);
	assert_contains(all, "SNAPSHOT  ENVIRONMENT  REASON");
	assert_contains(all, "4 snapshots");
	assert_int_equal(RUN(*state, &few, "ls", "--label", "*right", "--columns", "id,parent"), 0);
	assert_contains(few, "SNAPSHOT  PARENT\nsnap-4    snap-3\nsnap-3    snap-1\n2 snapshots; ");
	assert_int_equal(RUN(*state, &sorted, "ls", "--sort", "-id", "--columns", "id"), 0);
	assert_true(strstr(sorted, "snap-1") < strstr(sorted, "snap-2"));
	json = RUN_JSON(*state, "ls", "--reason", "exit", "--env", "webapp");
	assert_int_equal(json_array_size(json_object_get(json, "snapshots")), 1);
	first = json_array_get(json_object_get(json, "snapshots"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "id")), "snap-2");
	assert_string_equal(json_string_value(json_object_get(first, "parent")), "snap-1");
	assert_string_equal(json_string_value(json_object_get(first, "sandbox")), "sb-abc");
	assert_true(json_integer_value(json_object_get(first, "exclusive_bytes")) >= 20000);
}

static void test_tree(void **state)
{
	CLEANUP(free_p) char *all = NULL;
	CLEANUP(free_p) char *left = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	fill(*state);
	assert_int_equal(RUN(*state, &all, "tree"), 0);
	assert_contains(all, "img-1  webapp 0123456789ab  head\n└─ snap-1  session");
	assert_contains(all, "   ├─ snap-2  exit");
	assert_contains(all, "   └─ snap-3  manual");
	assert_contains(all, "      snap-4  manual");
	assert_int_equal(RUN(*state, &left, "tree", "snap-2"), 0);
	assert_contains(left, "snap-1");
	assert_contains(left, "snap-2");
	assert_null(strstr(left, "snap-3"));
	json = RUN_JSON(*state, "tree", "snap-3");
	assert_int_equal(json_array_size(json_object_get(json, "snapshots")), 3);
	assert_int_equal(RUN(*state, NULL, "tree", "snap-9"), 3);
}

static void test_info_and_names(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	fill(*state);
	assert_int_equal(RUN(*state, NULL, "tag", "snap-2", "good"), 0);
	assert_int_equal(RUN(*state, NULL, "tag", "snap-3", "good"), 4);
	assert_int_equal(RUN(*state, NULL, "pin", "good"), 0);
	assert_int_equal(RUN(*state, &text, "info", "good"), 0);
	assert_contains(text, "Snapshot:     snap-2, tagged good");
	assert_contains(text, "Parent:       snap-1, of img-1");
	assert_contains(text, "Needed by:    pinned");
	json = RUN_JSON(*state, "info", "snap-4");
	assert_int_equal(json_array_size(json_object_get(json, "layers")), 4);
	assert_true(json_is_object(json_object_get(json, "manifest")));
	assert_int_equal(RUN(*state, NULL, "untag", "good"), 0);
	assert_int_equal(RUN(*state, NULL, "info", "good"), 3);
}

static void test_rm(void **state)
{
	CLEANUP(free_p) char *dry = NULL;
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	fill(*state);
	assert_int_equal(RUN(*state, NULL, "pin", "1"), 0);
	assert_int_equal(RUN(*state, &dry, "rm", "--dry-run", "3", "4"), 0);
	assert_contains(dry, "would remove snap-3");
	/* snap-3's own layer is in snap-4 too: only both together free it. */
	assert_contains(dry, "would free 4");
	assert_int_equal(store_kit_count(*state, "layers"), 5);
	assert_int_equal(RUN(*state, &text, "rm", "1", "2"), 4);
	assert_contains(text, "removed snap-2");
	json = RUN_JSON(*state, "rm", "3", "snap-4");
	assert_int_equal(json_array_size(json_object_get(json, "removed")), 2);
	assert_in_range(json_integer_value(json_object_get(json, "freed_bytes")), 40000, 49999);
	assert_int_equal(store_kit_count(*state, "layers"), 2);
}

/* A store of id 54321's with two layers of a sandbox's ids, closed to everybody else. */
static void fill_trees(struct store *store)
{
	struct layer layers[2] = {tree_kit_layer(store, 700000,
		"mkdir -m 700 d; echo one > d/x; echo two > d/y; chmod 600 d/*; chown -R "
		"700000:700000 .")};
	struct snapshot snapshot = {
		.environment = "webapp", .layers = layers, .layer_count = 1, .own_count = 1};
	struct error err = ERROR_INIT;

	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
	layers[1] = tree_kit_layer(store, 900000,
		"mkdir -m 700 d; echo three > d/x; echo four > d/z; chmod 600 d/*;"
		"setx d trusted.overlay.opaque y; chown -R 900000:900000 .; chmod 700 .");
	snapshot = (struct snapshot){.environment = "webapp",
		.parent_id = 1,
		.layers = layers,
		.layer_count = 2,
		.own_count = 1};
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
	tree_kit_shell(store_fd(store),
		"chmod 711 ..; chown 54321:54321 . * heads/* builds/* layers/* 2>/dev/null || true;"
		"chown 54321:54321 . catalog* layers layers/* staging heads builds");
}

static void test_diff_and_cp(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *patch = NULL;
	CLEANUP(free_p) char *out = NULL;
	CLEANUP(free_p) char *to = xasprintf("%s/../out", store_path(*state));
	CLEANUP(free_p) char *file = xasprintf("%s/d/x", to);
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(json_decref_p) json_t *lines = NULL;
	CLEANUP(json_decref_p) json_t *copied = NULL;

	if (geteuid() != 0) {
		skip();
	}
	fill_trees(*state);
	assert_int_equal(RUN(*state, &text, "diff", "1", "snap-2"), 0);
	assert_string_equal(text, "~ d/x  (4 B -> 6 B)  content,mtime\n- d/y  (4 B)\n+ d/z  (5 B)\n"
				  "1 added (5 B), 1 changed (6 B), 1 deleted (4 B)\n");
	assert_int_equal(RUN(*state, &patch, "diff", "1", "2", "--patch", "/d/x"), 0);
	assert_contains(patch, "@@ -1 +1 @@\n-one\n+three\n");
	json = RUN_JSON(*state, "diff", "1", "2", "--stat");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(json, "deleted"), "entries")),
		1);
	assert_null(json_object_get(json, "changes"));
	assert_int_equal(RUN(*state, &out, "cp", "snap-2:/d/x", "-"), 0);
	assert_string_equal(out, "three\n");
	assert_int_equal(RUN(*state, NULL, "cp", "snap-2:d/y", "-"), 3);
	assert_int_equal(RUN(*state, NULL, "cp", "snap-2:d", "-"), 2);
	lines = RUN_JSON(*state, "diff", "1", "2", "--patch", "/d/x");
	assert_contains(json_string_value(json_object_get(lines, "patch")), "-one\n+three\n");
	/* Into a folder of root's, as the store's owner could not. */
	assert_int_equal(mkdir(to, 0700), 0);
	copied = RUN_JSON(*state, "cp", "snap-2:d", to);
	assert_int_equal(json_integer_value(json_object_get(copied, "files")), 2);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(RUN(*state, NULL, "cp", "snap-2:d", to), 4);
	free(file);
	file = xasprintf("%s/new", to);
	assert_int_equal(RUN(*state, NULL, "cp", "snap-2:d/x", file), 0);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(RUN(*state, NULL, "diff", "1", "snap-7"), 3);
}

static void test_export_and_import(void **state)
{
	CLEANUP(free_p) char *file = xasprintf("%s/../one.hob", store_path(*state));
	CLEANUP(free_p) char *diff = NULL;
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	if (geteuid() != 0) {
		skip();
	}
	fill_trees(*state);
	assert_int_equal(RUN(*state, &text, "export", "snap-2", "--output", file), 0);
	assert_contains(text, "snap-2: ");
	assert_int_not_equal(RUN(*state, NULL, "export", "snap-2", "--output", file), 0);
	/* Its own layer is not in the store any more, the parent's is. */
	assert_int_equal(RUN(*state, NULL, "rm", "2"), 0);
	json = RUN_JSON(*state, "import", file);
	assert_string_equal(json_string_value(json_object_get(json, "id")), "snap-3");
	assert_int_equal(store_kit_count(*state, "layers"), 2);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_int_equal(RUN(*state, &diff, "diff", "1", "snap-3"), 0);
	assert_contains(diff, "- d/y  (4 B)\n+ d/z  (5 B)\n");
	tree_kit_shell(store_fd(*state), "test -z \"$(find layers -uid 0)\"");
}

static void test_verify(void **state)
{
	CLEANUP(free_p) char *first = NULL;
	CLEANUP(free_p) char *second = NULL;
	CLEANUP(free_p) char *resumed = NULL;
	CLEANUP(free_p) char *quick = NULL;
	CLEANUP(free_p) char *damaged = NULL;

	if (geteuid() != 0) {
		skip();
	}
	fill_trees(*state);
	assert_int_equal(RUN(*state, &first, "verify"), 0);
	assert_contains(first, "2 recorded for the first time");
	assert_int_equal(RUN(*state, &second, "verify"), 0);
	assert_contains(second, "2 layers sound");
	/* As if a run had been killed after the first layer. */
	tree_kit_shell(store_fd(*state),
		"/usr/bin/python3 -c \"import sqlite3;d=sqlite3.connect('catalog.db');"
		"d.execute('insert into marks select \\'verify\\', verified_ms from layers where "
		"id=1');"
		"d.execute('update layers set verified_ms=5 where id=2');d.commit()\"");
	assert_int_equal(RUN(*state, &resumed, "verify"), 0);
	assert_contains(resumed, "went on with an interrupted run: 1 layers sound");
	/* A byte flips; size and time stay. */
	tree_kit_shell(store_fd(*state),
		"cd layers/2/tree/d; cp -p x /tmp/hob-unit-x.$$; printf T | dd of=x conv=notrunc "
		"bs=1 "
		"2>/dev/null; touch -r /tmp/hob-unit-x.$$ x; rm /tmp/hob-unit-x.$$");
	assert_int_equal(RUN(*state, &quick, "verify", "--quick", "snap-2"), 0);
	assert_int_equal(RUN(*state, &damaged, "verify", "snap-2"), 12);
	assert_contains(damaged, "layer 2: d/x has other content");
	tree_kit_shell(store_fd(*state), "rm layers/1/tree/d/y; echo n > layers/1/tree/a");
	assert_int_equal(RUN(*state, NULL, "verify", "--quick", "snap-1"), 12);
	assert_int_equal(RUN(*state, NULL, "verify", "snap-7"), 3);
}

static int64_t total(const struct store *store, const char *key)
{
	CLEANUP(json_decref_p) json_t *json = RUN_JSON(store, "du");

	return json_integer_value(json_object_get(json_object_get(json, "total"), key));
}

static void test_flatten_and_du(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *again = NULL;
	CLEANUP(free_p) char *diff = NULL;
	struct error err = ERROR_INIT;
	int64_t stored;

	if (geteuid() != 0) {
		skip();
	}
	fill_trees(*state);
	stored = total(*state, "stored_bytes");
	assert_int_equal(total(*state, "linked_bytes"), 0);
	assert_ok(snapshot_lease(*state, 2, "hobd", &err), &err);
	assert_int_equal(RUN(*state, &text, "flatten", "snap-2"), 0);
	assert_contains(text, "snap-2: 2 layers are 1 now; 2 files linked, 0 copied, freed 0 B");
	assert_true(total(*state, "linked_bytes") > 0);
	/* What is there twice by links is there once. */
	assert_in_range(total(*state, "stored_bytes"), stored, stored + 16384);
	assert_int_equal(RUN(*state, &diff, "diff", "1", "2"), 0);
	assert_contains(diff, "1 added (5 B), 1 changed (6 B), 1 deleted (4 B)");
	assert_int_equal(RUN(*state, &again, "flatten", "snap-2"), 0);
	assert_contains(again, "nothing to flatten");
	tree_kit_shell(store_fd(*state), "test -z \"$(find layers -uid 0)\"");
}

static void test_wrong_calls(void **state)
{
	static const char *const wrong[][4] = {{"ls", "x"}, {"ls", "--columns", "nonsense"},
		{"ls", "--sort", "nonsense"}, {"ls", "--reason", "why"},
		{"ls", "--older-than", "5"}, {"ls", "--dry-run"}, {"info"}, {"rm"}, {"tag", "1"},
		{"rm", "--move", "1"}, {"lss"}};
	CLEANUP(free_p) char *help = NULL;

	fill(*state);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(run_words(*state, NULL, wrong[i]), 2);
	}
	assert_int_equal(RUN(*state, &help, "ls", "--help"), 0);
	assert_contains(help, "--older-than TIME");
	assert_null(strstr(help, "--dry-run"));
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_ls),
		IN_STORE(test_tree),
		IN_STORE(test_info_and_names),
		IN_STORE(test_rm),
		IN_STORE(test_diff_and_cp),
		IN_STORE(test_export_and_import),
		IN_STORE(test_verify),
		IN_STORE(test_flatten_and_du),
		IN_STORE(test_wrong_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
