/* hob env import: a repository's devcontainer.json as the text of an environment. */
#include "base/io.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/import/devcontainer.h"
#include "pool/cli/cli.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILE_MAX (1024 * 1024)

struct import_values {
	const char *name, *url, *output;
};

static const struct option_row import_rows[] = {
	{"name", '\0', OPTION_TEXT, "NAME", offsetof(struct import_values, name),
		"what the environment is called (default: as the file says)"},
	{"url", '\0', OPTION_TEXT, "URL", offsetof(struct import_values, url),
		"of the repository (default: its remote \"origin\", else its path)"},
	{"output", 'o', OPTION_TEXT, "FILE", offsetof(struct import_values, output),
		"a new file instead of standard output"},
};

/* The places that the format allows, in its order. */
static int find_file(const char *path, char **ret_file, char **ret_folder, struct error *err)
{
	static const char *const places[] = {
		".devcontainer/devcontainer.json", ".devcontainer.json"};
	CLEANUP(free_p) char *real = realpath(path, NULL);
	struct stat about;

	if (real == NULL || stat(real, &about) < 0) {
		return error_sys(err, errno, "find %s", path);
	}
	if (S_ISREG(about.st_mode)) {
		CLEANUP(free_p) char *folder = xstrdup(real);

		*strrchr(folder, '/') = '\0';
		if (strlen(folder) > 14 && streq(folder + strlen(folder) - 14, "/.devcontainer")) {
			folder[strlen(folder) - 14] = '\0';
		}
		*ret_file = steal_ptr(real);
		*ret_folder = steal_ptr(folder);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		CLEANUP(free_p) char *file = xasprintf("%s/%s", real, places[i]);

		if (access(file, F_OK) == 0) {
			*ret_file = steal_ptr(file);
			*ret_folder = steal_ptr(real);
			return 0;
		}
	}
	error_set(err, ERROR_NOT_FOUND, "%s has no %s", path, places[0]);
	return error_hint(err, "name the file if it lies elsewhere");
}

/* git knows; without it, or without a remote, the folder itself is the source. */
static char *url_of(const char *folder)
{
	char *const argv[] = {(char *)(uintptr_t) "git", (char *)(uintptr_t) "-C",
		(char *)(uintptr_t)folder, (char *)(uintptr_t) "config",
		(char *)(uintptr_t) "--get", (char *)(uintptr_t) "remote.origin.url", NULL};
	CLEANUP(free_p) char *said = NULL;
	struct error ignored = ERROR_INIT;
	int code = 0;

	if (process_exists("git") && process_run(argv, &said, &code, &ignored) == 0 && code == 0 &&
		said[0] != '\0' && said[0] != '\n') {
		said[strcspn(said, "\n")] = '\0';
		return steal_ptr(said);
	}
	return xstrdup(folder);
}

static int put(const char *file, const char *yaml, struct error *err)
{
	CLEANUP(close_p) int fd = -1;

	if (file == NULL) {
		fputs(yaml, stdout);
		return 0;
	}
	fd = io_open(AT_FDCWD, file, O_WRONLY | O_CREAT | O_EXCL, 0644, err);
	return fd < 0 ? fd : io_write_full(fd, yaml, strlen(yaml), err);
}

static int import_run(struct call *call, struct error *err)
{
	const struct import_values *values = call->values;
	CLEANUP(free_p) char *file = NULL;
	CLEANUP(free_p) char *folder = NULL;
	CLEANUP(free_p) char *url = NULL;
	CLEANUP(free_p) char *yaml = NULL;
	CLEANUP(buffer_done) struct buffer text;
	struct devcontainer_place place;
	int status = find_file(call->operands[0], &file, &folder, err);

	buffer_init(&text, FILE_MAX);
	if (status == 0 && values->name != NULL && !name_is_valid(values->name)) {
		status = error_set(
			err, ERROR_USAGE, "\"%s\" is no name for an environment", values->name);
	}
	if (status == 0) {
		status = io_read_file(AT_FDCWD, file, &text, err);
	}
	if (status < 0) {
		return status;
	}
	url = values->url != NULL ? xstrdup(values->url) : url_of(folder);
	place = (struct devcontainer_place){.file = file,
		.name = values->name,
		.url = url,
		.folder = strrchr(folder, '/') != NULL ? strrchr(folder, '/') + 1 : folder};
	status = devcontainer_import(&place, buffer_text(&text), text.length, &yaml, err);
	return status < 0 ? status : put(values->output, yaml, err);
}

const struct verb verb_env_import = {
	.name = "import",
	.operands = "PATH",
	.summary = "Make an environment of a repository's devcontainer.json",
	.details = "PATH is the repository or the file. What has no counterpart stands as a "
		   "comment in "
		   "the result.",
	VERB_OPTIONS(import_rows, struct import_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = import_run,
};
