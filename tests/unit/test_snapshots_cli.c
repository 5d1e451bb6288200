/* hob-snapshots as an operator runs it: its output, exit codes, and that root leaves nothing of its
 * own in a store that belongs to somebody else. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/io.h"
#include "base/json.h"
#include "base/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define OWNER 54321 /* no account of this machine */

/* Runs build/…/hob-snapshots --store STORE WORDS…; its exit code. Output is the caller's. */
static int run_words(const struct store *store, char **ret_output, const char *const *words)
{
	CLEANUP(strv_free_p) char **argv = NULL;
	CLEANUP(free_p) char *program = NULL;
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_sibling("../../hob-snapshots", &program, &err), &err);
	strv_add(&argv, program);
	strv_add(&argv, "--store");
	strv_add(&argv, store_path(store));
	for (; *words != NULL; words++) {
		strv_add(&argv, *words);
	}
	assert_ok(process_run(argv, ret_output, &code, &err), &err);
	return code;
}

#define RUN(store, output, ...)                                                                    \
	run_words((store), (output), (const char *const[]){__VA_ARGS__, NULL})

static json_t *parse(const char *text)
{
	json_t *json = NULL;
	struct error err = ERROR_INIT;

	assert_ok(json_parse_object(text, strlen(text), &json, &err), &err);
	return json;
}

/* img-1 and img-2 of webapp share a layer; img-3 of other stands alone. */
static void fill(struct store *store)
{
	struct layer base = store_kit_seal(store, "", 100000);
	struct layer one = store_kit_seal(store, "", 20000), two = store_kit_seal(store, "", 40000);
	int64_t lists[2][2] = {{base.id, one.id}, {base.id, two.id}};

	store_kit_commit(store, "webapp", lists[0], 2);
	store_kit_commit(store, "webapp", lists[1], 2);
	store_kit_image(store, "other");
}

static void test_ls(void **state)
{
	CLEANUP(free_p) char *table = NULL;
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *image;

	fill(*state);
	assert_int_equal(RUN(*state, &table, "images", "ls"), 0);
	assert_contains(table, "IMAGE  ENVIRONMENT  COMMIT");
	assert_contains(table, "img-2  webapp       0123456789ab");
	assert_contains(table, "head of webapp");
	assert_contains(table, "3 images");
	assert_int_equal(RUN(*state, &text, "images", "--json", "ls", "webapp"), 0);
	json = parse(text);
	assert_int_equal(json_array_size(json_object_get(json, "images")), 2);
	image = json_array_get(json_object_get(json, "images"), 1);
	assert_string_equal(json_string_value(json_object_get(image, "id")), "img-1");
	assert_in_range(
		json_integer_value(json_object_get(image, "exclusive_bytes")), 20000, 60000);
	assert_in_range(json_integer_value(json_object_get(image, "shared_bytes")), 100000, 150000);
	assert_int_equal(json_integer_value(json_object_get(image, "bytes")), 120000);
	assert_false(json_is_true(json_object_get(image, "head")));
}

static void test_info(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(free_p) char *json_words = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	fill(*state);
	assert_int_equal(RUN(*state, &text, "images", "info", "webapp"), 0);
	assert_contains(text, "Image:        img-2");
	assert_contains(text, "(its head)");
	assert_contains(text, "would free");
	assert_contains(text, "step kit");
	assert_int_equal(RUN(*state, &json_words, "images", "info", "img-3", "--json"), 0);
	json = parse(json_words);
	assert_string_equal(json_string_value(json_object_get(json, "environment")), "other");
	assert_true(json_is_object(json_object_get(json, "manifest")));
}

static void test_rm(void **state)
{
	CLEANUP(free_p) char *dry = NULL;
	CLEANUP(free_p) char *refused = NULL;
	CLEANUP(free_p) char *both = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;

	fill(*state);
	assert_int_equal(RUN(*state, &dry, "images", "rm", "--dry-run", "img-1"), 0);
	assert_contains(dry, "would remove img-1");
	assert_contains(dry, "would free");
	assert_int_equal(store_kit_count(*state, "layers"), 4);
	assert_int_equal(RUN(*state, &refused, "images", "rm", "img-1", "img-2"), 4);
	assert_contains(refused, "removed img-1");
	assert_null(strstr(refused, "removed img-2"));
	assert_int_equal(store_kit_count(*state, "layers"), 3);
	assert_int_equal(RUN(*state, &both, "images", "rm", "--head", "--json", "img-2", "3"), 0);
	json = parse(both);
	assert_int_equal(json_array_size(json_object_get(json, "removed")), 2);
	assert_true(json_integer_value(json_object_get(json, "freed_bytes")) >= 150000);
	assert_int_equal(store_kit_count(*state, "layers"), 0);
	assert_int_equal(store_kit_count(*state, "heads"), 0);
}

static void test_recover(void **state)
{
	CLEANUP(free_p) char *first = NULL;
	CLEANUP(free_p) char *second = NULL;
	CLEANUP(free_p) char *third = NULL;

	fill(*state);
	assert_int_equal(mkdirat(store_fd(*state), "staging/left", 0700), 0);
	assert_int_equal(RUN(*state, &first, "recover"), 0);
	assert_contains(first, "1  leftovers");
	assert_int_equal(RUN(*state, &second, "recover"), 0);
	assert_contains(second, "in order");
	assert_int_equal(
		renameat(store_fd(*state), "layers/4", store_fd(*state), "downloads/4"), 0);
	assert_int_equal(RUN(*state, &third, "recover", "--json"), 12);
	assert_contains(third, "\"missing\":1");
}

static void test_exit_codes(void **state)
{
	CLEANUP(free_p) char *help = NULL;
	CLEANUP(free_p) char *path = xasprintf("%s/none", store_path(*state));
	char *ignored = NULL;

	assert_int_equal(RUN(*state, &help, "--help"), 0);
	assert_contains(help, "images ls");
	assert_int_equal(RUN(*state, &ignored, "images", "rm", "--help"), 0);
	assert_contains(ignored, "--dry-run");
	free(ignored);
	assert_int_equal(RUN(*state, NULL, "imges", "ls"), 2);
	assert_int_equal(RUN(*state, NULL, "images"), 2);
	assert_int_equal(RUN(*state, NULL, "images", "rm"), 2);
	assert_int_equal(RUN(*state, NULL, "images", "ls", "--dry-run"), 2);
	assert_int_equal(RUN(*state, NULL, "images", "ls", "a", "b"), 2);
	assert_int_equal(RUN(*state, NULL, "images", "ls", "--nonsense"), 2);
	assert_int_equal(RUN(*state, NULL, "images", "info", "absent"), 3);
	assert_int_equal(RUN(*state, NULL, "images", "rm", "img-9"), 3);
	assert_int_equal(RUN(*state, NULL, "images", "ls", "--store", path), 3);
}

/* Gives the whole store to OWNER, but the tree of layer 2 to yet another id, as a sandbox's. */
static void give_away(const struct store *store)
{
	CLEANUP(free_p)
	char *command =
		xasprintf("chown -R %d:%d '%s' && chown -R 777777:777777 '%s/layers/2/tree' && "
			  "chmod 700 '%s/layers/2/tree' && chmod 711 '%s/..'",
			OWNER, OWNER, store_path(store), store_path(store), store_path(store),
			store_path(store));
	char shell[] = "sh", option[] = "-c";
	char *argv[] = {shell, option, command, NULL};
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, NULL, &code, &err), &err);
	assert_int_equal(code, 0);
}

static void assert_all_belong_to_the_owner(const struct store *store)
{
	CLEANUP(free_p) char *command = xasprintf("find '%s' -uid 0", store_path(store));
	CLEANUP(free_p) char *found = NULL;
	char shell[] = "sh", option[] = "-c";
	char *argv[] = {shell, option, command, NULL};
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, &found, &code, &err), &err);
	assert_string_equal(found, "");
}

static void test_root_becomes_the_owner_of_the_store(void **state)
{
	CLEANUP(free_p) char *ls = NULL;
	CLEANUP(free_p) char *rm = NULL;
	CLEANUP(free_p) char *swept = NULL;

	if (geteuid() != 0) {
		skip();
	}
	fill(*state);
	give_away(*state);
	assert_int_equal(RUN(*state, &ls, "images", "ls"), 0);
	assert_all_belong_to_the_owner(*state);
	/* Layer 2 is img-1's own: its files are neither root's nor the owner's. */
	assert_int_equal(RUN(*state, &rm, "images", "rm", "img-1"), 0);
	assert_contains(rm, "freed");
	assert_int_equal(store_kit_count(*state, "layers"), 3);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_int_equal(mkdirat(store_fd(*state), "staging/left", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "staging/left/work", 0), 0);
	assert_int_equal(fchownat(store_fd(*state), "staging/left", OWNER, OWNER, 0), 0);
	assert_int_equal(RUN(*state, &swept, "recover"), 0);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_all_belong_to_the_owner(*state);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_ls),
		IN_STORE(test_info),
		IN_STORE(test_rm),
		IN_STORE(test_recover),
		IN_STORE(test_exit_codes),
		IN_STORE(test_root_becomes_the_owner_of_the_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
