/*
 * Finding the result of a step that need not run again. A result lies over the sources, so it must
 * not hold a file that has changed there since it was made: then it would hide the new one, and the
 * step is run again. What cannot be told counts as hiding.
 */
#include "builder/job_private.h"

#include "base/io.h"
#include "configs/environment.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void job_changes_done(struct job *job)
{
	for (size_t i = 0; i < job->change_count; i++) {
		buffer_done(&job->changes[i].paths);
	}
	job->change_count = 0;
}

/* Asked once for each commit. */
int job_changes_since(struct job *job, size_t index, const char *from,
	const struct buffer **ret_paths, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, index, &path);
	struct job_changes *changes;
	int status;

	for (size_t i = 0; i < job->change_count; i++) {
		if (job->changes[i].source == index && streq(job->changes[i].from, from)) {
			*ret_paths = &job->changes[i].paths;
			return 0;
		}
	}
	if (job->change_count == ARRAY_SIZE(job->changes)) {
		return error_set(err, ERROR_LIMIT, "results of too many commits");
	}
	changes = &job->changes[job->change_count];
	buffer_init(&changes->paths, 0);
	status = git_read_changes(job->machine, &source, from, job->sources[index].found.commit,
		&changes->paths, err);
	if (status < 0) {
		buffer_done(&changes->paths);
		return status;
	}
	changes->source = index;
	snprintf(changes->from, sizeof(changes->from), "%s", from);
	job->change_count++;
	*ret_paths = &changes->paths;
	return 0;
}

/* Is the path below a folder of the list, which hides whatever the layers below have there? */
static bool is_covered(const struct buffer *opaque, const char *path)
{
	const char *end = opaque->data + opaque->length;

	for (const char *folder = opaque->data; folder != NULL && folder < end;
		folder += strlen(folder) + 1) {
		size_t length = strlen(folder);

		if (length == 0 || (strncmp(path, folder, length) == 0 && path[length] == '/')) {
			return true;
		}
	}
	return false;
}

/* Has the tree something at `path`, or something else than a folder on the way there? */
static bool tree_holds(int tree_fd, const char *path)
{
	CLEANUP(close_p) int fd = fcntl(tree_fd, F_DUPFD_CLOEXEC, 0);

	while (fd >= 0) {
		size_t length = strcspn(path, "/");
		CLEANUP(free_p) char *name = xstrndup(path, length);
		struct stat seen;
		int next;

		if (fstatat(fd, name, &seen, AT_SYMLINK_NOFOLLOW) < 0) {
			return errno != ENOENT;
		}
		path += length + strspn(path + length, "/");
		if (path[0] == '\0' || !S_ISDIR(seen.st_mode)) {
			return true;
		}
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		fd_done(&fd);
		fd = next;
	}
	return true;
}

/* What a layer is, for this question. */
struct over {
	int tree_fd;
	struct buffer opaque; /* LAYER_OPAQUE */
};

/* The first of the paths that the layer's tree holds or hides below the source's folder; NULL:
 * none. */
static char *first_hidden(const struct over *over, const char *folder, const struct buffer *paths)
{
	const char *end = paths->data + paths->length;

	folder += strspn(folder, "/");
	for (const char *path = paths->data; path != NULL && path < end; path += strlen(path) + 1) {
		CLEANUP(free_p) char *whole = xasprintf("%s/%s", folder, path);

		if (is_covered(&over->opaque, whole) || tree_holds(over->tree_fd, whole)) {
			return xstrdup(path);
		}
	}
	return NULL;
}

static char *hidden_in(struct job *job, const struct over *over, size_t index, const char *from)
{
	struct error ignored = ERROR_INIT;
	const struct buffer *paths = NULL;

	if (streq(from, job->sources[index].found.commit)) {
		return NULL;
	}
	if (job_changes_since(job, index, from, &paths, &ignored) < 0) {
		return xasprintf("what changed since %.12s is unknown", from);
	}
	return first_hidden(over, job->environment->sources[index].path, paths);
}

bool job_origin_of(const struct layer *layer, size_t index, char *commit)
{
	const char *from = layer->origin;

	for (; index > 0 && *from != '\0'; index--) {
		from += strcspn(from, " ");
		from += *from == ' ' ? 1 : 0;
	}
	snprintf(commit, COMMIT_TEXT_SIZE, "%.*s", (int)strcspn(from, " "), from);
	return commit[0] != '\0';
}

/* Opens it; false: it is not there as it should be. */
static bool over_open(const struct job *job, const struct layer *layer, struct over *over)
{
	CLEANUP(free_p) char *tree = xasprintf("layers/%lld/tree", (long long)layer->id);
	CLEANUP(free_p)
	char *list = xasprintf("layers/%lld/" LAYER_OPAQUE, (long long)layer->id);
	int store = store_fd(job->machine->store);
	struct error err = ERROR_INIT;

	buffer_init(&over->opaque, 0);
	over->tree_fd = io_open(store, tree, O_PATH | O_DIRECTORY, 0, &err);
	if (over->tree_fd < 0) {
		return false;
	}
	return io_read_file(store, list, &over->opaque, &err) == 0 || err.kind == ERROR_NOT_FOUND;
}

/* NULL: it hides nothing new. Else what it hides, for people; free() it. */
static char *find_hidden(struct job *job, const struct layer *layer)
{
	struct over over = {.tree_fd = -1};
	char *hidden = over_open(job, layer, &over) ? NULL : xstrdup("its layer is missing");

	for (size_t i = 0; hidden == NULL && i < job->environment->source_count; i++) {
		char commit[COMMIT_TEXT_SIZE];

		hidden = job_origin_of(layer, i, commit)
				 ? hidden_in(job, &over, i, commit)
				 : xstrdup("it is not known what it was made from");
	}
	buffer_done(&over.opaque);
	fd_done(&over.tree_fd);
	return hidden;
}

/* The layer and what it stands on, the lowest first. */
static int read_chain(
	struct job *job, const struct layer *top, struct job_result *result, struct error *err)
{
	struct layer layer = *top;
	int status = 0;

	result->count = 0;
	for (;;) {
		if (result->count == RESULT_LAYERS_MAX) {
			return error_set(err, ERROR_LIMIT, "a result of too many layers");
		}
		memmove(result->layers + 1, result->layers, result->count * sizeof(layer));
		result->layers[0] = layer;
		result->count++;
		if (layer.over == 0) {
			return 0;
		}
		status = layer_use(job->machine->store, layer.over, &layer, err);
		if (status < 0) {
			return status;
		}
	}
}

static bool take_result(struct job *job, const struct layer *top, struct job_result *result)
{
	struct error ignored = ERROR_INIT;

	if (read_chain(job, top, result, &ignored) < 0) {
		return false;
	}
	for (size_t i = 0; i < result->count; i++) {
		result->hidden = find_hidden(job, &result->layers[i]);
		if (result->hidden != NULL) {
			return false;
		}
	}
	return true;
}

bool job_find_result(struct job *job, size_t index, struct job_result *result)
{
	struct error ignored = ERROR_INIT;
	struct layer top;

	*result = (struct job_result){0};
	return layer_find(job->machine->store, job->steps[index].key, &top, &ignored) == 0 &&
	       take_result(job, &top, result);
}

bool job_find_start(struct job *job, size_t index, struct job_result *result)
{
	struct error ignored = ERROR_INIT;
	struct layer top;

	*result = (struct job_result){0};
	return layer_find_line(job->machine->store, job->steps[index].line, &top, &ignored) == 0 &&
	       take_result(job, &top, result);
}

void job_result_done(struct job_result *result)
{
	free(result->hidden);
	result->hidden = NULL;
}
