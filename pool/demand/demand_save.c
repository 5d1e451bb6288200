/* Forecasts in files. Each is written beside itself and renamed; without a sync, so that the loop
 * does not wait for the disk: its checksum tells a torn one. */
#include "pool/demand/demand_private.h"

#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define FOLDER "forecasts"
#define PRICE_NAME ".price" /* no environment's name begins with a dot */

static char *path_of(const struct manager *manager, const char *name)
{
	return xasprintf("%s/" FOLDER "/%s", store_path(manager->store), name);
}

static void file_write(const struct manager *manager, const char *name, const struct buffer *text)
{
	CLEANUP(free_p) char *path = path_of(manager, name);
	CLEANUP(free_p) char *fresh = xasprintf("%s~", path);
	CLEANUP(close_p) int fd = -1;
	struct error err = ERROR_INIT;

	fd = io_open(AT_FDCWD, fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600, &err);
	if (fd < 0 || io_write_full(fd, text->data, text->length, &err) < 0) {
		log_failure("forecast.not_saved", &err, "environment", name);
	} else if (rename(fresh, path) < 0) {
		error_sys(&err, errno, "rename %s", fresh);
		log_failure("forecast.not_saved", &err, "environment", name);
	}
}

/* False: there is none, or it cannot be read, which was reported. */
static bool file_read(const struct manager *manager, const char *name, struct buffer *text)
{
	CLEANUP(free_p) char *path = path_of(manager, name);
	struct error err = ERROR_INIT;

	if (io_read_file(AT_FDCWD, path, text, &err) < 0) {
		if (err.kind != ERROR_NOT_FOUND) {
			log_failure("forecast.unusable", &err, "environment", name);
		}
		return false;
	}
	return true;
}

void demand_load(struct pool *pool)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;

	buffer_init(&text, FORECAST_TEXT_MAX);
	if (file_read(pool->manager, pool->name, &text) &&
		forecast_load(pool->demand->forecast, buffer_text(&text), text.length, &err) < 0) {
		log_failure("forecast.unusable", &err, "environment", pool->name);
	}
}

void demands_load_price(struct manager *manager)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/" FOLDER, store_path(manager->store));
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;

	buffer_init(&text, FORECAST_TEXT_MAX);
	if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
		error_sys(&err, errno, "mkdir %s", folder);
		log_failure("forecast.not_saved", &err, "environment", "");
	}
	if (file_read(manager, PRICE_NAME, &text) &&
		forecast_price_load(
			&manager->demands->price, buffer_text(&text), text.length, &err) < 0) {
		log_failure("forecast.unusable", &err, "environment", PRICE_NAME);
	}
}

void demands_save(struct manager *manager)
{
	bool any = false;

	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		CLEANUP(buffer_done) struct buffer text;

		if (pool->demand == NULL || !pool->demand->changed) {
			continue;
		}
		buffer_init(&text, FORECAST_TEXT_MAX);
		forecast_save(pool->demand->forecast, &text);
		file_write(manager, pool->name, &text);
		pool->demand->changed = false;
		any = true;
	}
	if (any) {
		CLEANUP(buffer_done) struct buffer text;

		buffer_init(&text, FORECAST_TEXT_MAX);
		forecast_price_save(&manager->demands->price, &text);
		file_write(manager, PRICE_NAME, &text);
	}
}
