/* What is in mirrors/ and downloads/, against what the environments name. */
#include "builder/collect.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/io.h"
#include "base/memory.h"
#include "builder/git/git.h"
#include "builder/git/git_modules.h"
#include "configs/environment.h"
#include "snapshots/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define AGE_MS (24LL * 3600 * 1000)
#define NOTE_BYTES_MAX (256 * 1024)

struct room {
	struct store *store;
	struct environment *const *environments;
	size_t count;
	int dir_fd;
	uint64_t removed;
};

/* Used within a day, as far as can be told. */
static bool is_recent(const struct room *room, const char *name)
{
	struct stat seen;

	return fstatat(room->dir_fd, name, &seen, AT_SYMLINK_NOFOLLOW) < 0 ||
	       clock_real_ms() - (int64_t)seen.st_mtim.tv_sec * 1000 < AGE_MS;
}

/* Is it a submodule's, of the repository with this mirror? */
static bool is_module_of(const struct room *room, const char *mirror, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/" GIT_MODULES_NOTE, mirror);
	CLEANUP(buffer_done) struct buffer text;
	struct error ignored = ERROR_INIT;

	buffer_init(&text, NOTE_BYTES_MAX);
	if (io_read_file(room->dir_fd, path, &text, &ignored) < 0) {
		return false;
	}
	for (const char *line = buffer_text(&text); *line != '\0'; line += strspn(line, "\n")) {
		size_t end = strcspn(line, "\n");

		if (end == strlen(name) && strncmp(line, name, end) == 0) {
			return true;
		}
		line += end;
	}
	return false;
}

static bool mirror_is_wanted(const struct room *room, const char *name)
{
	for (size_t i = 0; i < room->count; i++) {
		for (size_t j = 0; j < room->environments[i]->source_count; j++) {
			const struct git_source source = {
				.url = room->environments[i]->sources[j].url, .mirrors = ""};
			CLEANUP(free_p) char *path = git_mirror_path(&source);

			const char *own = strrchr(path, '/') + 1;

			if (streq(own, name) || is_module_of(room, own, name)) {
				return true;
			}
		}
	}
	return false;
}

static bool download_is_wanted(const struct room *room, const char *name)
{
	for (size_t i = 0; i < room->count; i++) {
		const char *sha256 = room->environments[i]->base_sha256;

		if (sha256 != NULL && str_starts(name, sha256)) {
			return true; /* the whole, or the part that has come so far */
		}
		for (size_t j = 0; j < room->environments[i]->file_count; j++) {
			if (str_starts(name, room->environments[i]->files[j].sha256)) {
				return true;
			}
		}
	}
	return false;
}

/* Under the mirror's lock, whose file stays: another process may be waiting at it. */
static int remove_mirror(struct room *room, const char *name, struct error *err)
{
	CLEANUP(free_p) char *lock = xasprintf("%s.lock", name);
	CLEANUP(close_p)
	int fd = io_open(room->dir_fd, lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);
	int status;

	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return 0;
	}
	status = io_remove_tree(room->dir_fd, name, err);
	room->removed += status == 0 ? 1 : 0;
	return status;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), wanted = strlen(end);

	return length >= wanted && streq(text + length - wanted, end);
}

static int collect_mirror(struct room *room, const char *name, struct error *err)
{
	if (!ends_with(name, ".git") || mirror_is_wanted(room, name) || is_recent(room, name)) {
		return 0;
	}
	return remove_mirror(room, name, err);
}

static int collect_download(struct room *room, const char *name, struct error *err)
{
	if (strspn(name, "0123456789abcdef") < SHA256_TEXT_SIZE - 1 ||
		download_is_wanted(room, name) || is_recent(room, name)) {
		return 0;
	}
	if (unlinkat(room->dir_fd, name, 0) < 0 && errno != ENOENT) {
		return error_sys(err, errno, "delete downloads/%s", name);
	}
	room->removed++;
	return 0;
}

static int collect_room(struct room *room, const char *folder,
	int (*collect)(struct room *room, const char *name, struct error *err), struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(store_fd(room->store), folder, err);
	struct dirent *entry;
	int status = 0;

	if (dir == NULL) {
		return err->kind == ERROR_NOT_FOUND ? 0 : -(int)err->kind;
	}
	room->dir_fd = dirfd(dir);
	room->removed = 0;
	while (status == 0 && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.') {
			status = collect(room, entry->d_name, err);
		}
	}
	return status;
}

int collect_unused(struct store *store, struct environment *const *environments, size_t count,
	struct collected *ret_collected, struct error *err)
{
	struct room room = {.store = store, .environments = environments, .count = count};
	struct collected collected = {0};
	int status = collect_room(&room, "mirrors", collect_mirror, err);

	collected.mirrors = room.removed;
	if (status == 0) {
		status = collect_room(&room, "downloads", collect_download, err);
		collected.downloads = room.removed;
	}
	if (status < 0) {
		return error_wrap(err, "collect what no environment needs");
	}
	*ret_collected = collected;
	return 0;
}
