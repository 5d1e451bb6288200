/* Stands in for libFuzzer where it is not there: runs the target over every file of the folders and
 * files given, so that a corpus is a regression test with any compiler. */
#include "base/buffer.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>

/* Larger inputs teach a fuzzer nothing here. */
#define INPUT_MAX (4 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(int dir_fd, const char *name, struct error *err)
{
	CLEANUP(buffer_done) struct buffer input;
	CLEANUP(free_p) uint8_t *exact = NULL;

	buffer_init(&input, INPUT_MAX);
	if (io_read_file(dir_fd, name, &input, err) < 0) {
		return -(int)err->kind;
	}
	/* A copy of exactly that size, so that the sanitizer sees a read past its end. */
	exact = xmalloc(input.length);
	if (input.length > 0) {
		memcpy(exact, input.data, input.length);
	}
	(void)LLVMFuzzerTestOneInput(exact, input.length);
	return 0;
}

static int replay_folder(const char *path, size_t *count, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, path, err);
	struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.') {
			continue;
		}
		/* Named first, so that a crash says which input it was. */
		fprintf(stderr, "%s/%s\n", path, entry->d_name);
		if (replay_file(dirfd(dir), entry->d_name, err) < 0) {
			return error_wrap(err, "%s", path);
		}
		*count += 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct error err = ERROR_INIT;
	size_t count = 0;

	for (int i = 1; i < argc; i++) {
		if (replay_folder(argv[i], &count, &err) < 0) {
			error_print(argv[0], &err);
			return error_exit_code(err.kind);
		}
	}
	fprintf(stderr, "%zu inputs\n", count);
	return count > 0 ? 0 : 1;
}
