/*
 * `hob-snapshots cp SNAPSHOT:PATH TO`: a file, a link or a folder with all that is in it. What is
 * in the store is read as its owner; what is made outside is made by a child with the rights of who
 * asked, started before, which gets open files and bare names and makes only what was not there.
 */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"
#include "snapshots/tree/tree_walk.h"

#include "base/io.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum copy_op { COPY_FILE = 1, COPY_LINK, COPY_ENTER, COPY_LEAVE };

struct copy_order {
	uint32_t op;
	uint32_t mode; /* of files and folders: permissions */
	struct timespec mtime;
	char name[NAME_MAX + 1]; /* of the first: what TO says, if it is not a folder */
	char target[PATH_MAX]; /* COPY_LINK */
};

/* ---- the child, which writes ---- */

struct writer {
	const char *to;
	int fds[TREE_DEPTH_MAX + 1]; /* the folder that is written to is the last */
	struct copy_order made[TREE_DEPTH_MAX + 1]; /* what it becomes when it is full */
	size_t depth;
};

static int bytes_copy(int from, int to, struct error *err)
{
	for (;;) {
		ssize_t done = sendfile(to, from, NULL, 1 << 30);

		if (done < 0 && errno == EINTR) {
			continue;
		}
		if (done <= 0) {
			return done < 0 ? error_sys(err, errno, "copy") : 0;
		}
	}
}

/* Into TO if it is a folder, else as TO. */
static int place_find(struct writer *writer, struct copy_order *order, struct error *err)
{
	CLEANUP(free_p) char *parent = xstrdup(writer->to);
	struct stat status;
	char *slash;
	int fd;

	if (stat(writer->to, &status) == 0 && S_ISDIR(status.st_mode)) {
		fd = io_open(AT_FDCWD, writer->to, O_RDONLY | O_DIRECTORY, 0, err);
	} else {
		slash = strrchr(parent, '/');
		if (strlen(slash != NULL ? slash + 1 : parent) > NAME_MAX ||
			streq(slash != NULL ? slash + 1 : parent, "")) {
			return error_set(err, ERROR_INVALID, "%s: no such folder", writer->to);
		}
		snprintf(order->name, sizeof(order->name), "%.255s",
			slash != NULL ? slash + 1 : parent);
		if (slash != NULL) {
			slash[slash == parent ? 1 : 0] = '\0';
		}
		fd = io_open(
			AT_FDCWD, slash != NULL ? parent : ".", O_RDONLY | O_DIRECTORY, 0, err);
	}
	if (fd < 0) {
		return fd;
	}
	writer->fds[writer->depth++] = fd;
	return 0;
}

static int file_write(const struct copy_order *order, int from, int dir_fd, struct error *err)
{
	struct timespec times[] = {order->mtime, order->mtime};
	CLEANUP(close_p)
	int to = io_open(dir_fd, order->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);

	if (to < 0) {
		return to;
	}
	if (bytes_copy(from, to, err) < 0 || fchmod(to, order->mode & 0777) < 0 ||
		futimens(to, times) < 0) {
		if (err->kind == ERROR_NONE) {
			error_sys(err, errno, "give it its mode and time");
		}
		(void)unlinkat(dir_fd, order->name, 0);
		return error_wrap(err, "%s", order->name);
	}
	return 0;
}

static int folder_enter(struct writer *writer, const struct copy_order *order, struct error *err)
{
	int dir_fd = writer->fds[writer->depth - 1], fd;

	if (writer->depth > TREE_DEPTH_MAX) {
		return error_set(err, ERROR_LIMIT, "folders are nested too deeply");
	}
	if (mkdirat(dir_fd, order->name, 0700) < 0) {
		return error_sys(err, errno, "make folder %s", order->name);
	}
	fd = io_open(dir_fd, order->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	if (fd < 0) {
		return fd;
	}
	writer->made[writer->depth] = *order;
	writer->fds[writer->depth++] = fd;
	return 0;
}

static int folder_leave(struct writer *writer, struct error *err)
{
	const struct copy_order *made = &writer->made[writer->depth - 1];
	CLEANUP(close_p) int fd = writer->fds[--writer->depth];
	struct timespec times[] = {made->mtime, made->mtime};

	return fchmod(fd, made->mode & 0777) < 0 || futimens(fd, times) < 0
		       ? error_sys(err, errno, "give folder %s its mode and time", made->name)
		       : 0;
}

static int obey(struct writer *writer, struct copy_order *order, int fd, struct error *err)
{
	int status = writer->depth == 0 ? place_find(writer, order, err) : 0;
	int dir_fd = status == 0 ? writer->fds[writer->depth - 1] : -1;

	if (status < 0 || order->op == COPY_LEAVE) {
		return status < 0 ? status : folder_leave(writer, err);
	}
	if (order->name[0] == '\0' || streq(order->name, ".") || streq(order->name, "..") ||
		strchr(order->name, '/') != NULL) {
		return error_set(err, ERROR_INVALID, "\"%s\" is no name", order->name);
	}
	if (order->op == COPY_ENTER) {
		return folder_enter(writer, order, err);
	}
	if (order->op == COPY_FILE) {
		return file_write(order, fd, dir_fd, err);
	}
	return symlinkat(order->target, dir_fd, order->name) < 0
		       ? error_sys(err, errno, "make link %s", order->name)
		       : 0;
}

static _Noreturn void writer_main(int wire, const char *to)
{
	struct writer *writer = xcalloc(1, sizeof(*writer));
	struct copy_order order;
	int fds[IO_FDS_MAX];
	size_t count = 0;

	signal(SIGINT, SIG_IGN); /* the reader ends, and that ends this */
	writer->to = to;
	while (io_recv_fds(wire, &order, sizeof(order), fds, &count, 0) == (ssize_t)sizeof(order)) {
		struct error err = ERROR_INIT;

		order.name[NAME_MAX] = order.target[PATH_MAX - 1] = '\0';
		(void)!obey(writer, &order, count > 0 ? fds[0] : -1, &err);
		for (size_t i = 0; i < count; i++) {
			close(fds[i]);
		}
		if (send(wire, &err, sizeof(err), MSG_NOSIGNAL) != (ssize_t)sizeof(err) ||
			err.kind != ERROR_NONE) {
			break;
		}
	}
	_exit(0);
}

/* ---- the reader ---- */

struct copying {
	struct tree_view *view;
	int wire;
	pid_t child;
	size_t depth;
	uint64_t files, bytes, left_out;
};

static void copying_done(struct copying *copying)
{
	fd_done(&copying->wire);
	while (copying->child > 0 && waitpid(copying->child, NULL, 0) < 0 && errno == EINTR) {
		continue;
	}
}

static int writer_start(struct copying *copying, const char *to, struct error *err)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	copying->child = fork();
	if (copying->child == 0) {
		close(ends[0]);
		writer_main(ends[1], to);
	}
	close(ends[1]);
	copying->wire = ends[0];
	return copying->child < 0 ? error_sys(err, errno, "fork") : 0;
}

static int tell(
	const struct copying *copying, const struct copy_order *order, int fd, struct error *err)
{
	struct error answer;
	ssize_t got;

	if (io_send_fds(copying->wire, order, sizeof(*order), &fd, fd >= 0 ? 1 : 0, MSG_NOSIGNAL) !=
		(ssize_t)sizeof(*order)) {
		return error_sys(err, errno, "speak to the writing process");
	}
	do {
		got = recv(copying->wire, &answer, sizeof(answer), 0);
	} while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(answer)) {
		return error_set(err, ERROR_FAILED, "the writing process has ended");
	}
	if (answer.kind != ERROR_NONE) {
		error_copy(err, &answer);
	}
	return -(int)answer.kind;
}

static int entry_copy(struct copying *copying, const struct tree_dir *dir,
	const struct tree_entry *entry, struct error *err);

static int folder_copy(struct copying *copying, const struct tree_dir *parent,
	const struct tree_entry *entry, struct copy_order *order, struct error *err)
{
	CLEANUP(tree_dir_done) struct tree_dir dir = {0};
	struct tree_entry *entries = NULL;
	size_t count = 0;
	int status = ++copying->depth > TREE_DEPTH_MAX
			     ? error_set(err, ERROR_LIMIT, "folders are nested too deeply")
			     : tree_dir_open(copying->view, parent, entry->name, &dir, err);

	if (status == 0) {
		status = tree_dir_list(copying->view, &dir, &entries, &count, err);
	}
	if (status == 0) {
		order->op = COPY_ENTER;
		status = tell(copying, order, -1, err);
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		status = entry_copy(copying, &dir, &entries[i], err);
	}
	tree_entries_free(entries, count);
	copying->depth--;
	order->op = COPY_LEAVE;
	return status < 0 ? status : tell(copying, order, -1, err);
}

static int file_copy(struct copying *copying, const struct tree_entry *entry,
	struct copy_order *order, struct error *err)
{
	CLEANUP(close_p)
	int from = io_open(entry->dir_fd, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);

	order->op = COPY_FILE;
	copying->files++;
	copying->bytes += (uint64_t)entry->stat.st_size;
	return from < 0 ? from : tell(copying, order, from, err);
}

static int link_copy(struct copying *copying, const struct tree_entry *entry,
	struct copy_order *order, struct error *err)
{
	ssize_t length =
		readlinkat(entry->dir_fd, entry->name, order->target, sizeof(order->target) - 1);

	if (length < 0) {
		return error_sys(err, errno, "read link %s", entry->name);
	}
	order->target[length] = '\0';
	order->op = COPY_LINK;
	copying->files++;
	return tell(copying, order, -1, err);
}

static int entry_copy(struct copying *copying, const struct tree_dir *dir,
	const struct tree_entry *entry, struct error *err)
{
	struct copy_order order = {
		.mode = entry->stat.st_mode & 07777, .mtime = entry->stat.st_mtim};
	int status = 0;

	snprintf(order.name, sizeof(order.name), "%.255s", entry->name);
	if (S_ISDIR(entry->stat.st_mode)) {
		status = folder_copy(copying, dir, entry, &order, err);
	} else if (S_ISREG(entry->stat.st_mode)) {
		status = file_copy(copying, entry, &order, err);
	} else if (S_ISLNK(entry->stat.st_mode)) {
		status = link_copy(copying, entry, &order, err);
	} else {
		copying->left_out++;
	}
	return status;
}

/* ---- the verb ---- */

static int print_file(const struct tree_entry *entry, const char *path, struct error *err)
{
	CLEANUP(close_p) int from = -1;

	if (!S_ISREG(entry->stat.st_mode)) {
		error_set(err, ERROR_INVALID, "%s is no regular file", path);
		return error_hint(err, "give it a place in a folder, not \"-\"");
	}
	from = io_open(entry->dir_fd, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);
	return from < 0 ? from : bytes_copy(from, STDOUT_FILENO, err);
}

static void report(const struct snapshots_cli *cli, const struct copying *copying)
{
	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:o, s:o, s:I, s:I, s:I}", "from",
			json_str_or_null(cli->operands[0]), "to",
			json_str_or_null(cli->operands[1]), "files", (json_int_t)copying->files,
			"bytes", (json_int_t)copying->bytes, "left_out",
			(json_int_t)copying->left_out);

		json_print(json);
	} else if (copying->left_out > 0) {
		fprintf(stderr, "left out: %llu pipes, devices or sockets\n",
			(unsigned long long)copying->left_out);
	}
}

static int copy_out(
	struct snapshots_cli *cli, struct copying *copying, const char *path, struct error *err)
{
	CLEANUP(tree_dir_done) struct tree_dir dir = {0};
	struct tree_entry entry = {0};
	int status = tree_find(copying->view, path, &dir, &entry, err);

	if (status == 0 && copying->child == 0) {
		status = print_file(&entry, path, err);
	} else if (status == 0) {
		status = entry_copy(copying, &dir, &entry, err);
		if (status == 0 && copying->files == 0 && !S_ISDIR(entry.stat.st_mode)) {
			status = error_set(err, ERROR_INVALID,
				"%s is no file, link or folder, and is not copied", path);
		}
		if (status == 0) {
			report(cli, copying);
		}
	}
	free(entry.name);
	return status;
}

int cli_cp(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(tree_view_close_p) struct tree_view *view = NULL;
	CLEANUP(copying_done) struct copying copying = {.wire = -1};
	CLEANUP(free_p) char *name = xstrdup(cli->operands[0]);
	char *path = strchr(name, ':');
	int status = 0;

	if (path == NULL) {
		return error_set(err, ERROR_USAGE, "\"%s\" is not SNAPSHOT:PATH", name);
	}
	*path++ = '\0';
	if (!streq(cli->operands[1], "-")) {
		status = writer_start(&copying, cli->operands[1], err);
	}
	cli->rights = STORE_RIGHTS_READ_TREES;
	if (status == 0) {
		status = cli_open(cli, STORE_READ, err);
	}
	if (status == 0) {
		status = cli_view_open(cli, name, &view, err);
	}
	if (status == 0) {
		copying.view = view;
		status = copy_out(cli, &copying, path, err);
	}
	return status;
}
