/* `hob-snapshots images ls|info`: what there is, who needs it, and what deleting it would free. */
#include "snapshots/cli/cli.h"
#include "snapshots/inventory.h"

#include "base/clock.h"

#define COMMIT_SHOWN 12

static json_t *layer_json(const struct layer *layer)
{
	return json_pack("{s:I, s:s, s:s, s:I, s:I, s:I}", "id", (json_int_t)layer->id, "kind",
		layer->kind, "title", layer->title, "files", (json_int_t)layer->files, "bytes",
		(json_int_t)layer->bytes, "stored", (json_int_t)layer->stored);
}

static json_t *image_json(const struct inventory_row *row)
{
	const struct image *image = &row->image;
	char id[CLI_TEXT_SIZE], created[CLOCK_TEXT_SIZE];
	json_t *layers = json_array(), *users = json_array();

	snprintf(id, sizeof(id), "img-%lld", (long long)image->id);
	clock_format(created, image->created_ms);
	for (size_t i = 0; i < image->layer_count; i++) {
		json_array_append_new(layers, layer_json(&image->layers[i]));
	}
	for (size_t i = 0; row->users[i] != NULL; i++) {
		json_array_append_new(users, json_string(row->users[i]));
	}
	return json_pack("{s:s, s:s, s:o, s:s, s:b, s:o, s:I, s:I, s:I, s:o}", "id", id,
		"environment", image->environment, "commit",
		json_str_or_null(image->commit[0] != '\0' ? image->commit : NULL), "created_at",
		created, "head", image->is_head, "layers", layers, "bytes", (json_int_t)row->bytes,
		"exclusive_bytes", (json_int_t)row->exclusive, "shared_bytes",
		(json_int_t)row->shared, "users", users);
}

static char *users_text(char *const *users)
{
	char *text = xstrdup(users[0] != NULL ? users[0] : "-");

	for (size_t i = 1; users[0] != NULL && users[i] != NULL; i++) {
		char *longer = xasprintf("%s, %s", text, users[i]);

		free(text);
		text = longer;
	}
	return text;
}

static void add_row(struct cli_table *table, const struct inventory_row *row)
{
	CLEANUP(free_p) char *users = users_text(row->users);
	char text[CLI_TEXT_SIZE];

	snprintf(text, sizeof(text), "img-%lld", (long long)row->image.id);
	cli_cell(table, text);
	cli_cell(table, row->image.environment);
	snprintf(text, sizeof(text), "%.*s", COMMIT_SHOWN,
		row->image.commit[0] != '\0' ? row->image.commit : "-");
	cli_cell(table, text);
	cli_age(text, row->image.created_ms);
	cli_cell(table, text);
	snprintf(text, sizeof(text), "%zu", row->image.layer_count);
	cli_cell(table, text);
	text_bytes(text, row->exclusive);
	cli_cell(table, text);
	text_bytes(text, row->shared);
	cli_cell(table, text);
	cli_cell(table, users);
}

static bool is_listed(const struct inventory_row *row, const char *environment)
{
	return environment == NULL || streq(row->image.environment, environment);
}

static void print_table(const struct inventory *inventory, const char *environment)
{
	static const bool right[] = {false, false, false, true, true, true, true, false};
	static const char *const titles[] = {"IMAGE", "ENVIRONMENT", "COMMIT", "AGE", "LAYERS",
		"EXCLUSIVE", "SHARED", "USED BY"};
	CLEANUP(cli_table_done)
	struct cli_table table = {.columns = ARRAY_SIZE(titles), .right = right};
	char stored[CLI_TEXT_SIZE];
	size_t listed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		cli_cell(&table, titles[i]);
	}
	for (size_t i = 0; i < inventory->count; i++) {
		if (is_listed(&inventory->rows[i], environment)) {
			add_row(&table, &inventory->rows[i]);
			listed++;
		}
	}
	if (listed == 0) {
		fprintf(stderr, "no images%s%s yet: hob build makes one\n",
			environment != NULL ? " of " : "", environment != NULL ? environment : "");
		return;
	}
	cli_table_print(&table);
	text_bytes(stored, inventory->stored);
	printf("%zu image%s; all images together take %s on disk\n", listed, listed == 1 ? "" : "s",
		stored);
}

int cli_images_ls(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(inventory_done) struct inventory inventory = {0};
	const char *environment = cli->operands[0];
	int status = cli_open(cli, STORE_READ, err);

	if (status == 0) {
		status = inventory_read(cli->store, &inventory, err);
	}
	if (status < 0) {
		return status;
	}
	if (cli->json) {
		CLEANUP(json_decref_p) json_t *json = json_object();
		json_t *images = json_array();

		for (size_t i = 0; i < inventory.count; i++) {
			if (is_listed(&inventory.rows[i], environment)) {
				json_array_append_new(images, image_json(&inventory.rows[i]));
			}
		}
		json_object_set_new(json, "images", images);
		json_object_set_new(
			json, "stored_bytes", json_integer((json_int_t)inventory.stored));
		json_print(json);
	} else {
		print_table(&inventory, environment);
	}
	return 0;
}

static void print_info(const struct inventory_row *row)
{
	const struct image *image = &row->image;
	CLEANUP(free_p) char *users = users_text(row->users);
	char created[CLOCK_TEXT_SIZE], age[CLI_TEXT_SIZE], exclusive[CLI_TEXT_SIZE],
		shared[CLI_TEXT_SIZE];

	clock_format(created, image->created_ms);
	cli_age(age, image->created_ms);
	text_bytes(exclusive, row->exclusive);
	text_bytes(shared, row->shared);
	printf("Image:        img-%lld\n", (long long)image->id);
	printf("Environment:  %s%s\n", image->environment, image->is_head ? " (its head)" : "");
	printf("Commit:       %s\n", image->commit[0] != '\0' ? image->commit : "-");
	printf("Created:      %s (%s ago)\n", created, age);
	printf("Used by:      %s\n", users);
	printf("Removing it:  %s %s; %s stay, shared with other images\n",
		row->users[0] != NULL ? "would free" : "frees", exclusive, shared);
	printf("Starts with:  %s\n\nLayers, the top one first:\n", image->manifest);
	cli_layers_print(image->layers, image->layer_count, false);
}

/* ---- --packages ---- */

static void packages_row(struct cli_table *table, const char *manager, const char *name,
	const char *version, const char *asked, const char *digest)
{
	cli_cell(table, manager);
	cli_cell(table, name != NULL ? name : "-");
	cli_cell(table, version != NULL ? version : "-");
	cli_cell(table, asked);
	cli_cell(table, digest != NULL ? digest : "-");
}

static void print_packages(const json_t *packages, const json_t *files)
{
	static const bool right[] = {false, false, false, false, false};
	CLEANUP(cli_table_done) struct cli_table table = {.columns = 5, .right = right};
	json_t *one;
	size_t i;

	packages_row(&table, "MANAGER", "NAME", "VERSION", "ASKED FOR", "DIGEST");
	json_array_foreach (packages, i, one) {
		packages_row(&table, json_string_value(json_object_get(one, "manager")),
			json_string_value(json_object_get(one, "name")),
			json_string_value(json_object_get(one, "version")),
			json_is_true(json_object_get(one, "requested")) ? "yes" : "no",
			json_string_value(json_object_get(one, "digest")));
	}
	json_array_foreach (files, i, one) {
		CLEANUP(free_p)
		char *digest =
			xasprintf("sha256:%s", json_string_value(json_object_get(one, "digest")));

		packages_row(&table, "files", json_string_value(json_object_get(one, "path")), "-",
			"yes", digest);
	}
	if (json_array_size(packages) + json_array_size(files) == 0) {
		puts("nothing is installed below its sources but its base");
		return;
	}
	cli_table_print(&table);
}

static int print_packages_of(struct snapshots_cli *cli, const char *name, struct error *err)
{
	CLEANUP(json_decref_p) json_t *manifest = NULL;
	CLEANUP(json_decref_p) json_t *json = json_object();
	json_t *packages, *files;
	struct image image;
	int status = image_find(cli->store, name, &image, err);

	if (status < 0) {
		return status;
	}
	manifest = json_loads(image.manifest, 0, NULL);
	packages = json_object_get(manifest, "packages");
	files = json_object_get(manifest, "files");
	if (cli->json) {
		json_object_set_new(json, "id", json_sprintf("img-%lld", (long long)image.id));
		json_object_set_new(
			json, "packages", packages != NULL ? json_incref(packages) : json_array());
		json_object_set_new(
			json, "files", files != NULL ? json_incref(files) : json_array());
		json_print(json);
	} else {
		print_packages(packages, files);
	}
	image_done(&image);
	return 0;
}

static int print_one(struct snapshots_cli *cli, const struct inventory *inventory, const char *name,
	struct error *err)
{
	struct image image;
	const struct inventory_row *row;
	int status = image_find(cli->store, name, &image, err);

	if (status < 0) {
		return status;
	}
	row = inventory_find(inventory, image.id);
	image_done(&image);
	if (row == NULL) {
		return error_set(err, ERROR_NOT_FOUND, "image \"%s\" has just been removed", name);
	}
	if (cli->json) {
		CLEANUP(json_decref_p) json_t *json = image_json(row);
		json_t *manifest = json_loads(row->image.manifest, 0, NULL);

		json_object_set_new(json, "manifest", manifest != NULL ? manifest : json_null());
		json_print(json);
	} else {
		print_info(row);
	}
	return 0;
}

int cli_images_info(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(inventory_done) struct inventory inventory = {0};
	int status;

	if (cli->operand_count == 0) {
		return error_set(err, ERROR_USAGE, "images info needs the name of an image");
	}
	status = cli_open(cli, STORE_READ, err);
	if (status == 0 && !cli->packages) {
		status = inventory_read(cli->store, &inventory, err);
	}
	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		if (i > 0 && !cli->json) {
			putchar('\n');
		}
		status = cli->packages ? print_packages_of(cli, cli->operands[i], err)
				       : print_one(cli, &inventory, cli->operands[i], err);
	}
	return status;
}
