/* Lists of texts in a step: `inputs`, patterns whose order counts because the last that matches
 * decides, and `secrets`, names. */
#include "configs/environment_checks.h"

#include "base/glob.h"
#include "base/io.h"
#include "base/memory.h"
#include "configs/environment.h"

#define INPUTS_MAX 64

static int input_check(const struct settings_input *in, const struct setting *row,
	struct yaml_node *item, char *const *before, struct error *err)
{
	const char *problem = glob_problem(item->text);

	(void)before;
	if (problem == NULL) {
		return 0;
	}
	setting_refuse(in, row, item, err, "holds \"%.64s\", which %s", item->text, problem);
	return error_hint(err, "such as package-lock.json, src/**, *.toml, !docs/");
}

int inputs_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	char ***inputs = (char ***)(void *)((char *)target + row->offset);

	*inputs = xcalloc(1, sizeof(**inputs)); /* [] is not the same as not said */
	return setting_texts_read(in, row, node, target, INPUTS_MAX, "patterns", input_check, err);
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

static int secret_check(const struct settings_input *in, const struct setting *row,
	struct yaml_node *item, char *const *before, struct error *err)
{
	(void)before;
	return name_is_valid(item->text) ? 0
					 : setting_expects(in, row, item, "names of secrets", err);
}

int secrets_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	return setting_texts_read(
		in, row, node, target, SECRETS_MAX, "names of secrets", secret_check, err);
}
