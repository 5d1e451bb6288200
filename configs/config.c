/* The table of hob.yaml's settings, and what they must be together. */
#include "configs/config.h"

#include "base/buffer.h"
#include "base/io.h"
#include "base/path.h"
#include "configs/environment_checks.h"
#include "configs/free_space.h"
#include "configs/settings.h"
#include "configs/yaml.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/un.h>

#define SECOND INT64_C(1000)
#define YEAR (365 * 24 * 3600 * SECOND)
#define MIB (INT64_C(1) << 20)

/* A range of ids for one sandbox, and all that a uid_t can count. */
#define RANGE_IDS 65536
#define ALL_IDS INT64_C(4294967295)

/* <run>/sandboxes/sb-0123456789ab/init.sock must fit into a socket's address. */
#define RUN_BELOW "/sandboxes/sb-0123456789ab/init.sock"
#define RUN_BYTES_MAX                                                                              \
	((int64_t)(sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof(RUN_BELOW)))
#define SOCKET_BYTES_MAX ((int64_t)(sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1))

#define APP(member) .offset = offsetof(struct config_github_app, member)
#define FIELD(member) .offset = offsetof(struct config, member)

#define NAME_LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._-"
#define ACCOUNT_LETTERS NAME_LETTERS "$\\ "

static const char *const page_out_words[] = {"auto", "always", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};

static int check_account(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *name = *text;

	/* Directory services have names with capitals, dots and domains. */
	if (name[0] != '-' && strlen(name) <= 64 && name[strspn(name, ACCOUNT_LETTERS)] == '\0') {
		return 0;
	}
	return setting_refuse(in, row, node, err, "expects the name of a %s, such as \"hob\"",
		streq(row->key, "user") ? "user" : "group");
}

/* A relative path of names that are safe below every controller. */
static int check_cgroup(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	for (const char *part = *text; part != NULL; part = strchr(part, '/')) {
		char name[NAME_MAX_LENGTH + 2] = "";

		part += *part == '/' && part != *text ? 1 : 0;
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(part, "/"), part);
		if (strchr("._-", name[0]) != NULL ||
			name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123"
					  "456789@._-")] != '\0' ||
			strlen(name) > NAME_MAX_LENGTH) {
			return setting_refuse(in, row, node, err,
				"expects \"auto\", or a name below the cgroup root such as \"hob\" "
				"or "
				"\"machine/hob\"");
		}
	}
	return 0;
}

static int check_app_number(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	/* GitHub's client ids serve as well; they go into a JSON text and a file's name. */
	if (**text != '\0' &&
		(*text)[strspn(*text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv"
				      "wxyz0123456789.")] == '\0') {
		return 0;
	}
	return setting_refuse(in, row, node, err, "expects %s", row->expects);
}

static int check_api(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	size_t length = strlen(*text);

	if (!str_starts(*text, "https://") && !str_starts(*text, "http://127.0.0.1:")) {
		return setting_refuse(in, row, node, err, "expects an https:// url");
	}
	if ((*text)[length - 1] == '/') {
		(*text)[length - 1] = '\0';
	}
	return 0;
}

static int check_listen(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *colon = strrchr(*text, ':');
	char *end = NULL;
	long port = colon != NULL ? strtol(colon + 1, &end, 10) : 0;

	if (streq(*text, "none")) {
		return 0;
	}
	if (colon == NULL || colon == *text || *end != '\0' || port < 1 || port > 65535) {
		return setting_refuse(in, row, node, err,
			"expects an address and a port, such as 127.0.0.1:8090 or [::1]:8090");
	}
	return 0;
}

static int check_free_space(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	int64_t bytes, percent;

	return free_space_parse(*text, &bytes, &percent)
		       ? 0
		       : setting_refuse(in, row, node, err,
				 "expects a share of the file system up to 50%%, such as \"5%%\", "
				 "or "
				 "a size such as \"20GiB\"");
}

static const struct setting rows[] = {
	{.key = "store",
		.type = SETTING_HOST_PATH,
		FIELD(store),
		.fallback = "/var/lib/hob",
		.about = "layers, images, mirrors and the catalog"},
	{.key = "run",
		.type = SETTING_HOST_PATH,
		FIELD(run),
		.fallback = "/run/hob",
		.highest = RUN_BYTES_MAX,
		.about =
			"sockets and what must outlive hobd, but not the machine; a tmpfs is best"},
	{.key = "socket",
		.type = SETTING_HOST_PATH,
		FIELD(socket),
		.highest = SOCKET_BYTES_MAX,
		.derived = "hob.sock in run",
		.about = "where the API is"},
	{.key = "environments",
		.type = SETTING_HOST_PATH,
		FIELD(environments),
		.derived = "environments/ beside hob.yaml",
		.about = "the folder of environments, *.yaml"},
	{.key = "user",
		.type = SETTING_TEXT,
		FIELD(user),
		.fallback = "hob",
		.check = check_account,
		.expects = "a user name",
		.about = "whom hobd and hob-build become after their start"},
	{.key = "group",
		.type = SETTING_TEXT,
		FIELD(group),
		.fallback = "hob",
		.check = check_account,
		.expects = "a group name",
		.about = "who may use the API's socket"},
	{.key = "cgroup",
		.type = SETTING_TEXT,
		FIELD(cgroup),
		.fallback = "hob",
		.check = check_cgroup,
		.expects = "a name, or auto",
		.about = "where sandboxes' cgroups are, below the root; auto: below hobd's own"},
	{.key = "id_base",
		.type = SETTING_INT,
		FIELD(id_base),
		.fallback = "0",
		.zero = true,
		.lowest = RANGE_IDS,
		.highest = ALL_IDS - RANGE_IDS,
		.about = "first user id of sandboxes; 0: what /etc/subuid has for `user`"},
	{.key = "id_slots",
		.type = SETTING_INT,
		FIELD(id_slots),
		.fallback = "2048",
		.lowest = 40,
		.highest = 65535,
		.about = "ranges of 65,536 ids: one a sandbox, 32 of them for builds"},
	{.key = "launchers",
		.type = SETTING_INT,
		FIELD(launchers),
		.fallback = "0",
		.lowest = 0,
		.highest = 16,
		.about = "processes that make sandboxes; 0: one a CPU, at most 4"},
	{.key = "max_sandboxes",
		.type = SETTING_INT,
		FIELD(max_sandboxes),
		.fallback = "1024",
		.lowest = 1,
		.highest = 65535,
		.about = "how many sandboxes there may be, ready and claimed"},
	{.key = "hit_rate",
		.type = SETTING_CPUS,
		FIELD(hit_rate),
		.fallback = "0.95",
		.zero = true,
		.lowest = 500,
		.highest = 999,
		.about = "share of claims that are to find a sandbox ready; 0: pool.min alone"},
	{.key = "memory_budget",
		.type = SETTING_SIZE,
		FIELD(memory_budget),
		.fallback = "0",
		.zero = true,
		.lowest = MIB,
		.highest = 64 * 1024 * 1024 * MIB,
		.about = "what ready sandboxes may hold, as measured; 0: no limit"},
	{.key = "disk_budget",
		.type = SETTING_SIZE,
		FIELD(disk_budget),
		.fallback = "0",
		.zero = true,
		.lowest = MIB,
		.highest = 64 * 1024 * 1024 * MIB,
		.about = "what sandboxes may have written, as measured, claimed ones too; 0: no "
			 "limit"},
	{.key = "freeze_after",
		.type = SETTING_DURATION,
		FIELD(freeze_after_ms),
		.fallback = "2s",
		.zero = true,
		.lowest = 10,
		.highest = YEAR,
		.about = "a sandbox that has been ready this long is frozen until it is claimed; "
			 "0: never"},
	{.key = "hints_per_caller",
		.type = SETTING_INT,
		FIELD(hints_per_caller),
		.fallback = "2",
		.lowest = 0,
		.highest = 65535,
		.about = "sandboxes that one caller may reserve by hints; 0: none"},
	{.key = "hint_ttl_max",
		.type = SETTING_DURATION,
		FIELD(hint_ttl_max_ms),
		.fallback = "10m",
		.lowest = SECOND,
		.highest = 24 * 3600 * SECOND,
		.about = "the longest time that a hint may reserve one without being renewed"},
	{.key = "secrets",
		.type = SETTING_HOST_PATH,
		FIELD(secrets),
		.derived = "secrets/ beside hob.yaml",
		.about = "the folder of secrets, a file each, readable for root and hob's group"},
	{.key = "github_apps",
		.type = SETTING_LIST,
		FIELD(github_apps),
		.highest = 64,
		.count_offset = offsetof(struct config, github_app_count),
		.element_size = sizeof(struct config_github_app),
		.derived = "none",
		.about = "GitHub Apps that sources are fetched by, with their auth's type "
			 "github-app"},
	{.key = "github_apps[].name",
		.type = SETTING_TEXT,
		APP(name),
		.required = true,
		.check = check_name,
		.expects = "a name of a-z, 0-9, \".\", \"_\", \"-\"",
		.about = "what environments call it"},
	{.key = "github_apps[].id",
		.type = SETTING_TEXT,
		APP(id),
		.required = true,
		.highest = 32,
		.check = check_app_number,
		.expects = "a number",
		.about = "the App's id"},
	{.key = "github_apps[].installation",
		.type = SETTING_TEXT,
		APP(installation),
		.required = true,
		.highest = 32,
		.check = check_app_number,
		.expects = "a number",
		.about = "the id of its installation for the organisation"},
	{.key = "github_apps[].key",
		.type = SETTING_TEXT,
		APP(key),
		.required = true,
		.check = check_name,
		.expects = "the name of a secret",
		.about = "its private key, a secret in PEM"},
	{.key = "github_apps[].api",
		.type = SETTING_TEXT,
		APP(api),
		.fallback = "https://api.github.com",
		.highest = 255,
		.check = check_api,
		.expects = "an https:// url",
		.about = "where its API is"},
	{.key = "hook_listen",
		.type = SETTING_TEXT,
		FIELD(hook_listen),
		.highest = 255,
		.check = check_listen,
		.expects = "address:port, or none",
		.fallback = "none",
		.about = "where signed push webhooks are taken, such as 127.0.0.1:8090; none: by "
			 "the API's socket only"},
	{.key = "hook_secret",
		.type = SETTING_TEXT,
		FIELD(hook_secret),
		.highest = NAME_MAX_LENGTH,
		.check = check_name,
		.expects = "the name of a secret",
		.fallback = "none",
		.about = "the secret that push webhooks are signed with; none: they are refused"},
	{.key = "page_out",
		.type = SETTING_SWITCH,
		FIELD(page_out_always),
		.fallback = "auto",
		.choices = page_out_words,
		.about = "whether frozen sandboxes give their memory back; auto: where there is "
			 "swap or "
			 "zram"},
	{.key = "page_out_after",
		.type = SETTING_DURATION,
		FIELD(page_out_after_ms),
		.fallback = "10s",
		.zero = true,
		.lowest = 10,
		.highest = YEAR,
		.about = "when they have been frozen or paused this long; 0: never"},
	{.key = "max_builds",
		.type = SETTING_INT,
		FIELD(max_builds),
		.fallback = "2",
		.lowest = 1,
		.highest = 16,
		.about = "how many builds hobd runs at a time"},
	{.key = "build_every",
		.type = SETTING_DURATION,
		FIELD(build_every_ms),
		.fallback = "30m",
		.zero = true,
		.lowest = SECOND,
		.highest = YEAR,
		.about = "how often environments are built that do not say; 0: only when told"},
	{.key = "body_max",
		.type = SETTING_SIZE,
		FIELD(body_bytes_max),
		.fallback = "1MiB",
		.lowest = 1024,
		.highest = 64 * MIB,
		.about = "the largest JSON request"},
	{.key = "file_max",
		.type = SETTING_SIZE,
		FIELD(file_bytes_max),
		.fallback = "4GiB",
		.lowest = 1024,
		.highest = 1024 * 1024 * MIB,
		.about = "the largest uploaded file"},
	{.key = "output_max",
		.type = SETTING_SIZE,
		FIELD(output_bytes_max),
		.fallback = "256MiB",
		.lowest = 65536,
		.highest = 1024 * 1024 * MIB,
		.about =
			"what hobd keeps of captured commands' output in all; the rest is cut off"},
	{.key = "free_space",
		.type = SETTING_TEXT,
		FIELD(free_space),
		.fallback = "5%",
		.check = check_free_space,
		.expects = "a share such as 5%, or a size",
		.about = "with less free for the store builds wait, pools shrink, garbage goes; 0: "
			 "never"},
	{.key = "log_level",
		.type = SETTING_CHOICE,
		FIELD(log_level),
		.fallback = "info",
		.choices = log_levels,
		.about = "the least important of what is logged"},
	{.key = "log_json",
		.type = SETTING_BOOL,
		FIELD(log_json),
		.fallback = "false",
		.about = "log lines as JSON"},
};

static const struct settings settings = {rows, ARRAY_SIZE(rows)};

const struct settings *config_settings(void)
{
	return &settings;
}

static int config_complete(
	struct config *config, const char *folder, const char *name, struct error *err)
{
	if (config->socket == NULL) {
		config->socket = path_resolve(config->run, "hob.sock");
	}
	if (config->secrets == NULL) {
		config->secrets = path_resolve(folder, "secrets");
	}
	if (config->environments == NULL) {
		config->environments = path_resolve(folder, "environments");
	}
	if ((int64_t)strlen(config->run) > RUN_BYTES_MAX ||
		(int64_t)strlen(config->socket) > SOCKET_BYTES_MAX) {
		error_set(err, ERROR_INVALID,
			"%s: run or socket is too long for the address of a socket", name);
		return error_hint(err, "at most %d bytes for run and %d for socket, made absolute",
			(int)RUN_BYTES_MAX, (int)SOCKET_BYTES_MAX);
	}
	if (config->id_base > 0 && config->id_base + config->id_slots * RANGE_IDS > ALL_IDS) {
		error_set(err, ERROR_INVALID,
			"%s: id_base %" PRId64 " and id_slots %" PRId64
			" reach beyond the last user id",
			name, config->id_base, config->id_slots);
		return error_hint(err, "id_base + id_slots * 65536 must be at most 4294967295");
	}
	return 0;
}

static int config_from_yaml(const char *name, const char *file, const struct yaml_node *root,
	struct config **ret_config, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = xcalloc(1, sizeof(*config));
	CLEANUP(free_p) char *folder = folder_of_file(name);
	struct settings_input in = {.settings = &settings, .name = name, .folder = folder};
	int code;

	config->file = xstrdup(file);
	code = settings_read(&in, root, config, err);
	if (code == 0) {
		code = config_complete(config, folder, name, err);
	}
	if (code == 0) {
		*ret_config = steal_ptr(config);
	}
	return code;
}

int config_load(const char *path, struct config **ret_config, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;
	const char *wanted = path != NULL ? path : getenv("HOB_CONFIG");
	bool named = wanted != NULL && wanted[0] != '\0';
	const char *name = named ? wanted : CONFIG_DEFAULT_PATH;
	const char *file = name;
	int code;

	if (!named && access(name, F_OK) != 0 && errno == ENOENT) {
		file = NULL;
		code = yaml_tree_parse(name, "", 0, &root, err);
	} else {
		code = yaml_tree_load(name, &root, err);
	}
	return code < 0 ? code : config_from_yaml(name, file, root, ret_config, err);
}

char *config_explain(const struct config *config)
{
	struct buffer out;

	buffer_init(&out, 0);
	settings_write(&settings, config, &out);
	return buffer_steal(&out);
}

void config_print_reference(void)
{
	CLEANUP(buffer_done) struct buffer out;

	buffer_init(&out, 0);
	settings_reference(&settings, &out);
	fputs(buffer_text(&out), stdout);
}

void config_free(struct config *config)
{
	if (config == NULL) {
		return;
	}
	free(config->file);
	free(config->store);
	free(config->run);
	free(config->socket);
	free(config->environments);
	for (size_t i = 0; i < config->github_app_count; i++) {
		free(config->github_apps[i].name);
		free(config->github_apps[i].id);
		free(config->github_apps[i].installation);
		free(config->github_apps[i].key);
		free(config->github_apps[i].api);
	}
	free(config->github_apps);
	free(config->secrets);
	free(config->hook_listen);
	free(config->hook_secret);
	free(config->user);
	free(config->group);
	free(config->cgroup);
	free(config->free_space);
	free(config->log_level);
	free(config);
}
