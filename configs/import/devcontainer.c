/* From devcontainer.json to YAML, key by key, in the order in which an environment is written. Keys
 * that are known and have no counterpart are explained; unknown ones are named. */
#include "configs/import/devcontainer.h"

#include "base/buffer.h"
#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "configs/environment.h"
#include "configs/settings.h"

#include <ctype.h>
#include <stdio.h>

#define YAML_MAX (1024 * 1024)

/* The length of the comment that starts here; 0: none does. */
static size_t comment_length(const char *text, size_t left)
{
	const char *end;

	if (left < 2 || text[0] != '/' || (text[1] != '/' && text[1] != '*')) {
		return 0;
	}
	if (text[1] == '/') {
		end = memchr(text, '\n', left);
		return end != NULL ? (size_t)(end - text) : left;
	}
	end = memmem(text + 2, left - 2, "*/", 2);
	return end != NULL ? (size_t)(end + 2 - text) : left;
}

/* Behind the text in quotes that starts at `from`. */
static size_t skip_text(const char *text, size_t from, size_t length)
{
	for (size_t i = from + 1; i < length; i++) {
		if (text[i] == '\\') {
			i++;
		} else if (text[i] == '"') {
			return i + 1;
		}
	}
	return length;
}

void json_comments_blank(char *text, size_t length)
{
	size_t comma = length; /* the last one with nothing but blanks behind it */

	for (size_t i = 0; i < length;) {
		size_t comment = comment_length(text + i, length - i);

		if (comment > 0) {
			for (size_t end = i + comment; i < end; i++) {
				text[i] = text[i] == '\n' ? '\n' : ' ';
			}
			continue;
		}
		if (!isspace((unsigned char)text[i])) {
			if ((text[i] == ']' || text[i] == '}') && comma < length) {
				text[comma] = ' ';
			}
			comma = text[i] == ',' ? i : length;
		}
		i = text[i] == '"' ? skip_text(text, i, length) : i + 1;
	}
}

/* ---- what comes out ---- */

struct import {
	const struct devcontainer_place *place;
	const json_t *json;
	struct buffer out;
	struct buffer notes; /* comment lines */
	size_t steps;
};

static void note(struct import *import, const char *format, ...) PRINTF_LIKE(2, 3);
static void note(struct import *import, const char *format, ...)
{
	CLEANUP(free_p) char *text = NULL;
	va_list args;

	va_start(args, format);
	text = xvasprintf(format, args);
	va_end(args);
	for (char *at = text; *at != '\0'; at++) {
		*at = (char)(iscntrl((unsigned char)*at) ? ' ' : *at);
	}
	buffer_addf(&import->notes, "# %s\n", text);
}

static const char *text_of(const struct import *import, const char *key)
{
	return json_string_value(json_object_get(import->json, key));
}

static void add_line(struct import *import, const char *key, const char *text)
{
	buffer_addf(&import->out, "%s: ", key);
	yaml_write_text(&import->out, text);
	buffer_add_str(&import->out, "\n");
}

/* "My App (Node)" becomes "my-app-node". */
static char *name_from(const char *text)
{
	char *name = xstrdup(text);
	size_t to = 0;

	for (const char *at = text; *at != '\0' && to < NAME_MAX_LENGTH; at++) {
		bool good = isalnum((unsigned char)*at) != 0;

		if (good || (to > 0 && name[to - 1] != '-')) {
			name[to++] = good ? (char)tolower((unsigned char)*at) : '-';
		}
	}
	while (to > 0 && name[to - 1] == '-') {
		to--;
	}
	name[to] = '\0';
	return name;
}

static void add_name(struct import *import)
{
	const char *said = text_of(import, "name");
	CLEANUP(free_p) char *name = NULL;

	if (import->place->name != NULL) {
		name = xstrdup(import->place->name);
	} else {
		name = name_from(said != NULL ? said : import->place->folder);
	}
	add_line(import, "name", name_is_valid(name) ? name : "imported");
}

/* ${localWorkspaceFolderBasename} and the folder's own path are known here; the rest is not. */
static char *substitute(struct import *import, const char *text, const char *workspace)
{
	static const char *const names[] = {
		"${containerWorkspaceFolder}", "${localWorkspaceFolderBasename}"};
	const char *const values[] = {workspace, import->place->folder};
	struct buffer out;

	buffer_init(&out, YAML_MAX);
	while (*text != '\0') {
		bool found = false;

		for (size_t i = 0; i < ARRAY_SIZE(names) && !found; i++) {
			if (str_starts(text, names[i])) {
				buffer_add_str(&out, values[i]);
				text += strlen(names[i]);
				found = true;
			}
		}
		if (!found) {
			(void)buffer_add(&out, text++, 1);
		}
	}
	return buffer_steal(&out);
}

static char *workspace_of(struct import *import)
{
	const char *said = text_of(import, "workspaceFolder");
	CLEANUP(free_p) char *fallback = xasprintf("/workspaces/%s", import->place->folder);

	return substitute(import, said != NULL ? said : fallback, fallback);
}

static void add_source(struct import *import, const char *workspace)
{
	buffer_add_str(&import->out, "source:\n  url: ");
	yaml_write_text(&import->out, import->place->url);
	buffer_add_str(&import->out, "\n  path: ");
	yaml_write_text(&import->out, workspace);
	buffer_add_str(&import->out, "\n");
}

/* True: the base is an image, and may have the users that the file names. */
static bool add_base(struct import *import)
{
	const char *image = text_of(import, "image");
	const json_t *build = json_object_get(import->json, "build");

	if (image != NULL && strstr(image, "@sha256:") != NULL) {
		CLEANUP(free_p) char *base = xasprintf("oci:%s", image);

		add_line(import, "base", base);
		return true;
	}
	if (image != NULL) {
		note(import,
			"base: its image is %s. Name it by digest, oci:IMAGE@sha256:…; until then "
			"this is",
			image);
		note(import, "      this machine's own /usr.");
	} else if (build != NULL || json_object_get(import->json, "dockerFile") != NULL) {
		note(import,
			"base: it is built from a Dockerfile, which is not supported. Push the "
			"image and name it by digest, or write");
		note(import,
			"      what the Dockerfile installs as packages and steps. Until then this "
			"is this machine's own /usr.");
	} else if (json_object_get(import->json, "dockerComposeFile") != NULL) {
		note(import,
			"base: it is a Compose project, which is not supported: name an image by "
			"digest, and its other containers as services.");
	}
	add_line(import, "base", "host");
	return false;
}

static void add_env(struct import *import, const char *workspace)
{
	static const char *const keys[] = {"containerEnv", "remoteEnv"};
	json_t *all = json_object();
	const char *name;
	json_t *value;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		json_object_foreach (json_object_get(import->json, keys[i]), name, value) {
			CLEANUP(free_p) char *text = NULL;

			if (!json_is_string(value)) {
				note(import, "env: %s.%s is unset there, which has no counterpart",
					keys[i], name);
				continue;
			}
			text = substitute(import, json_string_value(value), workspace);
			if (strstr(text, "${") != NULL) {
				note(import, "env: %s: %s is not known here", name, text);
				continue;
			}
			json_object_set_new(all, name, json_string(text));
		}
	}
	if (json_object_size(all) > 0) {
		buffer_add_str(&import->out, "env:\n");
	}
	json_object_foreach (all, name, value) {
		buffer_add_str(&import->out, "  ");
		yaml_write_quoted(&import->out, name);
		buffer_add_str(&import->out, ": ");
		yaml_write_quoted(&import->out, json_string_value(value));
		buffer_add_str(&import->out, "\n");
	}
	json_decref(all);
}

/* ---- commands ---- */

/* A word for the shell as it stands. */
static void add_word(struct buffer *out, const char *word)
{
	buffer_add_str(out, "'");
	for (; *word != '\0'; word++) {
		if (*word == '\'') {
			buffer_add_str(out, "'\\''");
		} else {
			(void)buffer_add(out, word, 1);
		}
	}
	buffer_add_str(out, "'");
}

static char *command_of(const json_t *json)
{
	struct buffer out;
	size_t i;
	json_t *word;

	if (json_is_string(json)) {
		return xstrdup(json_string_value(json));
	}
	buffer_init(&out, YAML_MAX);
	json_array_foreach (json, i, word) {
		buffer_add_str(&out, i > 0 ? " " : "");
		add_word(&out, json_is_string(word) ? json_string_value(word) : "");
	}
	return buffer_steal(&out);
}

static void add_step(struct import *import, const char *name, const char *run, bool incremental)
{
	CLEANUP(free_p) char *valid = name_from(name);

	if (run[strspn(run, " \t\r\n")] == '\0') {
		note(import, "%s: no command", name);
		return;
	}
	buffer_add_str(&import->out, import->steps++ == 0 ? "steps:\n" : "");
	buffer_addf(&import->out, "  - name: %s\n    run: ", name_is_valid(valid) ? valid : "step");
	yaml_write_quoted(&import->out, run);
	buffer_add_str(&import->out, incremental ? "\n    incremental: true\n" : "\n");
}

static void add_steps(struct import *import, const char *workspace)
{
	static const struct {
		const char *key, *name;
		bool incremental;
	} hooks[] = {{"onCreateCommand", "on-create", false},
		{"updateContentCommand", "update-content", true},
		{"postCreateCommand", "post-create", false}};

	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		json_t *hook = json_object_get(import->json, hooks[i].key), *part;
		const char *name;

		if (hook == NULL || json_is_null(hook)) {
			continue;
		}
		if (!json_is_object(hook)) {
			CLEANUP(free_p) char *said = command_of(hook);
			CLEANUP(free_p) char *run = substitute(import, said, workspace);

			add_step(import, hooks[i].name, run, hooks[i].incremental);
			continue;
		}
		/* Several that run side by side there run one after the other here. */
		json_object_foreach (hook, name, part) {
			CLEANUP(free_p) char *said = command_of(part);
			CLEANUP(free_p) char *run = substitute(import, said, workspace);
			CLEANUP(free_p) char *full = xasprintf("%s-%s", hooks[i].name, name);

			add_step(import, full, run, hooks[i].incremental);
		}
	}
}

static void add_start(struct import *import, const char *workspace)
{
	const json_t *start = json_object_get(import->json, "postStartCommand");

	if (json_is_string(start) || json_is_array(start)) {
		CLEANUP(free_p) char *said = command_of(start);
		CLEANUP(free_p) char *run = substitute(import, said, workspace);

		buffer_add_str(&import->out, "prime:\n  run: ");
		yaml_write_quoted(&import->out, run);
		buffer_add_str(&import->out, "\n");
		note(import,
			"prime: its postStartCommand; if that starts a server, make it a service.");
	} else if (json_is_object(start)) {
		note(import,
			"postStartCommand: several commands: make each a service, or one prime.");
	}
}

static void add_limits(struct import *import)
{
	const json_t *wants = json_object_get(import->json, "hostRequirements");
	static const char *const sizes[][2] = {{"memory", "memory"}, {"storage", "disk"}};
	const json_t *cpus = json_object_get(wants, "cpus");
	bool any = false;

	if (json_is_integer(cpus) && json_integer_value(cpus) > 0) {
		buffer_addf(&import->out, "limits:\n  cpus: %d\n", (int)json_integer_value(cpus));
		any = true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const char *text = json_string_value(json_object_get(wants, sizes[i][0]));
		char unit[3] = "";
		int number = 0;

		/* "8gb": its units are the powers of two that ours are. */
		if (text == NULL || sscanf(text, "%9d%2s", &number, unit) != 2 || number <= 0 ||
			strchr("kmgt", tolower((unsigned char)unit[0])) == NULL) {
			continue;
		}
		buffer_add_str(&import->out, any ? "" : "limits:\n");
		any = true;
		buffer_addf(&import->out, "  %s: %d%ciB\n", sizes[i][1], number,
			toupper((unsigned char)unit[0]));
	}
}

/* ---- what has no counterpart ---- */

static void note_features(struct import *import)
{
	const char *name;
	json_t *options;

	json_object_foreach (json_object_get(import->json, "features"), name, options) {
		CLEANUP(free_p) char *said = json_text(options);

		note(import, "feature, not installed: %s %s", name, said);
	}
}

static void note_ports(struct import *import)
{
	json_t *port;
	size_t i;

	json_array_foreach (json_object_get(import->json, "forwardPorts"), i, port) {
		CLEANUP(free_p) char *said = json_text(port);

		note(import,
			"port that it forwards: %s. A service here says so by ready: {tcp: …}.",
			said);
	}
}

static void note_others(struct import *import)
{
	static const char *const taken[] = {"name", "image", "build", "dockerFile", "context",
		"dockerComposeFile", "workspaceFolder", "containerEnv", "remoteEnv", "remoteUser",
		"containerUser", "onCreateCommand", "updateContentCommand", "postCreateCommand",
		"postStartCommand", "hostRequirements", "features", "forwardPorts", "$schema",
		"customizations", "portsAttributes", "otherPortsAttributes", "waitFor",
		"overrideFeatureInstallOrder", NULL};
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)import->json, key, value) {
		bool known = false;

		for (size_t i = 0; taken[i] != NULL; i++) {
			known = known || streq(taken[i], key);
		}
		if (!known) {
			CLEANUP(free_p) char *said = json_text(value);

			note(import, "not taken over: %s: %.400s", key, said);
		}
	}
}

/* ---- all of it ---- */

static void import_all(struct import *import)
{
	CLEANUP(free_p) char *workspace = workspace_of(import);
	const char *user = text_of(import, "remoteUser");
	bool of_image;

	user = user != NULL ? user : text_of(import, "containerUser");
	add_name(import);
	add_source(import, workspace);
	of_image = add_base(import);
	add_env(import, workspace);
	if (of_image && user != NULL) {
		add_line(import, "user", user);
	} else if (user != NULL && !streq(user, "root")) {
		note(import, "user: it works as %s, whom the base must have; say `user: %s` then.",
			user, user);
	}
	add_steps(import, workspace);
	add_start(import, workspace);
	add_limits(import);
	note_features(import);
	note_ports(import);
	note_others(import);
}

static int check(const struct import *import, const char *yaml, struct error *err)
{
	struct environment *environment = NULL;
	int status = environment_parse(import->place->file, yaml, strlen(yaml), &environment, err);

	environment_free(environment);
	return status < 0
		       ? error_wrap(err, "what comes of %s is no environment", import->place->file)
		       : 0;
}

int devcontainer_import(const struct devcontainer_place *place, const char *text, size_t length,
	char **ret_yaml, struct error *err)
{
	CLEANUP(free_p) char *copy = xstrndup(text, length);
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(free_p) char *yaml = NULL;
	struct import import = {.place = place};
	int status;

	json_comments_blank(copy, strlen(copy));
	status = json_parse_object(copy, strlen(copy), &json, err);
	if (status < 0) {
		return error_wrap(err, "%s", place->file);
	}
	import.json = json;
	buffer_init(&import.out, YAML_MAX);
	buffer_init(&import.notes, YAML_MAX);
	import_all(&import);
	yaml = xasprintf("# From %s.\n%s\n%s", place->file, buffer_text(&import.notes),
		buffer_text(&import.out));
	buffer_done(&import.notes);
	buffer_done(&import.out);
	status = check(&import, yaml, err);
	if (status == 0) {
		*ret_yaml = steal_ptr(yaml);
	}
	return status;
}
