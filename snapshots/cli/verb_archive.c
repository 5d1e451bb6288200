/* `hob-snapshots export|import`: an archive to a file or standard output, and from one. Files are
 * opened before this becomes the store's owner, so that they are those of who asked. */
#include "snapshots/archive/archive.h"
#include "snapshots/catalog.h"
#include "snapshots/cli/cli.h"
#include "snapshots/store_private.h"

#include "configs/config.h"
#include "configs/free_space.h"

#include <fcntl.h>
#include <sys/stat.h>

/* A file that did not get its end is taken away again. */
static int open_output(const struct snapshots_cli *cli, int *ret_fd, struct error *err)
{
	if (cli->output == NULL) {
		if (isatty(STDOUT_FILENO)) {
			error_set(err, ERROR_USAGE, "an archive is not for a terminal");
			return error_hint(err, "give --output FILE, or a pipe");
		}
		*ret_fd = STDOUT_FILENO;
		return 0;
	}
	*ret_fd = io_open(AT_FDCWD, cli->output, O_WRONLY | O_CREAT | O_EXCL, 0600, err);
	return *ret_fd < 0 ? *ret_fd : 0;
}

static void report_export(
	const struct snapshots_cli *cli, const struct snapshot *snapshot, int fd, uint64_t left_out)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	char id[CLI_ID_SIZE], bytes[CLI_TEXT_SIZE];
	struct stat status;

	if (left_out > 0 && !(cli->json && cli->output != NULL)) {
		fprintf(stderr, "left out: %llu sockets, which an archive cannot hold\n",
			(unsigned long long)left_out);
	}
	if (cli->output == NULL || fstat(fd, &status) < 0) {
		return;
	}
	cli_snapshot_id(id, snapshot->id);
	text_bytes(bytes, (uint64_t)status.st_size);
	if (cli->json) {
		json = json_pack("{s:s, s:s, s:I, s:I}", "id", id, "file", cli->output, "bytes",
			(json_int_t)status.st_size, "sockets_left_out", (json_int_t)left_out);
		json_print(json);
	} else {
		printf("%s: %s in %s\n", id, bytes, cli->output);
	}
}

int cli_export(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	uint64_t left_out = 0;
	int fd = -1, status = open_output(cli, &fd, err);

	if (status < 0) {
		return status;
	}
	cli->rights = STORE_RIGHTS_READ_TREES;
	status = cli_open(cli, STORE_WRITE, err);
	if (status == 0) {
		status = snapshot_find(cli->store, cli->operands[0], &snapshot, err);
	}
	if (status == 0) {
		cli_progress_show(cli);
		status = snapshot_export(
			cli->store, &snapshot, cli->with_parents, fd, &left_out, err);
	}
	cli_progress_end(cli);
	if (status == 0 && cli->output != NULL && fsync(fd) < 0) {
		status = error_sys(err, errno, "write %s", cli->output);
	}
	if (status == 0) {
		report_export(cli, &snapshot, fd, left_out);
	}
	if (cli->output != NULL) {
		if (status < 0) {
			unlink(cli->output);
		}
		close(fd);
	}
	return status;
}

/* "name:first:count" of /etc/subuid. 0: not there. */
static int64_t read_subuid(const char *user)
{
	CLEANUP(buffer_done) struct buffer text = {.max = 1024 * 1024};
	struct error ignored = ERROR_INIT;
	size_t length = strlen(user);
	char *rest = NULL;

	if (io_read_file(AT_FDCWD, "/etc/subuid", &text, &ignored) < 0 || text.length == 0) {
		return 0;
	}
	for (char *line = strtok_r(text.data, "\n", &rest); line != NULL;
		line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, user, length) == 0 && line[length] == ':') {
			return strtoll(line + length + 1, NULL, 10);
		}
	}
	return 0;
}

/* The range that the files of new layers are owned in: one that this store's layers are in already,
 * so that flattening can link them; else the first of hob's own. */
static int choose_ids(struct snapshots_cli *cli, const struct config *config, int64_t *ret_base,
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, cli->store->db,
		"SELECT id_base FROM layers WHERE id_count = 65536 ORDER BY id DESC LIMIT 1");
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_base = row > 0 ? query_int(&query, 0) : config->id_base;
	if (*ret_base == 0) {
		*ret_base = read_subuid(config->user);
	}
	if (*ret_base == 0) {
		error_set(err, ERROR_UNAVAILABLE, "there is no range of ids for imported files");
		return error_hint(err,
			"set id_base in hob.yaml, or give user %s a line in /etc/subuid",
			config->user);
	}
	return 0;
}

static void report_import(const struct snapshots_cli *cli, const struct snapshot *snapshot)
{
	if (cli->json) {
		CLEANUP(json_decref_p) json_t *json = cli_snapshot_json(snapshot);

		json_print(json);
	} else {
		printf("snap-%lld of %s: %zu layers\n", (long long)snapshot->id,
			snapshot->environment, snapshot->layer_count);
	}
}

static int check_space(
	const struct snapshots_cli *cli, const struct config *config, struct error *err)
{
	struct free_space space = {0};
	int status = free_space_look(store_path(cli->store), config->free_space, &space, err);

	return status < 0 ? status : free_space_check(&space, err);
}

int cli_import(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	bool file = cli->operands[0] != NULL && !streq(cli->operands[0], "-");
	CLEANUP(close_p)
	int fd = file ? io_open(AT_FDCWD, cli->operands[0], O_RDONLY, 0, err)
		      : fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	CLEANUP(import_source_close) struct import_source source = IMPORT_SOURCE_INIT;
	int64_t id_base = 0;
	int status = fd < 0 ? error_wrap(err, "read the archive")
			    : config_load(cli->config_path, &config, err);

	if (status == 0) {
		status = import_source_open(fd, &source, err);
	}
	if (status < 0) {
		return status;
	}
	cli->rights = STORE_RIGHTS_MAKE_TREES;
	status = cli_open(cli, STORE_WRITE, err);
	if (status == 0) {
		status = check_space(cli, config, err);
	}
	if (status == 0) {
		status = choose_ids(cli, config, &id_base, err);
	}
	if (status == 0) {
		cli_progress_show(cli);
		status = snapshot_import(cli->store, &source, id_base, &snapshot, err);
	}
	cli_progress_end(cli);
	if (status == 0) {
		report_import(cli, &snapshot);
	}
	return status;
}
