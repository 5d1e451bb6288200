/*
 * Any bytes as a snapshot's archive, twice: once through the child that parses, whole; once as what
 * a hostile parser might say over the wire, to the side that writes. Neither may crash, leave
 * anything in the store or touch a canary beside it.
 */
#include "snapshots/archive/archive.h"
#include "snapshots/archive/import_wire.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "fuzz_import: %s\n", what);
		abort();
	}
}

static size_t count(int dir_fd, const char *name)
{
	struct error err = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, name, &err);
	struct dirent *entry;
	size_t entries = 0;

	must(dir != NULL, "a folder of the store is gone");
	while ((entry = readdir(dir)) != NULL) {
		entries += entry->d_name[0] != '.';
	}
	return entries;
}

static void check(struct store *store, int folder_fd, bool imported)
{
	struct stat seen;

	must(count(store_fd(store), "staging") == 0, "something is left in staging/");
	must(imported || count(store_fd(store), "layers") == 0, "something is left in layers/");
	must(count(folder_fd, ".") == 2, "something appeared beside the store");
	must(fstatat(folder_fd, "canary", &seen, AT_SYMLINK_NOFOLLOW) == 0 && seen.st_size == 6,
		"the canary changed");
}

/* The parser's output is what the memory file says; nothing else is on the socket. */
static void say(struct store *store, int folder_fd, const uint8_t *data, size_t size)
{
	CLEANUP(close_p) int in = -1;
	CLEANUP(close_p) int out = -1;
	struct import_source source = IMPORT_SOURCE_INIT;
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "no sockets");
	in = pair[0];
	out = pair[1];
	if (send(out, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size) {
		return; /* longer than a socket holds */
	}
	fd_done(&out);
	source.wire = in;
	bool done = snapshot_import(store, &source, getuid(), &snapshot, &err) == 0;
	snapshot_done(&snapshot);
	check(store, folder_fd, done);
}

static void parse(struct store *store, int folder_fd, const uint8_t *data, size_t size)
{
	CLEANUP(close_p) int archive = memfd_create("archive", MFD_CLOEXEC);
	CLEANUP(import_source_close) struct import_source source = IMPORT_SOURCE_INIT;
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	bool done;

	must(archive >= 0 && write(archive, data, size) == (ssize_t)size, "no memory file");
	lseek(archive, 0, SEEK_SET);
	must(import_source_open(archive, &source, &err) == 0, "no child");
	done = snapshot_import(store, &source, getuid(), &snapshot, &err) == 0;
	snapshot_done(&snapshot);
	check(store, folder_fd, done);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/tmp/hob-fuzz-XXXXXX";
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(close_p) int folder_fd = -1;
	struct store *store = NULL;
	struct error err = ERROR_INIT;
	int canary;

	must(mkdtemp(folder) != NULL, "cannot make a folder");
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	canary = openat(folder_fd, "canary", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(canary >= 0 && write(canary, "canary", 6) == 6, "cannot make the canary");
	close(canary);
	path = xasprintf("%s/store", folder);
	must(store_open(path, STORE_CREATE, &store, &err) == 0, "cannot make a store");
	parse(store, folder_fd, data, size);
	say(store, folder_fd, data, size);
	store_close(store);
	must(io_remove_tree(AT_FDCWD, folder, &err) == 0, "cannot clean up");
	return 0;
}
