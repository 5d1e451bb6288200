/* Makes small stores for tests; any failure fails the test with the error's own words. */
#include "tests/lib/store_kit.h"

#include "tests/lib/test.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

struct store *store_kit_open(const char *folder)
{
	CLEANUP(free_p) char *path = xasprintf("%s/store", folder);
	struct error err = ERROR_INIT;
	struct store *store = NULL;

	assert_ok(store_open(path, STORE_CREATE, &store, &err), &err);
	return store;
}

int setup_store(void **state)
{
	CLEANUP(free_p) char *folder = temp_folder();

	*state = store_kit_open(folder);
	return 0;
}

int teardown_store(void **state)
{
	char *path = xstrdup(store_path(*state));

	store_close(*state);
	*strrchr(path, '/') = '\0';
	temp_remove(path);
	return 0;
}

void store_kit_write_tree(struct staging *staging, const char *file, const char *text)
{
	CLEANUP(free_p) char *path = xasprintf("tree/%s", file);
	struct error err = ERROR_INIT;

	assert_ok(io_mkdir_all(staging_fd(staging), "tree", 0755, &err), &err);
	assert_ok(io_write_file(staging_fd(staging), path, text, strlen(text), 0644, &err), &err);
}

struct layer store_kit_seal(struct store *store, const char *step_key, size_t bytes)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	CLEANUP(free_p) char *text = xcalloc(1, bytes + 1);
	struct layer layer = {.kind = "step", .title = "step kit", .id_base = 1000, .id_count = 1};
	struct error err = ERROR_INIT;

	memset(text, 'x', bytes);
	snprintf(layer.step_key, sizeof(layer.step_key), "%s", step_key);
	assert_ok(staging_new(store, &staging, &err), &err);
	store_kit_write_tree(staging, "file", text);
	assert_ok(layer_seal(store, staging, &layer, &err), &err);
	return layer;
}

int64_t store_kit_commit(
	struct store *store, const char *environment, const int64_t *layers, size_t count)
{
	struct layer list[IMAGE_LAYERS_MAX] = {0};
	struct image image = {.commit = "0123456789abcdef0123456789abcdef01234567",
		.fingerprint = "f1",
		.manifest = (char *)(uintptr_t) "{\"user\":\"root\"}",
		.layers = list,
		.layer_count = count};
	struct error err = ERROR_INIT;

	snprintf(image.environment, sizeof(image.environment), "%s", environment);
	for (size_t i = 0; i < count; i++) {
		list[i].id = layers[i];
	}
	assert_ok(image_commit(store, &image, 0, &err), &err);
	return image.id;
}

int64_t store_kit_image(struct store *store, const char *environment)
{
	struct layer layer = store_kit_seal(store, "", 10000);

	return store_kit_commit(store, environment, &layer.id, 1);
}

size_t store_kit_count(const struct store *store, const char *room)
{
	struct error err = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = NULL;
	struct dirent *entry;
	size_t count = 0;
	CLEANUP(close_p) int fd = io_open(store_fd(store), room, O_RDONLY | O_DIRECTORY, 0, &err);

	assert_ok(fd, &err);
	dir = io_opendir(fd, ".", &err);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		count += !streq(entry->d_name, ".") && !streq(entry->d_name, "..");
	}
	return count;
}

void store_kit_head(const struct store *store, const char *environment, char text[32])
{
	CLEANUP(free_p) char *path = xasprintf("heads/%s", environment);
	ssize_t length = readlinkat(store_fd(store), path, text, 31);

	text[length > 0 ? length : 0] = '\0';
}
