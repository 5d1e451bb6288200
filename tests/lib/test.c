/* Temporary folders of unit tests. */
#include "tests/lib/test.h"

#include "base/io.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

char *temp_folder(void)
{
	const char *parent = getenv("TMPDIR");
	char *folder = xasprintf("%s/hob-unit-XXXXXX", parent != NULL ? parent : "/tmp");

	if (mkdtemp(folder) == NULL || chmod(folder, 0755) < 0) {
		fail_msg("cannot make %s: %s", folder, strerror(errno));
	}
	return folder;
}

void temp_in_memory(void)
{
	if (access("/dev/shm", W_OK) == 0) {
		setenv("TMPDIR", "/dev/shm", 1);
	}
}

void temp_remove(char *folder)
{
	struct error err = ERROR_INIT;
	char *slash;

	if (folder == NULL) {
		return;
	}
	slash = strrchr(folder, '/');
	*slash = '\0';
	{
		CLEANUP(close_p)
		int parent = io_open(AT_FDCWD, folder, O_PATH | O_DIRECTORY, 0, &err);

		if (parent < 0 || io_remove_tree(parent, slash + 1, &err) < 0) {
			print_error("temp_remove: %s\n", err.message);
		}
	}
	free(folder);
}

void temp_write(const char *folder, const char *name, const char *text)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", folder, name);
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644, &err);

	assert_ok(fd, &err);
	assert_ok(io_write_full(fd, text, strlen(text), &err), &err);
}

char *temp_read(const char *folder, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", folder, name);
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;

	buffer_init(&text, 0);
	assert_ok(io_read_file(AT_FDCWD, path, &text, &err), &err);
	return buffer_steal(&text);
}

int setup_folder(void **state)
{
	*state = temp_folder();
	return 0;
}

int teardown_folder(void **state)
{
	temp_remove(*state);
	return 0;
}

bool temp_unmount(const char *at)
{
	for (int look = 0; look < 1000; look++) {
		if (umount2(at, 0) == 0) {
			return true;
		}
		if (errno != EBUSY) {
			return false;
		}
		usleep(10000);
	}
	return false;
}
