/* What `hob images diff` says of commits, packages, files and layers, from the JSON that it is in
 * the API. */
#include "snapshots/cli/images_changes.h"

#include "base/memory.h"

#include <stdio.h>

#define COMMIT_SHOWN 12

/* One list of the reply: what names an entry, and what tells two of one name apart. */
struct list {
	const char *member, *title;
	const char *names[2];
	const char *value;
};

static const struct list lists[] = {
	{"sources", "Sources", {"path", NULL}, "commit"},
	{"packages", "Packages", {"manager", "name"}, "version"},
	{"files", "Files", {"path", NULL}, "url"},
};

static const char *text_of(const json_t *object, const char *member)
{
	const char *text =
		member != NULL ? json_string_value(json_object_get(object, member)) : NULL;

	return text != NULL ? text : "";
}

char images_change_mark(const json_t *change)
{
	const char *text = text_of(change, "change");

	return streq(text, "added") ? '+' : streq(text, "changed") ? '~' : '-';
}

static void print_value(const struct list *list, const json_t *entry)
{
	bool commit = streq(list->value, "commit");

	printf(" %.*s", commit ? COMMIT_SHOWN : 200, text_of(entry, list->value));
}

static void print_list(const struct list *list, const json_t *changes)
{
	json_t *change;
	size_t i;

	if (json_array_size(changes) > 0) {
		printf("%s:\n", list->title);
	}
	json_array_foreach (changes, i, change) {
		const json_t *before = json_object_get(change, "before");
		const json_t *after = json_object_get(change, "after");
		const json_t *shown = json_is_object(after) ? after : before;
		bool both = json_is_object(before) && json_is_object(after);

		printf("  %c %s%s%s", images_change_mark(change), text_of(shown, list->names[0]),
			list->names[1] != NULL ? " " : "", text_of(shown, list->names[1]));
		if (json_is_object(before)) {
			print_value(list, before);
		}
		if (both) {
			fputs(" ->", stdout);
		}
		if (json_is_object(after)) {
			print_value(list, after);
		}
		if (both && streq(text_of(before, list->value), text_of(after, list->value))) {
			fputs(" (another digest)", stdout);
		}
		putchar('\n');
	}
}

static void print_layers(const json_t *changes)
{
	json_t *change;
	size_t i;

	if (json_array_size(changes) > 0) {
		puts("Layers:");
	}
	json_array_foreach (changes, i, change) {
		printf("  %c %s (%s)\n", images_change_mark(change), text_of(change, "title"),
			text_of(change, "kind"));
	}
}

void images_changes_print(const json_t *reply)
{
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		print_list(&lists[i], json_object_get(reply, lists[i].member));
	}
	print_layers(json_object_get(reply, "layers"));
}
