/* `hob-snapshots info|pin|unpin|tag|untag`: one snapshot at a time. */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"
#include "snapshots/tree/flatten.h"

#include "base/clock.h"

static json_t *layers_json(const struct snapshot *snapshot)
{
	json_t *layers = json_array();

	for (size_t i = 0; i < snapshot->layer_count; i++) {
		const struct layer *layer = &snapshot->layers[i];

		json_array_append_new(layers,
			json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:b, s:b}", "id",
				(json_int_t)layer->id, "kind", layer->kind, "title", layer->title,
				"files", (json_int_t)layer->files, "bytes",
				(json_int_t)layer->bytes, "stored", (json_int_t)layer->stored,
				"own", i >= snapshot->layer_count - snapshot->own_count, "shared",
				layer->refs > 1));
	}
	return layers;
}

static void print_users(char *const *users, char *const *sandboxes)
{
	printf("Needed by:    %s", users[0] != NULL ? users[0] : "nothing");
	for (size_t i = 1; users[0] != NULL && users[i] != NULL; i++) {
		printf(", %s", users[i]);
	}
	for (size_t i = 0; sandboxes[i] != NULL; i++) {
		printf("%s%s", i > 0 ? ", " : "\nStood on by:  ", sandboxes[i]);
	}
	putchar('\n');
}

static void print_depth(const struct snapshot *snapshot, const struct flatten_failure *failure)
{
	char age[CLI_TEXT_SIZE];

	printf("Depth:        %zu layers%s%s\n", snapshot->layer_count,
		snapshot->generation > 1 ? ", flattened" : "",
		snapshot->layer_count > SNAPSHOT_LAYERS_GOOD ? ", to be flattened" : "");
	if (failure->attempts > 0) {
		cli_age(age, failure->failed_ms);
		printf("              flattening has failed %lld times, last %s ago: %s\n",
			(long long)failure->attempts, age, failure->message);
	}
}

static void print_info(const struct snapshot *snapshot, char *const *users, char *const *sandboxes,
	const struct flatten_failure *failure)
{
	char created[CLOCK_TEXT_SIZE], age[CLI_TEXT_SIZE], exclusive[CLI_TEXT_SIZE],
		shared[CLI_TEXT_SIZE], bytes[CLI_TEXT_SIZE];

	clock_format(created, snapshot->created_ms);
	cli_age(age, snapshot->created_ms);
	text_bytes(bytes, snapshot->bytes);
	text_bytes(exclusive, snapshot->exclusive);
	text_bytes(shared, snapshot->stored - snapshot->exclusive);
	printf("Snapshot:     snap-%lld%s%s\n", (long long)snapshot->id,
		snapshot->tags != NULL ? ", tagged " : "",
		snapshot->tags != NULL ? snapshot->tags : "");
	printf("Environment:  %s\n", snapshot->environment);
	printf("Reason:       %s\n", snapshot_reason_name(snapshot->reason));
	printf("Label:        %s\n", snapshot->label[0] != '\0' ? snapshot->label : "-");
	if (snapshot->parent_id != 0) {
		printf("Parent:       snap-%lld, of img-%lld\n", (long long)snapshot->parent_id,
			(long long)snapshot->image_id);
	} else if (snapshot->image_id != 0) {
		printf("Parent:       img-%lld\n", (long long)snapshot->image_id);
	} else {
		puts("Parent:       none: it was imported");
	}
	printf("Commit:       %s\n", snapshot->commit[0] != '\0' ? snapshot->commit : "-");
	printf("Sandbox:      %s\n", snapshot->sandbox[0] != '\0' ? snapshot->sandbox : "-");
	printf("Created:      %s (%s ago)\n", created, age);
	print_users(users, sandboxes);
	print_depth(snapshot, failure);
	printf("Size:         %s, before links and holes\n", bytes);
	printf("Removing it:  %s %s; %s stay, shared with others\n",
		users[0] != NULL ? "would free" : "frees", exclusive, shared);
	printf("Metadata:     %s\n", snapshot->metadata);
	printf("Starts with:  %s\n\nLayers, the top one first:\n", snapshot->manifest);
	cli_layers_print(snapshot->layers, snapshot->layer_count, true);
}

static json_t *strings_json(char *const *strings)
{
	json_t *list = json_array();

	for (; *strings != NULL; strings++) {
		json_array_append_new(list, json_string(*strings));
	}
	return list;
}

static int print_one(struct snapshots_cli *cli, const struct snapshot *snapshot, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	CLEANUP(strv_free_p) char **sandboxes = cli_standing(cli, snapshot->id);
	struct flatten_failure failure = {0};
	int status = snapshot_users(cli->store, snapshot->id, &users, err);

	if (status == 0) {
		status = flatten_failure_get(cli->store, snapshot->id, &failure, err);
	}
	if (status < 0) {
		return status;
	}
	if (cli->json) {
		CLEANUP(json_decref_p) json_t *json = cli_snapshot_json(snapshot);
		json_t *manifest = json_loads(snapshot->manifest, 0, NULL);

		json_object_set_new(json, "users", strings_json(users));
		json_object_set_new(json, "sandboxes", strings_json(sandboxes));
		json_object_set_new(json, "generation", json_integer(snapshot->generation));
		json_object_set_new(json, "flatten_failure",
			failure.attempts > 0 ? json_pack("{s:I, s:I, s:I, s:o}", "attempts",
						       (json_int_t)failure.attempts, "failed_ms",
						       (json_int_t)failure.failed_ms, "retry_ms",
						       (json_int_t)failure.retry_ms, "message",
						       json_str_or_null(failure.message))
					     : json_null());
		json_object_set_new(json, "layers", layers_json(snapshot));
		json_object_set_new(json, "manifest", manifest != NULL ? manifest : json_null());
		json_print(json);
	} else {
		print_info(snapshot, users, sandboxes, &failure);
	}
	return 0;
}

int cli_info(struct snapshots_cli *cli, struct error *err)
{
	int status = cli_open(cli, STORE_READ, err);

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		CLEANUP(snapshot_done) struct snapshot snapshot = {0};

		if (i > 0 && !cli->json) {
			putchar('\n');
		}
		status = snapshot_find(cli->store, cli->operands[i], &snapshot, err);
		if (status == 0) {
			status = print_one(cli, &snapshot, err);
		}
	}
	return status;
}

/* What a change did, on one line. */
static void say(const struct snapshots_cli *cli, int64_t id, const char *key, const char *what,
	json_t *value)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	char text[CLI_ID_SIZE];

	cli_snapshot_id(text, id);
	if (cli->json) {
		json = json_pack("{s:s, s:o}", "id", text, key, value);
		json_print(json);
	} else {
		json_decref(value);
		printf("%s: %s %s\n", text, key, what);
	}
}

static int pin_all(struct snapshots_cli *cli, bool pinned, struct error *err)
{
	int status = cli_open(cli, STORE_WRITE, err);

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		CLEANUP(snapshot_done) struct snapshot snapshot = {0};

		status = snapshot_find(cli->store, cli->operands[i], &snapshot, err);
		if (status == 0) {
			status = snapshot_pin(cli->store, snapshot.id, pinned, err);
		}
		if (status == 0) {
			say(cli, snapshot.id, "pinned", pinned ? "yes" : "no",
				json_boolean(pinned));
		}
	}
	return status;
}

int cli_pin(struct snapshots_cli *cli, struct error *err)
{
	return pin_all(cli, true, err);
}

int cli_unpin(struct snapshots_cli *cli, struct error *err)
{
	return pin_all(cli, false, err);
}

int cli_tag(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	int status = cli_open(cli, STORE_WRITE, err);

	if (status == 0) {
		status = snapshot_find(cli->store, cli->operands[0], &snapshot, err);
	}
	for (size_t i = 1; status == 0 && i < cli->operand_count; i++) {
		status = snapshot_tag(cli->store, snapshot.id, cli->operands[i], cli->move, err);
		if (status == 0) {
			say(cli, snapshot.id, "tagged", cli->operands[i],
				json_string(cli->operands[i]));
		}
	}
	return status;
}

int cli_untag(struct snapshots_cli *cli, struct error *err)
{
	int status = cli_open(cli, STORE_WRITE, err);

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		CLEANUP(snapshot_done) struct snapshot snapshot = {0};

		status = snapshot_find(cli->store, cli->operands[i], &snapshot, err);
		if (status == 0) {
			status = snapshot_untag(cli->store, cli->operands[i], err);
		}
		if (status == 0) {
			say(cli, snapshot.id, "untagged", cli->operands[i],
				json_string(cli->operands[i]));
		}
	}
	return status;
}
