/* Lists of texts in a step: `inputs`, patterns whose order counts because the last that matches
 * decides, and `secrets`, names. */
#include "configs/environment_checks.h"

#include "base/glob.h"
#include "base/io.h"
#include "base/memory.h"
#include "configs/environment.h"

#define INPUTS_MAX 64

static int input_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *item, char ***inputs, struct error *err)
{
	const char *problem;
	char found[96];

	if (item->kind != YAML_TEXT || yaml_is_null(item)) {
		yaml_describe(item, found, sizeof(found));
		return setting_refuse(in, row, item, err, "expects patterns, not %s", found);
	}
	problem = glob_problem(item->text);
	if (problem != NULL) {
		setting_refuse(
			in, row, item, err, "holds \"%.64s\", which %s", item->text, problem);
		return error_hint(err, "such as package-lock.json, src/**, *.toml, !docs/");
	}
	strv_add(inputs, item->text);
	return 0;
}

int inputs_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	char ***inputs = (char ***)(void *)((char *)target + row->offset);
	char found[96];

	if (node->kind != YAML_LIST) {
		yaml_describe(node, found, sizeof(found));
		return setting_refuse(
			in, row, node, err, "expects %s, not %s", row->expects, found);
	}
	if (node->count > INPUTS_MAX) {
		return setting_refuse(in, row, node, err, "has more than %d patterns", INPUTS_MAX);
	}
	*inputs = xcalloc(1, sizeof(**inputs)); /* [] is not the same as not said */
	for (size_t i = 0; i < node->count; i++) {
		int code = input_read(in, row, &node->items[i], inputs, err);

		if (code < 0) {
			return code;
		}
	}
	return 0;
}

void inputs_write(const struct setting *row, const void *target, int indent, struct buffer *out)
{
	char *const *inputs =
		*(char *const *const *)(const void *)((const char *)target + row->offset);

	(void)indent;
	if (inputs == NULL) {
		return;
	}
	buffer_add_str(out, " [");
	for (size_t i = 0; inputs[i] != NULL; i++) {
		buffer_add_str(out, i > 0 ? ", " : "");
		yaml_write_quoted(out, inputs[i]);
	}
	buffer_add_str(out, "]\n");
}

#define SECRETS_MAX 16

int secrets_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	char ***names = (char ***)(void *)((char *)target + row->offset);
	char found[96];

	if (node->kind != YAML_LIST || node->count > SECRETS_MAX) {
		yaml_describe(node, found, sizeof(found));
		return setting_refuse(in, row, node, err, "expects %s, %d at the most, not %s",
			row->expects, SECRETS_MAX, found);
	}
	for (size_t i = 0; i < node->count; i++) {
		const struct yaml_node *item = &node->items[i];

		if (item->kind != YAML_TEXT || !name_is_valid(item->text)) {
			yaml_describe(item, found, sizeof(found));
			return setting_refuse(
				in, row, item, err, "expects names of secrets, not %s", found);
		}
		strv_add(names, item->text);
	}
	return 0;
}
