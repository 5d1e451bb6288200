/* Reading secrets. The checks are for mistakes of the operator, who made the folder and the files:
 * nobody else can write there. */
#include "configs/secret.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int check_file(int fd, const char *folder, const char *name, struct error *err)
{
	struct stat about;

	if (fstat(fd, &about) < 0) {
		return error_sys(err, errno, "look at secret \"%s\"", name);
	}
	if (!S_ISREG(about.st_mode)) {
		return error_set(err, ERROR_INVALID, "secret \"%s\" is no file", name);
	}
	if ((about.st_mode & (S_IROTH | S_IWOTH)) != 0) {
		error_set(err, ERROR_DENIED, "secret \"%s\" can be read by everybody", name);
		return error_hint(err, "chmod 640 %s/%s", folder, name);
	}
	if (about.st_size > SECRET_BYTES_MAX) {
		return error_set(
			err, ERROR_LIMIT, "secret \"%s\" is over %d bytes", name, SECRET_BYTES_MAX);
	}
	return 0;
}

static int open_secret(const char *folder, const char *name, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int folder_fd = -1;
	int fd;

	if (!name_is_valid(name)) {
		return error_set(err, ERROR_INVALID, "\"%.64s\" is no name of a secret", name);
	}
	folder_fd = io_open(AT_FDCWD, folder, O_PATH | O_DIRECTORY, 0, err);
	fd = folder_fd < 0 ? folder_fd
			   : io_open(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	if (err->sys == EACCES) {
		error_set(err, ERROR_DENIED, "secret \"%s\" cannot be read", name);
		return error_hint(err, "chgrp hob %s %s/%s && chmod 750 %s && chmod 640 %s/%s",
			folder, folder, name, folder, folder, name);
	}
	if (err->sys == ENOENT) {
		error_set(err, ERROR_NOT_FOUND, "no secret \"%s\"", name);
		return error_hint(
			err, "put it into %s/%s, readable for hob's group only", folder, name);
	}
	return error_wrap(err, "secret \"%s\"", name);
}

int secret_read(const char *folder, const char *name, struct secret *ret_secret, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	CLEANUP(secret_done) struct secret secret = {0};
	ssize_t got;
	int status = open_secret(folder, name, &fd, err);

	if (status == 0) {
		status = check_file(fd, folder, name, err);
	}
	if (status < 0) {
		return status;
	}
	secret.text = xcalloc(SECRET_BYTES_MAX + 1, 1);
	got = read(fd, secret.text, SECRET_BYTES_MAX);
	if (got < 0) {
		return error_sys(err, errno, "read secret \"%s\"", name);
	}
	secret.length = (size_t)got;
	if (secret.length > 0 && secret.text[secret.length - 1] == '\n') {
		secret.text[--secret.length] = '\0';
	}
	if (secret.length == 0 || strlen(secret.text) != secret.length) {
		return error_set(err, ERROR_INVALID, "secret \"%s\" is %s", name,
			secret.length == 0 ? "empty" : "no text: it holds a zero byte");
	}
	*ret_secret = secret;
	secret = (struct secret){0};
	return 0;
}

void secret_done(struct secret *secret)
{
	if (secret->text != NULL) {
		explicit_bzero(secret->text, SECRET_BYTES_MAX);
	}
	free(secret->text);
	*secret = (struct secret){0};
}
