/*
 * spares/<pid>-<number>, in a folder that only root enters, so that no sweep of the store and
 * nobody else's rename can come in between. A launcher that is killed leaves some; the next one to
 * start takes them away.
 */
#include "pool/sandbox/spares.h"

#include "base/io.h"
#include "base/memory.h"
#include "pool/sandbox/places.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#define SPARE_NAME_SIZE 32

static void spare_name(unsigned number, char *name)
{
	snprintf(name, SPARE_NAME_SIZE, "%d-%u", getpid(), number);
}

unsigned spares_count(const struct spares *spares)
{
	return spares->made - spares->taken;
}

int spares_add(struct spares *spares, const struct places *places, struct error *err)
{
	static const char *const parts[] = {"", "/upper", "/work"};
	char name[SPARE_NAME_SIZE];

	spare_name(spares->made, name);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s%s", name, parts[i]);

		if (mkdirat(places->spares_fd, path, 0700) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "mkdir spares/%s", path);
		}
	}
	spares->made++;
	return 0;
}

bool spares_take(struct spares *spares, const struct places *places, const char *id)
{
	char name[SPARE_NAME_SIZE];

	if (spares->made == spares->taken) {
		return false;
	}
	spare_name(spares->taken++, name);
	return renameat(places->spares_fd, name, places->sandboxes_fd, id) == 0;
}

void spares_done(struct spares *spares, const struct places *places)
{
	struct error ignored = ERROR_INIT;

	while (spares->taken != spares->made) {
		char name[SPARE_NAME_SIZE];

		spare_name(spares->taken++, name);
		(void)!io_remove_tree(places->spares_fd, name, &ignored);
	}
}

void spares_sweep(const struct places *places)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(places->spares_fd, ".", &ignored);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		long pid = strtol(entry->d_name, NULL, 10);

		if (pid > 0 && (pid == getpid() || (kill((pid_t)pid, 0) < 0 && errno == ESRCH))) {
			(void)!io_remove_tree(places->spares_fd, entry->d_name, &ignored);
		}
	}
}
