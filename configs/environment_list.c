/* A folder of environments: the good ones sorted by name, the bad ones with their errors. */
#include "configs/environment.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>

/* Far more than one machine can keep warm; a folder with more is a mistake. */
#define FILES_MAX 4096

static bool is_yaml_name(const char *name)
{
	size_t length = strlen(name);

	return name[0] != '.' && length > 5 && streq(name + length - 5, ".yaml");
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_environments(const void *a, const void *b)
{
	const struct environment *const *first = a;
	const struct environment *const *second = b;

	return strcmp((*first)->name, (*second)->name);
}

/* Sorted, so that of two files with one name it is always the same that counts. */
static int file_names(const char *folder, char ***ret_names, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, folder, err);
	struct dirent *entry;
	size_t count = 0;

	if (dir == NULL) {
		error_wrap(err, "environments");
		return -(int)err->kind;
	}
	for (errno = 0; (entry = readdir(dir)) != NULL; errno = 0) {
		if (!is_yaml_name(entry->d_name)) {
			continue;
		}
		if (++count > FILES_MAX) {
			return error_set(err, ERROR_LIMIT, "more than %d environments in %s",
				FILES_MAX, folder);
		}
		strv_add(&names, entry->d_name);
	}
	if (errno != 0) {
		return error_sys(err, errno, "read folder %s", folder);
	}
	if (count > 0) {
		qsort(names, count, sizeof(*names), compare_texts);
	}
	*ret_names = steal_ptr(names);
	return 0;
}

static void add_failure(struct environment_list *list, const char *file, const struct error *err)
{
	struct environment_failure *failure;

	list->failures =
		xreallocarray(list->failures, list->failure_count + 1, sizeof(*list->failures));
	failure = &list->failures[list->failure_count++];
	failure->file = xstrdup(file);
	failure->error = *err;
}

static void load_one(struct environment_list *list, const char *file)
{
	CLEANUP(environment_free_p) struct environment *environment = NULL;
	const struct environment *other;
	struct error err = ERROR_INIT;

	if (environment_load(file, &environment, &err) < 0) {
		add_failure(list, file, &err);
		return;
	}
	other = environment_list_find(list, environment->name);
	if (other != NULL) {
		error_set(&err, ERROR_EXISTS, "%s: the name \"%s\" is taken by %s", file,
			environment->name, other->file);
		error_hint(&err, "give one of them another name");
		add_failure(list, file, &err);
		return;
	}
	list->items = xreallocarray(list->items, list->count + 1, sizeof(struct environment *));
	list->items[list->count++] = steal_ptr(environment);
}

int environment_list_load(const char *folder, struct environment_list *ret_list, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	struct environment_list list = {0};
	int code = file_names(folder, &names, err);

	if (code < 0) {
		return code;
	}
	for (char **name = names; name != NULL && *name != NULL; name++) {
		CLEANUP(free_p) char *file = xasprintf("%s/%s", folder, *name);

		load_one(&list, file);
	}
	if (list.count > 0) {
		qsort(list.items, list.count, sizeof(struct environment *), compare_environments);
	}
	*ret_list = list;
	return 0;
}

void environment_list_done(struct environment_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		environment_free(list->items[i]);
	}
	for (size_t i = 0; i < list->failure_count; i++) {
		free(list->failures[i].file);
	}
	free(list->items);
	free(list->failures);
	*list = (struct environment_list){0};
}

struct environment *environment_list_find(const struct environment_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (streq(list->items[i]->name, name)) {
			return list->items[i];
		}
	}
	return NULL;
}
