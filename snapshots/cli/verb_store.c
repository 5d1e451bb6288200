/* `hob-snapshots store …`: the file system that a store may have of its own. */
#include "snapshots/cli/cli.h"

#include "configs/config.h"
#include "configs/settings.h"
#include "snapshots/volume/volume.h"

static int store_path_find(const struct snapshots_cli *cli, char **ret_path, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	CLEANUP(free_p) char *real = NULL;
	const char *path = cli->store_path;

	if (path == NULL) {
		if (config_load(cli->config_path, &config, err) < 0) {
			return -(int)err->kind;
		}
		path = config->store;
	}
	/* One that is not there yet keeps its name. */
	real = realpath(path, NULL);
	if (real == NULL && path[0] != '/') {
		return error_set(err, ERROR_INVALID, "--store needs a whole path, from / on");
	}
	*ret_path = xstrdup(real != NULL ? real : path);
	return 0;
}

static int read_size(const char *text, int64_t *ret_bytes, struct error *err)
{
	if (!size_parse(text, ret_bytes) || *ret_bytes <= 0) {
		return error_set(err, ERROR_USAGE,
			"\"%s\" is not a size such as \"512MiB\" or \"50GiB\"", text);
	}
	*ret_bytes &= ~INT64_C(4095); /* whole blocks */
	return 0;
}

static json_t *info_json(const char *store, const struct volume_info *info)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I}", "store", store, "kind",
		info->exists ? "xfs file" : "folder", "file_system", info->file_system,
		"shares_blocks", info->shares_blocks, "total_bytes", (json_int_t)info->total,
		"free_bytes", (json_int_t)info->free, "writable_bytes",
		(json_int_t)volume_writable(info));

	if (info->exists) {
		CLEANUP(free_p) char *file = xasprintf("%s.xfs", store);

		json_object_set_new(json, "file",
			json_pack("{s:s, s:b, s:b, s:I, s:I, s:I}", "path", file, "mounted",
				info->mounted, "preallocated", info->preallocated, "bytes",
				(json_int_t)info->file_bytes, "stored_bytes",
				(json_int_t)info->file_stored, "host_free_bytes",
				(json_int_t)info->host_free));
	}
	return json;
}

static void print_info(const char *store, const struct volume_info *info)
{
	char total[CLI_TEXT_SIZE], room[CLI_TEXT_SIZE], file[CLI_TEXT_SIZE], stored[CLI_TEXT_SIZE];
	char host[CLI_TEXT_SIZE], writable[CLI_TEXT_SIZE];

	text_bytes(total, info->total);
	text_bytes(room, info->free);
	text_bytes(file, info->file_bytes);
	text_bytes(stored, info->file_stored);
	text_bytes(host, info->host_free);
	text_bytes(writable, volume_writable(info));
	printf("store        %s\n", store);
	printf("file system  %s%s, %s blocks\n", info->file_system,
		info->mounted  ? " of its own"
		: info->exists ? " below (its own is not mounted)"
			       : " (a plain folder)",
		info->shares_blocks ? "shares" : "cannot share");
	printf("space        %s, %s free\n", total, room);
	if (info->exists) {
		printf("file         %s.xfs: %s, %s\n", store, file,
			info->preallocated ? "preallocated" : "sparse");
		printf("on the host  %s used, %s free there\n", stored, host);
		if (volume_writable(info) < info->free) {
			printf("note         only %s can really be written: the host's disk has no "
			       "more\n",
				writable);
		}
	}
}

static int show(const struct snapshots_cli *cli, const char *store, struct error *err)
{
	struct volume_info info;
	int status = volume_info(store, &info, err);

	if (status == 0 && cli->json) {
		CLEANUP(json_decref_p) json_t *json = info_json(store, &info);

		json_print(json);
	} else if (status == 0) {
		print_info(store, &info);
	}
	return status;
}

int cli_store_info(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(free_p) char *store = NULL;
	int status = store_path_find(cli, &store, err);

	return status < 0 ? status : show(cli, store, err);
}

int cli_store_create(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(free_p) char *store = NULL;
	struct volume_order order = {
		.copy = cli->copy, .preallocate = cli->preallocate, .replace = cli->force};
	int status;

	if (cli->xfs == NULL) {
		error_set(err, ERROR_USAGE, "store create needs --xfs SIZE");
		return error_hint(err, "a plain folder needs no making: the first start does it");
	}
	if ((status = read_size(cli->xfs, &order.bytes, err)) < 0 ||
		(status = store_path_find(cli, &store, err)) < 0) {
		return status;
	}
	order.store = store;
	status = volume_create(&order, err);
	return status < 0 ? error_wrap(err, "store create") : show(cli, store, err);
}

int cli_store_grow(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(free_p) char *store = NULL;
	int64_t bytes = 0;
	int status;

	if ((status = read_size(cli->operands[0], &bytes, err)) < 0 ||
		(status = store_path_find(cli, &store, err)) < 0) {
		return status;
	}
	status = volume_grow(store, bytes, err);
	return status < 0 ? error_wrap(err, "store grow") : show(cli, store, err);
}

int cli_store_mount(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(free_p) char *store = NULL;
	int status = store_path_find(cli, &store, err);

	if (status == 0) {
		status = volume_mount(store, err);
	}
	return status < 0 ? status : show(cli, store, err);
}

int cli_store_unmount(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(free_p) char *store = NULL;
	int status = store_path_find(cli, &store, err);

	if (status == 0) {
		status = volume_unmount(store, err);
	}
	return status < 0 ? status : show(cli, store, err);
}
