/*
 * What a sandbox with base: host is shown of this machine's package manager: where packages come
 * from, and which are installed. Read as hob, so only what everybody may read; a file that could
 * hold a password stays out as a whole.
 */
#include "builder/packages/packages.h"

#include "base/digest.h"
#include "base/io.h"
#include "builder/job_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (64 * 1024 * 1024)
#define STATUS "var/lib/dpkg/status"

static const char *const folders[] = {"etc/apt", "etc/apt/apt.conf.d", "etc/apt/keyrings",
	"etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d"};

/* Where each file goes; tree_fd -1: only what it is counts. */
struct showing {
	int root_fd, tree_fd;
	struct digest *digest;
};

static bool may_hold_password(const char *path, const struct buffer *text)
{
	const char *at = buffer_text(text);

	if (strstr(path, "/auth.conf") != NULL || strcasestr(at, "password") != NULL ||
		strcasestr(at, "authorization") != NULL) {
		return true;
	}
	while ((at = strstr(at, "://")) != NULL) {
		at += 3;
		if (at[strcspn(at, "/@ \t\r\n\"")] == '@') {
			return true;
		}
	}
	return false;
}

static int show(struct showing *showing, const char *path, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {.max = FILE_BYTES_MAX};
	struct error ignored = ERROR_INIT;
	struct stat seen;

	if (fstatat(showing->root_fd, path, &seen, 0) < 0 || !S_ISREG(seen.st_mode) ||
		io_read_file(showing->root_fd, path, &text, &ignored) < 0 ||
		(!streq(path, STATUS) && may_hold_password(path, &text))) {
		return 0;
	}
	digest_add_str(showing->digest, path);
	digest_add_str(showing->digest, "");
	digest_add(showing->digest, buffer_text(&text), text.length);
	if (showing->tree_fd < 0) {
		return 0;
	}
	return io_write_file(showing->tree_fd, path, buffer_text(&text), text.length, 0644, err);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int show_folder(struct showing *showing, const char *folder, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = NULL;
	CLEANUP(strv_free_p) char **names = NULL;
	struct error ignored = ERROR_INIT;
	struct dirent *entry;
	int status = 0;

	dir = io_opendir(showing->root_fd, folder, &ignored);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.') {
			strv_add(&names, entry->d_name);
		}
	}
	if (names != NULL) {
		qsort(names, strv_count(names), sizeof(*names), compare_names);
	}
	if (names != NULL && showing->tree_fd >= 0) {
		status = io_mkdir_all(showing->tree_fd, folder, 0755, err);
	}
	for (size_t i = 0; status == 0 && names != NULL && names[i] != NULL; i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%s", folder, names[i]);

		status = show(showing, path, err);
	}
	return status;
}

static int show_all(struct showing *showing, char *key, struct error *err)
{
	char owner[48];
	int status = 0;

	showing->digest = digest_new();
	snprintf(owner, sizeof(owner), "apt of the host 1, owner %u", (unsigned)geteuid());
	digest_add_str(showing->digest, owner);
	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(folders); i++) {
		status = show_folder(showing, folders[i], err);
	}
	if (status == 0 && showing->tree_fd >= 0) {
		status = io_mkdir_all(showing->tree_fd, "var/lib/dpkg", 0755, err);
	}
	if (status == 0) {
		status = show(showing, STATUS, err);
	}
	digest_end(showing->digest, key);
	digest_free(showing->digest);
	return status;
}

static int write_tree(const struct staging *staging, int root_fd, char *key, struct error *err)
{
	CLEANUP(close_p) int tree = -1;
	struct showing showing = {.root_fd = root_fd};
	mode_t mask = umask(0);
	int status = 0;

	if (mkdirat(staging_fd(staging), "tree", 0755) < 0) {
		status = error_sys(err, errno, "make the tree of a layer");
	} else {
		tree = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, err);
		showing.tree_fd = tree;
		status = tree < 0 ? tree : show_all(&showing, key, err);
	}
	umask(mask);
	return status;
}

int host_apt_layer(struct job *job, struct layer *ret_layer, struct error *err)
{
	CLEANUP(close_p) int root = io_open(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {
		.kind = "inputs", .title = "apt of the host", .id_base = geteuid(), .id_count = 1};
	struct showing look = {.root_fd = root, .tree_fd = -1};
	int status = root < 0 ? root : show_all(&look, layer.step_key, err);

	if (status == 0 && faccessat(root, STATUS, R_OK, 0) < 0) {
		error_sys(err, errno, "read /" STATUS " of this machine");
		return error_hint(err,
			"packages.apt with base: host is for machines with Debian's packages; take "
			"a base with apt in it");
	}
	if (status == 0 && !job->clean &&
		layer_find(job->machine->store, layer.step_key, ret_layer, err) == 0) {
		return 0;
	}
	if (status == 0) {
		status = staging_new(job->machine->store, &staging, err);
	}
	if (status == 0) {
		status = write_tree(staging, root, layer.step_key, err);
	}
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, &layer, err);
	}
	if (status == 0) {
		status = layer_keep(job->machine->store, layer.id, err);
	}
	if (status < 0) {
		return error_wrap(err, "apt of the host");
	}
	*ret_layer = layer;
	return 0;
}

/* The lines of a package in dpkg's status, digested as they stand. */
static void add_version(struct digest *digest, const char *status, const char *name)
{
	CLEANUP(free_p) char *head = xasprintf("\nPackage: %s\n", name);
	const char *entry = strstr(status, head), *version;

	digest_add_str(digest, name);
	version = entry != NULL ? strstr(entry, "\nVersion: ") : NULL;
	if (version != NULL) {
		digest_add(digest, version + 1, strcspn(version + 1, "\n"));
	}
}

int host_tools_key(enum package_manager manager, char *key, struct error *err)
{
	static const char *const tools[] = {"nodejs", "npm", "python3", "python3-pip"};
	CLEANUP(close_p) int root = io_open(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(buffer_done) struct buffer status = {.max = FILE_BYTES_MAX};
	struct showing look = {.root_fd = root, .tree_fd = -1};
	struct error ignored = ERROR_INIT;
	struct digest *digest;

	if (root < 0) {
		return root;
	}
	if (manager == PACKAGE_APT) {
		return show_all(&look, key, err);
	}
	/* A machine without dpkg has its tools from elsewhere: then they count for nothing here. */
	if (io_read_file(root, STATUS, &status, &ignored) < 0) {
		buffer_clear(&status);
	}
	digest = digest_new();
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		bool python = str_starts(tools[i], "python");

		if (python == (manager == PACKAGE_PIP)) {
			add_version(digest, buffer_text(&status), tools[i]);
		}
	}
	digest_end(digest, key);
	digest_free(digest);
	return 0;
}
