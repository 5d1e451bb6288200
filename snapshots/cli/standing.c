/* Which sandboxes stand on a snapshot: the catalog only knows that hobd has a lease. hobd's run
 * folder has a folder for each, with its state as one JSON line after the other; what cannot be
 * read is left out. */
#include "snapshots/cli/cli.h"

#include "base/io.h"
#include "configs/config.h"

#include <fcntl.h>

#define STATE_BYTES_MAX (1024 * 1024)

static int64_t snapshot_of(int sandboxes_fd, const char *id)
{
	CLEANUP(buffer_done) struct buffer text = {.max = STATE_BYTES_MAX};
	CLEANUP(free_p) char *path = xasprintf("%s/state", id);
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error ignored = ERROR_INIT;
	char *line, *end;

	if (io_read_file(sandboxes_fd, path, &text, &ignored) < 0 || text.length == 0) {
		return 0;
	}
	end = memrchr(text.data, '\n', text.length); /* a torn line does not count */
	if (end == NULL) {
		return 0;
	}
	line = end > text.data ? memrchr(text.data, '\n', (size_t)(end - text.data)) : NULL;
	line = line != NULL ? line + 1 : text.data;
	json = json_loadb(line, (size_t)(end - line), 0, NULL);
	return json_integer_value(json_object_get(json, "snapshot"));
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **cli_standing(const struct snapshots_cli *cli, int64_t snapshot_id)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(closedir_p) DIR *dir = NULL;
	CLEANUP(free_p) char *path = NULL;
	char **ids = xcalloc(1, sizeof(*ids));
	struct error ignored = ERROR_INIT;
	struct dirent *entry;

	if (config_load(cli->config_path, &config, &ignored) < 0 ||
		!streq(config->store, store_path(cli->store))) {
		return ids;
	}
	path = xasprintf("%s/sandboxes", config->run);
	dir = io_opendir(AT_FDCWD, path, &ignored);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.' &&
			snapshot_of(dirfd(dir), entry->d_name) == snapshot_id) {
			strv_add(&ids, entry->d_name);
		}
	}
	if (strv_count(ids) > 1) {
		qsort(ids, strv_count(ids), sizeof(*ids), by_name);
	}
	return ids;
}

#define NAMED_MAX 5

void cli_standing_hint(const struct snapshots_cli *cli, int64_t snapshot_id, struct error *err)
{
	CLEANUP(strv_free_p) char **ids = cli_standing(cli, snapshot_id);
	CLEANUP(buffer_done) struct buffer text = {0};
	size_t count = strv_count(ids);

	if (count == 0) {
		return;
	}
	for (size_t i = 0; i < count && i < NAMED_MAX; i++) {
		buffer_addf(&text, "%s%s", i > 0 ? ", " : "", ids[i]);
	}
	if (count > NAMED_MAX) {
		buffer_addf(&text, " and %zu more", count - NAMED_MAX);
	}
	if (str_starts(err->hint, "hob snapshots unpin")) {
		buffer_addf(&text, " stand%s on; it is pinned, too", count == 1 ? "s" : "");
	} else {
		buffer_addf(&text, " stand%s on", count == 1 ? "s" : "");
	}
	(void)error_hint(err, "it is what %s", buffer_text(&text));
}
