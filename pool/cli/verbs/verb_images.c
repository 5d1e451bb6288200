/* hob images: by hob-snapshots for root, which needs no hobd; through hobd for everybody else. */
#include "base/buffer.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/help.h"
#include "pool/cli/table.h"
#include "pool/cli/verbs/images.h"

#include <stdio.h>

int images_begin(struct call *call, bool *ret_done, struct error *err)
{
	const char *const words[] = {"images", call->verb->name, NULL};
	const struct option_set sets[] = {{cli_option_rows, cli_option_count, call->cli},
		{call->verb->options, call->verb->option_count, call->values}};
	int status;

	if (geteuid() == 0) {
		return cli_become(call->cli, "hob-snapshots", words, call->operands, err);
	}
	status = options_parse(
		sets, 2, OPTIONS_NO_COMMAND, call->operands, &call->operand_count, err);
	if (status < 0) {
		return err->hint[0] != '\0'
			       ? status
			       : error_hint(
					 err, "as root, hob images takes what hob-snapshots takes");
	}
	*ret_done = call->cli->help;
	if (call->cli->help) {
		help_print_verb("hob images", call->verb);
	}
	return 0;
}

static void add_users(struct table *table, const json_t *users)
{
	struct buffer line;
	size_t i;
	json_t *user;

	buffer_init(&line, 0);
	json_array_foreach (users, i, user) {
		buffer_addf(&line, "%s%s", i > 0 ? ", " : "",
			json_is_string(user) ? json_string_value(user) : "?");
	}
	table_add(table, buffer_text(&line));
	buffer_done(&line);
}

static void add_bytes(struct table *table, const json_t *object, const char *key)
{
	char text[HUMAN_SIZE];

	human_bytes(text, json_integer_value(json_object_get(object, key)));
	table_add(table, text);
}

static void add_image(struct table *table, const json_t *image)
{
	CLEANUP(free_p) char *commit = human_commit(image);
	CLEANUP(free_p)
	char *layers = xasprintf("%zu", json_array_size(json_object_get(image, "layers")));
	char age[HUMAN_SIZE];

	table_add_member(table, image, "id");
	table_add_member(table, image, "environment");
	table_add(table, commit);
	human_age(age, json_string_value(json_object_get(image, "created_at")));
	table_add(table, age);
	table_add(table, layers);
	add_bytes(table, image, "exclusive_bytes");
	add_bytes(table, image, "shared_bytes");
	add_users(table, json_object_get(image, "users"));
}

static int images_ls_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"IMAGE", false}, {"ENVIRONMENT", false},
		{"COMMIT", false}, {"AGE", true}, {"LAYERS", true}, {"EXCLUSIVE", true},
		{"SHARED", true}, {"USED BY", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *environment = NULL;
	bool done = false;
	size_t i;
	json_t *image;
	int status = images_begin(call, &done, err);

	if (status < 0 || done) {
		return status;
	}
	if (call->operand_count > 1) {
		return error_set(err, ERROR_USAGE, "hob images ls takes one environment at most");
	}
	environment = cli_escape(call->operand_count > 0 ? call->operands[0] : "");
	status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/images%s%s",
		call->operand_count > 0 ? "?environment=" : "", environment);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "images"), i, image) {
		add_image(table, image);
	}
	table_print(table, "no images yet: `hob build ENV` makes one");
	return 0;
}

static void print_image(const json_t *image)
{
	static const char *const members[][2] = {{"Id", "id"}, {"Environment", "environment"},
		{"Commit", "commit"}, {"Created", "created_at"}, {"Head", "head"}};
	static const struct table_column columns[] = {{"LAYER", true}, {"KIND", false},
		{"FILES", true}, {"BYTES", true}, {"ON DISK", true}, {"TITLE", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t i;
	json_t *layer;

	human_print_members(image, members, ARRAY_SIZE(members));
	json_array_foreach (json_object_get(image, "layers"), i, layer) {
		table_add_member(table, layer, "id");
		table_add_member(table, layer, "kind");
		table_add_member(table, layer, "files");
		add_bytes(table, layer, "bytes");
		add_bytes(table, layer, "stored");
		table_add_member(table, layer, "title");
	}
	table_print(table, NULL);
}

/* `method` on each image that is named; `show` prints a reply. The options have been read. */
static int images_each(struct call *call, const char *method, const char *part,
	void (*show)(const json_t *reply), struct error *err)
{
	int status = 0;

	if (call->operand_count == 0) {
		return error_set(
			err, ERROR_USAGE, "hob images %s needs an image", call->verb->name);
	}
	for (size_t i = 0; i < call->operand_count && status >= 0; i++) {
		CLEANUP(free_p) char *id = cli_escape(call->operands[i]);
		CLEANUP(json_decref_p) json_t *reply = NULL;

		status =
			cli_call(call->cli, method, NULL, &reply, err, "/v1/images/%s%s", id, part);
		if (status >= 0 && call->cli->json) {
			human_print_json(reply);
		} else if (status >= 0) {
			show(reply);
		}
	}
	return status;
}

static int images_info_run(struct call *call, struct error *err)
{
	const struct images_options *options = call->values;
	bool done = false;
	int status = images_begin(call, &done, err);

	if (status < 0 || done) {
		return status;
	}
	return options->packages ? images_each(call, "GET", "/packages", images_print_packages, err)
				 : images_each(call, "GET", "", print_image, err);
}

static void print_removed(const json_t *reply)
{
	CLEANUP(free_p) char *id = human_member(reply, "id");
	char freed[HUMAN_SIZE];

	human_bytes(freed, json_integer_value(json_object_get(reply, "freed_bytes")));
	printf("%s removed, %s freed\n", id, freed);
}

static int images_rm_run(struct call *call, struct error *err)
{
	bool done = false;
	int status = images_begin(call, &done, err);

	return status < 0 || done ? status : images_each(call, "DELETE", "", print_removed, err);
}

static int images_rollback_run(struct call *call, struct error *err)
{
	CLEANUP(json_decref_p) json_t *body = json_object();
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *environment = NULL;
	CLEANUP(free_p) char *head = NULL;
	bool done = false;
	int status = images_begin(call, &done, err);

	if (status < 0 || done) {
		return status;
	}
	if (call->operand_count < 1 || call->operand_count > 2) {
		return error_set(err, ERROR_USAGE,
			"hob images rollback takes an environment, and an image if you like");
	}
	if (call->operand_count == 2) {
		json_object_set_new(body, "image", json_string(call->operands[1]));
	}
	environment = cli_escape(call->operands[0]);
	status = cli_call(
		call->cli, "POST", body, &reply, err, "/v1/environments/%s/rollback", environment);
	if (status >= 0 && call->cli->json) {
		human_print_json(reply);
	} else if (status >= 0) {
		head = human_member(reply, "head");
		printf("%s is the head of %s again\n", head, call->operands[0]);
	}
	return status;
}

static const struct verb images_ls = {
	.name = "ls",
	.operands = "[ENV]",
	.summary = "List them, the newest first",
	.raw = true,
	.run = images_ls_run,
};

static const struct option_row info_options[] = {
	{"packages", '\0', OPTION_FLAG, NULL, offsetof(struct images_options, packages),
		"only what is installed below the sources, with versions and digests"}};

static const struct verb images_info = {
	.name = "info",
	.operands = "IMAGE…",
	.summary = "Show all about one: its layers, and what removing it frees",
	VERB_OPTIONS(info_options, struct images_options),
	.raw = true,
	.run = images_info_run,
};

static const struct verb images_rm = {
	.name = "rm",
	.operands = "IMAGE…",
	.summary = "Remove images that nothing needs",
	.raw = true,
	.run = images_rm_run,
};

static const struct verb images_rollback = {
	.name = "rollback",
	.operands = "ENV [IMAGE]",
	.summary = "Make the image before an environment's head, or this one, the head again",
	.raw = true,
	.run = images_rollback_run,
};

static const struct verb *const images_parts[] = {
	&images_ls, &images_info, &images_diff, &images_rm, &images_rollback, NULL};

const struct verb verb_images = {
	.name = "images",
	.group = "Environments and images",
	.summary = "List, show and remove images",
	.details = "As root it is `hob-snapshots images`, with all its options.",
	.parts = images_parts,
};
