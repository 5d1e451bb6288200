/* `hob-snapshots diff A B`: what is in the trees, read as the store's owner with the right to read
 * them and no other. */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"
#include "snapshots/tree/tree_walk.h"

#include "base/base64.h"
#include "base/io.h"

#include <fcntl.h>
#include <git2.h>

#define PATCH_BYTES_MAX (16 * 1024 * 1024)

/* "snap-3", "img-2", a tag, an environment's name (its head); a bare number is a snapshot's. */
int cli_view_open(
	struct snapshots_cli *cli, const char *name, struct tree_view **ret_view, struct error *err)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	struct image image = {0};
	int status = snapshot_find(cli->store, name, &snapshot, err);

	if (status == 0) {
		return tree_view_open(
			cli->store, snapshot.layers, snapshot.layer_count, ret_view, err);
	}
	if (status == -ERROR_NOT_FOUND && image_find(cli->store, name, &image, err) == 0) {
		status = tree_view_open(cli->store, image.layers, image.layer_count, ret_view, err);
		image_done(&image);
		return status;
	}
	return status == -ERROR_NOT_FOUND
		       ? error_set(err, ERROR_NOT_FOUND, "no snapshot and no image \"%s\"", name)
		       : status;
}

/* ---- diff ---- */

struct difference {
	const struct snapshots_cli *cli;
	json_t *list;
	uint64_t entries[3]; /* by kind */
	uint64_t bytes[3]; /* sizes of the files; of changed ones, the new size */
};

static const char *const kind_names[] = {"added", "changed", "deleted"};
static const char kind_marks[] = {'+', '~', '-'};

static const struct {
	unsigned bit;
	const char *name;
} aspects[] = {{TREE_TYPE, "type"}, {TREE_CONTENT, "content"}, {TREE_MODE, "mode"},
	{TREE_OWNER, "owner"}, {TREE_MTIME, "mtime"}, {TREE_XATTRS, "xattrs"}};

/* A name may hold anything: what a terminal would take as its own is written as \xNN. */
void cli_print_path(const char *path)
{
	for (const unsigned char *byte = (const unsigned char *)path; *byte != '\0'; byte++) {
		if (*byte < 0x20 || *byte == 0x7f || *byte == '\\') {
			printf("\\x%02x", *byte);
		} else {
			putchar(*byte);
		}
	}
}

static uint64_t size_of(const struct stat *status)
{
	return status != NULL && S_ISREG(status->st_mode) ? (uint64_t)status->st_size : 0;
}

static json_t *path_json(const char *path, json_t *object)
{
	json_t *text = json_string(path);

	if (text == NULL) {
		CLEANUP(free_p) char *base64 = base64_encode(path, strlen(path));

		json_object_set_new(object, "path_base64", json_string(base64));
		text = json_str_or_null(path);
	}
	json_object_set_new(object, "path", text);
	return object;
}

static void add_json(struct difference *difference, const struct tree_change *change)
{
	json_t *one = path_json(change->path, json_object());
	json_t *what = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(aspects); i++) {
		if ((change->what & aspects[i].bit) != 0) {
			json_array_append_new(what, json_string(aspects[i].name));
		}
	}
	json_object_set_new(one, "change", json_string(kind_names[change->kind]));
	json_object_set_new(one, "what", what);
	if (change->before != NULL) {
		json_object_set_new(
			one, "size_before", json_integer((json_int_t)size_of(change->before)));
	}
	if (change->after != NULL) {
		json_object_set_new(
			one, "size_after", json_integer((json_int_t)size_of(change->after)));
	}
	json_array_append_new(difference->list, one);
}

static void print_change(const struct tree_change *change)
{
	const struct stat *shown = change->after != NULL ? change->after : change->before;
	char before[CLI_TEXT_SIZE], after[CLI_TEXT_SIZE];
	const char *comma = "  ";

	printf("%c ", kind_marks[change->kind]);
	cli_print_path(change->path);
	if (S_ISDIR(shown->st_mode)) {
		putchar('/');
	}
	text_bytes(before, size_of(change->before));
	text_bytes(after, size_of(change->after));
	if (change->kind == TREE_CHANGED && size_of(change->before) != size_of(change->after)) {
		printf("  (%s -> %s)", before, after);
	} else if (S_ISREG(shown->st_mode)) {
		printf("  (%s)", change->kind == TREE_DELETED ? before : after);
	}
	for (size_t i = 0; i < ARRAY_SIZE(aspects); i++) {
		if ((change->what & aspects[i].bit) != 0) {
			printf("%s%s", comma, aspects[i].name);
			comma = ",";
		}
	}
	putchar('\n');
}

static int take_change(void *context, const struct tree_change *change, struct error *err)
{
	struct difference *difference = context;

	(void)err;
	difference->entries[change->kind]++;
	difference->bytes[change->kind] +=
		size_of(change->after != NULL ? change->after : change->before);
	if (difference->cli->stat) {
		return 0;
	}
	if (difference->cli->json) {
		add_json(difference, change);
	} else {
		print_change(change);
	}
	return 0;
}

static void print_stat(const struct difference *difference)
{
	char text[CLI_TEXT_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(kind_names); i++) {
		text_bytes(text, difference->bytes[i]);
		printf("%s%llu %s (%s)", i > 0 ? ", " : "",
			(unsigned long long)difference->entries[i], kind_names[i], text);
	}
	putchar('\n');
}

static void add_difference(const struct difference *difference, json_t *json)
{
	for (size_t i = 0; i < ARRAY_SIZE(kind_names); i++) {
		json_object_set_new(json, kind_names[i],
			json_pack("{s:I, s:I}", "entries", (json_int_t)difference->entries[i],
				"bytes", (json_int_t)difference->bytes[i]));
	}
	if (!difference->cli->stat) {
		json_object_set(json, "changes", difference->list);
	}
}

int cli_diff_views(struct snapshots_cli *cli, struct tree_view *before, struct tree_view *after,
	json_t *json, struct error *err)
{
	struct difference difference = {.cli = cli, .list = json_array()};
	int status = tree_diff(before, after, take_change, &difference, err);

	if (status == 0 && cli->json) {
		add_difference(&difference, json);
	} else if (status == 0) {
		print_stat(&difference);
	}
	json_decref(difference.list);
	return status;
}

/* ---- one file's content ---- */

/* An absent file reads as an empty one. */
static int read_file(struct tree_view *view, const char *path, struct buffer *text, bool *ret_there,
	struct error *err)
{
	CLEANUP(tree_dir_done) struct tree_dir dir = {0};
	struct tree_entry entry = {0};
	int status = tree_find(view, path, &dir, &entry, err);

	*ret_there = status == 0;
	if (status < 0) {
		return status == -ERROR_NOT_FOUND ? 0 : status;
	}
	if (!S_ISREG(entry.stat.st_mode)) {
		free(entry.name);
		return error_set(err, ERROR_INVALID, "%s is no regular file", path);
	}
	text->max = PATCH_BYTES_MAX;
	status = io_read_file(entry.dir_fd, entry.name, text, err);
	free(entry.name);
	return status;
}

static void print_patch_json(const char *path, const char *text, size_t length)
{
	CLEANUP(json_decref_p) json_t *json = json_pack("{s:o}", "path", json_str_or_null(path));
	json_t *patch = json_stringn(text, length);
	CLEANUP(free_p) char *base64 = patch == NULL ? base64_encode(text, length) : NULL;

	if (patch == NULL) { /* of a file that is not UTF-8 */
		json_object_set_new(json, "patch_base64", json_string(base64));
	} else {
		json_object_set_new(json, "patch", patch);
	}
	json_print(json);
}

static int print_patch_text(const struct snapshots_cli *cli, const struct buffer *a, bool in_a,
	const struct buffer *b, bool in_b, const char *path, struct error *err)
{
	git_patch *patch = NULL;
	git_buf text = {0};
	int code;

	git_libgit2_init();
	code = git_patch_from_buffers(&patch, in_a ? buffer_text(a) : NULL, a->length, path,
		in_b ? buffer_text(b) : NULL, b->length, path, NULL);
	if (code == 0) {
		code = git_patch_to_buf(&text, patch);
	}
	if (code == 0 && cli->json) {
		print_patch_json(path, text.ptr, text.size);
	} else if (code == 0) {
		fwrite(text.ptr, 1, text.size, stdout);
	}
	git_buf_dispose(&text);
	git_patch_free(patch);
	git_libgit2_shutdown();
	return code < 0 ? error_set(err, ERROR_FAILED, "%s cannot be compared", path) : 0;
}

static int print_patch(const struct snapshots_cli *cli, const char *path, struct tree_view *before,
	struct tree_view *after, struct error *err)
{
	CLEANUP(buffer_done) struct buffer a = {0};
	CLEANUP(buffer_done) struct buffer b = {0};
	bool in_a = false, in_b = false;
	int status = read_file(before, path, &a, &in_a, err);

	if (status == 0) {
		status = read_file(after, path, &b, &in_b, err);
	}
	if (status == 0 && !in_a && !in_b) {
		return error_set(err, ERROR_NOT_FOUND, "neither has a file %s", path);
	}
	if (status < 0) {
		return status;
	}
	while (*path == '/') {
		path++;
	}
	return print_patch_text(cli, &a, in_a, &b, in_b, path, err);
}

int cli_diff(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(tree_view_close_p) struct tree_view *before = NULL;
	CLEANUP(tree_view_close_p) struct tree_view *after = NULL;
	CLEANUP(json_decref_p) json_t *json = json_object();
	int status;

	cli->rights = STORE_RIGHTS_READ_TREES;
	status = cli_open(cli, STORE_READ, err);
	if (status == 0) {
		status = cli_view_open(cli, cli->operands[0], &before, err);
	}
	if (status == 0) {
		status = cli_view_open(cli, cli->operands[1], &after, err);
	}
	if (status == 0 && cli->patch != NULL) {
		return print_patch(cli, cli->patch, before, after, err);
	}
	if (status == 0) {
		status = cli_diff_views(cli, before, after, json, err);
	}
	if (status == 0 && cli->json) {
		json_print(json);
	}
	return status;
}
