/* hob.yaml: defaults, paths, refusals, and that the example that comes with hob is true. */
#include "tests/lib/test.h"

#include "base/buffer.h"
#include "configs/config.h"
#include "configs/settings.h"

#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

static int load_text(
	const char *folder, const char *text, struct config **ret_config, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/hob.yaml", folder);

	temp_write(folder, "hob.yaml", text);
	return config_load(path, ret_config, err);
}

static void test_defaults(void **state)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(free_p) char *real = realpath(*state, NULL);
	CLEANUP(free_p) char *environments = xasprintf("%s/environments", real);
	struct error err = ERROR_INIT;

	assert_ok(load_text(*state, "# nothing\n", &config, &err), &err);
	assert_string_equal(config->store, "/var/lib/hob");
	assert_string_equal(config->run, "/run/hob");
	assert_string_equal(config->socket, "/run/hob/hob.sock");
	assert_string_equal(config->environments, environments);
	assert_string_equal(config->user, "hob");
	assert_string_equal(config->group, "hob");
	assert_string_equal(config->cgroup, "hob");
	assert_int_equal(config->id_base, 0);
	assert_int_equal(config->id_slots, 2048);
	assert_int_equal(config->launchers, 0);
	assert_int_equal(config->max_builds, 2);
	assert_int_equal(config->hints_per_caller, 2);
	assert_int_equal(config->hint_ttl_max_ms, 10 * 60 * 1000);
	assert_int_equal(config->build_every_ms, 30 * 60 * 1000);
	assert_int_equal(config->body_bytes_max, 1 << 20);
	assert_string_equal(config->log_level, "info");
	assert_false(config->log_json);
}

static void test_paths(void **state)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(free_p) char *real = realpath(*state, NULL);
	CLEANUP(free_p) char *store = xasprintf("%s/var/store", real);
	struct error err = ERROR_INIT;

	assert_ok(load_text(*state, "store: ./var//x/../store\nrun: /tmp/r/\nenvironments: /e\n",
			  &config, &err),
		&err);
	assert_string_equal(config->store, store);
	assert_string_equal(config->run, "/tmp/r");
	assert_string_equal(config->socket, "/tmp/r/hob.sock");
	assert_string_equal(config->environments, "/e");
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} mistakes[] = {
		{"stroe: /x\n", "hob.yaml:1:1: unknown key \"stroe\"; did you mean \"store\"?"},
		{"store: []\n", "\"store\" expects a path, not a list"},
		{"store: ''\n", "\"store\" is empty"},
		{"user: -x\n", "\"user\" expects the name of a user"},
		{"group: a/b\n", "\"group\" expects the name of a group"},
		{"cgroup: ../x\n", "\"cgroup\" expects \"auto\", or a name"},
		{"cgroup: /x\n", "\"cgroup\" expects"},
		{"cgroup: a//b\n", "\"cgroup\" expects"},
		{"id_base: 1000\n", "\"id_base\" is 1000; allowed is 65536 to 4294901759, or 0"},
		{"id_base: 4294901759\n", "reach beyond the last user id"},
		{"id_slots: 2\n", "\"id_slots\" is 2; allowed is 40 to 65535"},
		{"log_level: warning\n",
			"expects one of debug, info, warn, error, not \"warning\""},
		{"log_json: 1\n", "expects true or false"},
		{"build_every: 30\n", "expects a duration such as \"30m\""},
		{"body_max: 1\n", "expects a size"},
		{"run: "
		 "/0123456789012345678901234567890123456789012345678901234567890123456789012345\n",
			"\"run\" has"},
		{"- x\n", "expects a mapping"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
		CLEANUP(config_free_p) struct config *config = NULL;
		struct error err = ERROR_INIT;

		assert_kind(
			load_text(*state, mistakes[i].text, &config, &err), &err, ERROR_INVALID);
		assert_contains(err.message, mistakes[i].message);
	}
}

static void test_cgroup_names(void **state)
{
	static const char *const good[] = {"hob", "auto", "machine.slice/hob", "a/b/c"};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CLEANUP(config_free_p) struct config *config = NULL;
		CLEANUP(free_p) char *text = xasprintf("cgroup: %s\n", good[i]);
		struct error err = ERROR_INIT;

		assert_ok(load_text(*state, text, &config, &err), &err);
		assert_string_equal(config->cgroup, good[i]);
	}
}

static void test_missing(void **state)
{
	CLEANUP(free_p) char *path = xasprintf("%s/missing.yaml", (char *)*state);
	CLEANUP(config_free_p) struct config *config = NULL;
	struct error err = ERROR_INIT;

	assert_kind(config_load(path, &config, &err), &err, ERROR_NOT_FOUND);
	if (access(CONFIG_DEFAULT_PATH, F_OK) == 0) {
		return;
	}
	assert_ok(config_load(NULL, &config, &err), &err);
	assert_null(config->file);
	assert_string_equal(config->environments, "/etc/hob/environments");
}

/* Every program takes the same file, so that one never works on another's store. */
static void test_named_by_the_environment(void **state)
{
	CLEANUP(free_p) char *path = xasprintf("%s/named.yaml", (char *)*state);
	CLEANUP(free_p) char *missing = xasprintf("%s/missing.yaml", (char *)*state);
	CLEANUP(config_free_p) struct config *config = NULL, *none = NULL;
	struct error err = ERROR_INIT;

	temp_write(*state, "named.yaml", "environments: /srv/environments\n");
	setenv("HOB_CONFIG", path, 1);
	assert_ok(config_load(NULL, &config, &err), &err);
	assert_string_equal(config->environments, "/srv/environments");
	assert_kind(config_load(missing, &none, &err), &err, ERROR_NOT_FOUND);
	setenv("HOB_CONFIG", missing, 1);
	assert_kind(config_load(NULL, &none, &err), &err, ERROR_NOT_FOUND);
	unsetenv("HOB_CONFIG");
}

/* configs/hob.yaml documents every setting with its default: for each row its line of meaning, and
 * with the "#" taken away it reads as the defaults do. */
static void test_example(void **state)
{
	const struct settings *settings = config_settings();
	CLEANUP(free_p) char *example = temp_read("configs", "hob.yaml");
	CLEANUP(config_free_p) struct config *config = NULL, *defaults = NULL;
	CLEANUP(buffer_done) struct buffer bare;
	CLEANUP(free_p) char *wanted = NULL, *found = NULL;
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < settings->count; i++) {
		const struct setting *row = &settings->rows[i];
		CLEANUP(free_p) char *lines = NULL;
		char type[128];

		if (strstr(row->key, "[].") != NULL) {
			continue; /* of an entry: described with the list */
		}

		setting_type_text(row, type, sizeof(type));
		lines = xasprintf("\n# %s\n# (%s)\n#%s: ", row->about, type, row->key);
		assert_contains(example, lines);
	}
	buffer_init(&bare, 0);
	for (char *line = example, *end; *line != '\0'; line = end) {
		end = line + strcspn(line, "\n");
		end += *end == '\n' ? 1 : 0;
		line += line[0] == '#' && islower((unsigned char)line[1]) ? 1 : 0;
		buffer_add(&bare, line, (size_t)(end - line));
	}
	assert_ok(load_text(*state, buffer_text(&bare), &config, &err), &err);
	assert_ok(load_text(*state,
			  "environments: /etc/hob/environments\nsecrets: /etc/hob/secrets\n",
			  &defaults, &err),
		&err);
	wanted = config_explain(defaults);
	found = config_explain(config);
	assert_string_equal(found, wanted);
}

/* No two settings share a key, and everything a person sees of a row is there. */
static void test_table(void **state)
{
	const struct settings *settings = config_settings();

	(void)state;
	for (size_t i = 0; i < settings->count; i++) {
		const struct setting *row = &settings->rows[i];

		assert_non_null(row->about);
		assert_true(row->fallback != NULL || row->derived != NULL || row->required);
		if (strstr(row->key, "[].") == NULL) {
			assert_ptr_equal(setting_find(settings, "", row->key), row);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_paths, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_mistakes, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_cgroup_names, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_missing, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(
			test_named_by_the_environment, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_example, setup_folder, teardown_folder),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
