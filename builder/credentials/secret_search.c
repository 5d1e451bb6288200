/*
 * Looking for secrets in what a step wrote, as root of the build's range, since only that may read
 * all of it. A window slides over each file, with what the longest secret may straddle kept.
 */
#include "builder/credentials/step_secrets.h"

#include "base/base64.h"
#include "base/io.h"
#include "base/memory.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "builder/range.h"
#include "snapshots/store.h"
#include "snapshots/tree/layer_walk.h"

#include <fcntl.h>
#include <stdio.h>

#define WINDOW (1024 * 1024)
#define NEEDLES 4 /* as it is, and the three ways that base64 may cut it */

struct needle {
	const char *name; /* of the secret */
	char *text;
	size_t length;
};

struct search {
	const struct range *range;
	struct store *store;
	int tree_fd;
	struct needle *needles;
	size_t count, longest;
	char *window;
};

char *step_secret_base64(const struct secret *secret, size_t shift, size_t *ret_length)
{
	CLEANUP(free_p) char *padded = xcalloc(shift + secret->length + 1, 1);
	char *text;
	size_t first =
		shift == 0 ? 0 : shift + 1; /* characters that the bytes before have part in */
	size_t last = (shift + secret->length) / 3 * 4; /* the rest depends on what follows */

	memcpy(padded + shift, secret->text, secret->length);
	text = base64_encode(padded, shift + secret->length);
	*ret_length = last - first;
	memmove(text, text + first, *ret_length);
	text[*ret_length] = '\0';
	return text;
}

static void needles_of(const struct secret *secret, const char *name, struct needle *needles)
{
	needles[0] = (struct needle){name, xstrndup(secret->text, secret->length), secret->length};
	for (size_t shift = 0; shift < 3; shift++) {
		needles[1 + shift].name = name;
		needles[1 + shift].text =
			step_secret_base64(secret, shift, &needles[1 + shift].length);
	}
}

static void needles_free(struct needle *needles, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		explicit_bzero(needles[i].text, needles[i].length);
		free(needles[i].text);
	}
}

static const struct needle *find(
	const struct needle *needles, size_t count, const void *data, size_t length)
{
	for (size_t i = 0; i < count; i++) {
		if (memmem(data, length, needles[i].text, needles[i].length) != NULL) {
			return &needles[i];
		}
	}
	return NULL;
}

bool step_secret_is_in(const struct secret *secret, const void *data, size_t length)
{
	struct needle needles[NEEDLES];
	bool found;

	needles_of(secret, "", needles);
	found = find(needles, NEEDLES, data, length) != NULL;
	needles_free(needles, NEEDLES);
	return found;
}

static int search_file(
	const struct search *search, int fd, const struct needle **ret_needle, struct error *err)
{
	size_t kept = 0;

	for (;;) {
		ssize_t got = read(fd, search->window + kept, WINDOW - kept);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read it");
		}
		if (got == 0) {
			return 0;
		}
		kept += (size_t)got;
		*ret_needle = find(search->needles, search->count, search->window, kept);
		if (*ret_needle != NULL) {
			return 0;
		}
		if (kept > search->longest) {
			memmove(search->window, search->window + kept - search->longest,
				search->longest);
			kept = search->longest;
		}
	}
}

static const struct needle *search_about(
	const struct search *search, const struct walk_entry *entry)
{
	const struct needle *found =
		find(search->needles, search->count, entry->name, strlen(entry->name));

	if (found == NULL && entry->target != NULL) {
		found = find(search->needles, search->count, entry->target, strlen(entry->target));
	}
	for (size_t i = 0; found == NULL && i < entry->xattr_count; i++) {
		found = find(search->needles, search->count, entry->xattrs[i].value,
			entry->xattrs[i].size);
	}
	return found;
}

static int search_entry(void *context, const struct walk_entry *entry, struct error *err)
{
	const struct search *search = context;
	const struct needle *found = search_about(search, entry);
	int status = 0;

	if (found == NULL && entry->fd >= 0 && S_ISREG(entry->stat.st_mode) &&
		entry->hardlink == NULL) {
		status = search_file(search, entry->fd, &found, err);
	}
	if (status < 0) {
		return error_wrap(err, "/%s", entry->path);
	}
	if (found != NULL) {
		error_set(err, ERROR_DENIED, "it left secret \"%s\" in /%.300s", found->name,
			entry->path);
		return error_hint(err,
			"make the step delete it, or read it from " STEP_SECRETS_FOLDER "/%s only",
			found->name);
	}
	return 0;
}

static int search_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	struct search *search = context;
	const struct layer layer = {.id_base = 0, .id_count = 65536};
	CLEANUP(close_p) int tree = -1;
	int status = range_enter(search->range, child, err);

	(void)ret_result;
	if (status == 0) {
		tree = io_open(search->tree_fd, ".", O_RDONLY | O_DIRECTORY, 0, err);
		status = tree < 0 ? tree : 0;
	}
	return status < 0 ? status
			  : layer_walk(search->store, &layer, tree, search_entry, search, err);
}

int step_secrets_search(const struct step_secrets *secrets, struct range *range,
	const char *staging, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("staging/%s/tree", staging);
	CLEANUP(close_p) int fd = -1;
	struct search search = {.range = range, .store = range->machine->store};
	int fds[2], status;
	struct child_spec spec = {.what = "search a layer for secrets",
		.run = search_child,
		.context = &search,
		.fds = fds,
		.fd_count = 2};

	if (secrets->count == 0) {
		return 0;
	}
	/* O_PATH, because only the range's root may be allowed to read it. */
	fd = io_open_beneath(store_fd(range->machine->store), path, O_PATH | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	status = range_open(range, err);
	if (status < 0) {
		return status;
	}
	search.tree_fd = fds[0] = fd;
	fds[1] = range->userns_fd;
	search.needles = xcalloc(secrets->count * NEEDLES, sizeof(*search.needles));
	for (size_t i = 0; i < secrets->count; i++) {
		needles_of(&secrets->secrets[i], secrets->names[i], search.needles + search.count);
		search.count += NEEDLES;
	}
	for (size_t i = 0; i < search.count; i++) {
		search.longest = search.needles[i].length > search.longest
					 ? search.needles[i].length
					 : search.longest;
	}
	search.window = xmalloc(WINDOW);
	status = child_run(range->machine, &spec, NULL, err);
	needles_free(search.needles, search.count);
	free(search.needles);
	free(search.window);
	return status;
}
