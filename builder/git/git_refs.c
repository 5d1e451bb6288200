/*
 * Which ref of a repository is meant by what the environment says, and a helpful answer when there
 * is none: the names that are like it. Order as git has it: full name, branch, tag.
 */
#include "builder/git/git_internal.h"

#include "base/text.h"

#include <stdio.h>

#define SIMILAR_MAX 5
#define DISTANCE_MAX 3

void git_ref_list_done(struct git_ref_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
	}
	free(list->items);
	free(list->head_target);
	*list = (struct git_ref_list){0};
}

void git_ref_list_add(struct git_ref_list *list, const char *name, const git_oid *id)
{
	struct git_ref *ref = array_add(&list->items, &list->count, &list->room);

	ref->name = xstrdup(name);
	ref->id = *id;
}

static const struct git_ref *find_full(
	const struct git_ref_list *list, const char *prefix, const char *name)
{
	size_t length = strlen(prefix);

	for (size_t i = 0; i < list->count; i++) {
		const char *candidate = list->items[i].name;

		if (strncmp(candidate, prefix, length) == 0 && streq(candidate + length, name)) {
			return &list->items[i];
		}
	}
	return NULL;
}

/* "main" of "refs/heads/main"; NULL for what is neither branch nor tag. */
static const char *short_name(const char *full)
{
	if (str_starts(full, "refs/heads/")) {
		return full + strlen("refs/heads/");
	}
	return str_starts(full, "refs/tags/") ? full + strlen("refs/tags/") : NULL;
}

static bool is_similar(const char *name, const char *wanted)
{
	return text_distance(name, wanted, DISTANCE_MAX) <= DISTANCE_MAX ||
	       strcasestr(name, wanted) != NULL || strcasestr(wanted, name) != NULL;
}

/* Adds names to the hint: the similar ones, or with `wanted` NULL the first branches. */
static size_t add_names(
	const struct git_ref_list *list, const char *wanted, char *text, size_t size)
{
	size_t found = 0;

	for (size_t i = 0; i < list->count && found < SIMILAR_MAX; i++) {
		const char *name = short_name(list->items[i].name);
		size_t used = strlen(text);

		if (name == NULL || strstr(name, "^{}") != NULL ||
			(wanted != NULL ? !is_similar(name, wanted)
					: !str_starts(list->items[i].name, "refs/heads/"))) {
			continue;
		}
		snprintf(text + used, size - used, "%s%s", found > 0 ? ", " : "", name);
		found++;
	}
	return found;
}

static int no_such_ref(
	const struct git_ref_list *list, const struct git_source *source, struct error *err)
{
	CLEANUP(free_p) char *url = git_url_public(source->url);
	char names[ERROR_HINT_SIZE - 64] = "";
	const char *wanted = short_name(source->ref);

	error_set(err, ERROR_NOT_FOUND, "%s has no branch or tag \"%s\"", url, source->ref);
	if (add_names(list, wanted != NULL ? wanted : source->ref, names, sizeof(names)) > 0) {
		return error_hint(err, "similar names there: %s", names);
	}
	if (add_names(list, NULL, names, sizeof(names)) > 0) {
		return error_hint(err, "branches there: %s", names);
	}
	return error_hint(err, "the repository has no branch at all");
}

/* HEAD: by what it points to, or as a bare commit. */
static int choose_head(const struct git_ref_list *list, const struct git_source *source,
	struct git_found *found, git_oid *ret_id, struct error *err)
{
	CLEANUP(free_p) char *url = git_url_public(source->url);
	const struct git_ref *target = NULL;

	if (!list->has_head) {
		error_set(err, ERROR_NOT_FOUND, "%s: its HEAD names no commit%s", url,
			list->count == 0 ? " (the repository is empty)" : "");
		return error_hint(err, "set `ref:` of the source to a branch that exists");
	}
	if (list->head_target != NULL) {
		target = find_full(list, "", list->head_target);
	}
	if (target != NULL && strlen(target->name) < GIT_REF_SIZE) {
		snprintf(found->ref, sizeof(found->ref), "%s", target->name);
	}
	found->is_head = true;
	*ret_id = list->head_id;
	return 0;
}

int git_ref_choose(const struct git_ref_list *list, const struct git_source *source,
	struct git_found *found, git_oid *ret_id, struct error *err)
{
	static const char *const prefixes[] = {"", "refs/heads/", "refs/tags/", "refs/"};

	if (source->ref == NULL || streq(source->ref, "HEAD")) {
		return choose_head(list, source, found, ret_id, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		const struct git_ref *ref = find_full(list, prefixes[i], source->ref);

		if (ref != NULL && strlen(ref->name) < GIT_REF_SIZE) {
			snprintf(found->ref, sizeof(found->ref), "%s", ref->name);
			found->is_head =
				list->head_target != NULL && streq(list->head_target, ref->name);
			*ret_id = ref->id;
			return 0;
		}
	}
	return no_such_ref(list, source, err);
}
