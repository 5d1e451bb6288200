/* `base` of an environment: a word, a reference "oci:…", or a mapping whose first key says which of
 * the kinds it is. Every kind has keys of its own; one that belongs to another is refused. */
#include "configs/environment_rows.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/path.h"
#include "configs/deb_reference.h"
#include "configs/oci_reference.h"

#include <assert.h>
#include <stdio.h>

static const char *const base_names[BASE_KINDS] = {[BASE_HOST] = "host",
	[BASE_TAR] = "tar",
	[BASE_SCRATCH] = "scratch",
	[BASE_OCI] = "oci",
	[BASE_DEB] = "deb"};

const char *base_kind_name(enum base_kind kind)
{
	assert(kind < BASE_KINDS);
	return base_names[kind];
}

/* The keys of each mapping, the one that names the kind first. */
static const struct {
	enum base_kind kind;
	const char *keys[5], *missing; /* `missing` is required besides the first */
} forms[] = {
	{BASE_TAR, {"tar", "sha256"}, "sha256"},
	{BASE_OCI, {"oci", "user", "secret"}, NULL},
	{BASE_DEB, {"deb", "mirror", "components", "security", "keyring"}, NULL},
};

static const struct yaml_node *item_named(const struct yaml_node *node, const char *key)
{
	for (size_t i = 0; i < node->count; i++) {
		if (streq(node->items[i].key, key)) {
			return &node->items[i];
		}
	}
	return NULL;
}

static bool form_has(size_t form, const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms[form].keys) && forms[form].keys[i] != NULL; i++) {
		if (streq(forms[form].keys[i], key)) {
			return true;
		}
	}
	return false;
}

static int form_check(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, size_t form, struct error *err)
{
	const char *first = forms[form].keys[0], *missing = forms[form].missing;

	for (size_t i = 0; i < node->count; i++) {
		const struct yaml_node *item = &node->items[i];

		if (!form_has(form, item->key)) {
			return yaml_error(err, in->name, item, true,
				"\"base.%s\" does not go with \"base.%s\"", item->key, first);
		}
	}
	if (missing != NULL && item_named(node, missing) == NULL) {
		yaml_error(err, in->name, node, false, "\"base.%s\" is missing", missing);
		return error_hint(err, "what `sha256sum FILE` prints for the archive");
	}
	if (forms[form].kind == BASE_OCI &&
		(item_named(node, "user") == NULL) != (item_named(node, "secret") == NULL)) {
		return setting_refuse(
			in, row, node, err, "needs both \"user\" and \"secret\", or neither");
	}
	return 0;
}

static int map_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, struct environment *environment, struct error *err)
{
	int status = settings_read_section(in, "base.", node, environment, err);

	if (status < 0) {
		return status;
	}
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		const struct yaml_node *first = item_named(node, forms[i].keys[0]);

		if (first != NULL) {
			environment->base = forms[i].kind;
			environment->base_line = first->line;
			return form_check(in, row, node, i, err);
		}
	}
	return setting_refuse(in, row, node, err, "has none of \"tar\", \"oci\" and \"deb\"");
}

/* "…@sha256:…", after "oci:". */
static int oci_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *text, struct environment *environment,
	struct error *err)
{
	struct oci_reference reference;
	const char *problem = NULL;

	if (!oci_reference_parse(text, &reference, &problem)) {
		setting_refuse(in, row, node, err, "%s", problem);
		return error_hint(
			err, "such as oci:debian@sha256:<64 hex digits>, or oci:./layout@sha256:…");
	}
	if (reference.path != NULL) {
		char *path = path_resolve(in->folder, reference.path);

		free(reference.path);
		reference.path = path;
	}
	environment->base = BASE_OCI;
	environment->base_line = node->line;
	environment->base_location = oci_reference_name(&reference);
	environment->base_sha256 = reference.digest[0] != '\0' ? xstrdup(reference.digest) : NULL;
	oci_reference_done(&reference);
	return 0;
}

int base_oci_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{

	if (node->kind != YAML_TEXT) {
		return setting_expects(in, row, node, row->expects, err);
	}
	return oci_read(in, row, node, node->text, target, err);
}

/* "SUITE@DATE", after "deb:". The other keys of a mapping may be read already. */
static int deb_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, const char *text, struct environment *environment,
	struct error *err)
{
	struct deb_reference reference;
	const char *problem = NULL;

	if (!deb_reference_parse(text, &reference, &problem)) {
		setting_refuse(in, row, node, err, "%s", problem);
		return error_hint(err, "such as deb:bookworm@20240601T000000Z");
	}
	environment->base = BASE_DEB;
	environment->base_line = node->line;
	environment->base_location = xstrdup(reference.suite);
	environment->base_date = reference.date[0] != '\0' ? xstrdup(reference.date) : NULL;
	deb_reference_done(&reference);
	return 0;
}

int base_deb_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{

	if (node->kind != YAML_TEXT) {
		return setting_expects(in, row, node, row->expects, err);
	}
	return deb_read(in, row, node, node->text, target, err);
}

int check_mirror(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *problem = deb_mirror_problem(*text);

	return problem != NULL ? setting_refuse(in, row, node, err, "%s", problem) : 0;
}

int check_components(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *problem = deb_components_problem(*text);

	return problem != NULL ? setting_refuse(in, row, node, err, "%s", problem) : 0;
}

int base_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	struct environment *environment = target;

	environment->base_line = node->line;
	if (node->kind == YAML_MAP) {
		return map_read(in, row, node, environment, err);
	}
	if (node->kind == YAML_TEXT && streq(node->text, "host")) {
		environment->base = BASE_HOST;
		return 0;
	}
	if (node->kind == YAML_TEXT && streq(node->text, "scratch")) {
		environment->base = BASE_SCRATCH;
		return 0;
	}
	if (node->kind == YAML_TEXT && str_starts(node->text, "oci:")) {
		return oci_read(in, row, node, node->text + 4, environment, err);
	}
	if (node->kind == YAML_TEXT && str_starts(node->text, "deb:")) {
		return deb_read(in, row, node, node->text + 4, environment, err);
	}
	return setting_expects(in, row, node, row->expects, err);
}

static void text_write(struct buffer *out, int indent, const char *key, const char *text)
{
	if (text != NULL) {
		buffer_addf(out, "%*s%s: ", indent, "", key);
		yaml_write_quoted(out, text);
		buffer_add_str(out, "\n");
	}
}

void base_write(const struct setting *row, const void *target, int indent, struct buffer *out)
{
	const struct environment *environment = target;
	const char *sha256 = environment->base_sha256;
	CLEANUP(free_p) char *reference = NULL;

	(void)row;
	switch (environment->base) {
	case BASE_TAR:
		buffer_add_str(out, "\n");
		text_write(out, indent + 2, "tar", environment->base_location);
		text_write(out, indent + 2, "sha256", sha256);
		break;
	case BASE_OCI:
		reference = xasprintf("%s%s%s", environment->base_location,
			sha256 != NULL ? "@sha256:" : "", sha256 != NULL ? sha256 : "");
		buffer_add_str(out, "\n");
		text_write(out, indent + 2, "oci", reference);
		text_write(out, indent + 2, "user", environment->base_user);
		text_write(out, indent + 2, "secret", environment->base_secret);
		break;
	case BASE_DEB:
		reference = xasprintf("%s%s%s", environment->base_location,
			environment->base_date != NULL ? "@" : "",
			environment->base_date != NULL ? environment->base_date : "");
		buffer_add_str(out, "\n");
		text_write(out, indent + 2, "deb", reference);
		text_write(out, indent + 2, "mirror", environment->base_mirror);
		text_write(out, indent + 2, "components", environment->base_components);
		text_write(out, indent + 2, "security", environment->base_security);
		text_write(out, indent + 2, "keyring", environment->base_keyring);
		break;
	case BASE_HOST:
	case BASE_SCRATCH:
	case BASE_KINDS:
	default:
		buffer_addf(out, " %s\n", base_kind_name(environment->base));
		break;
	}
}

static int check_dated(const struct environment *environment, struct error *err)
{
	char date[DEB_DATE_SIZE];

	if (environment->base_date != NULL) {
		return 0;
	}
	deb_date_now(environment->base_mirror, clock_real_ms(), date);
	error_set(err, ERROR_INVALID,
		"%s:%d: \"base\" has no date: deb:%s may be another Debian tomorrow",
		environment->file, environment->base_line, environment->base_location);
	return error_hint(err, "now it would be deb:%s@%s; `hob env pin %s` writes that in",
		environment->base_location, date, environment->file);
}

int environment_check_pinned(const struct environment *environment, struct error *err)
{
	const char *name = environment->base_location;

	if (environment->base == BASE_DEB) {
		return check_dated(environment, err);
	}
	if (environment->base != BASE_OCI || environment->base_sha256 != NULL) {
		return 0;
	}
	error_set(err, ERROR_INVALID,
		"%s:%d: \"base\" has no digest: oci:%s may be another image tomorrow",
		environment->file, environment->base_line, name);
	if (name[0] == '/') {
		return error_hint(err, "its index.json names them; write oci:%s@sha256:…", name);
	}
	return error_hint(err,
		"`skopeo inspect --format '{{.Digest}}' docker://%s` says it; write "
		"oci:%s@sha256:…",
		name, name);
}
