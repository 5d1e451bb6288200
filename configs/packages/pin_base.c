/* `base: oci:NAME:TAG` gets the digest that it has now, `base: deb:SUITE` the date of now; in both
 * their forms. What is wrong with a base in other ways, reading the environment says. */
#include "configs/packages/pin.h"

#include "base/clock.h"
#include "base/path.h"
#include "configs/deb_reference.h"
#include "configs/environment_checks.h"
#include "configs/oci_reference.h"
#include "configs/settings.h"
#include "configs/yaml.h"

static bool image_is_loose(const char *text)
{
	struct oci_reference reference;
	const char *problem;
	bool loose;

	if (!oci_reference_parse(text, &reference, &problem)) {
		return false;
	}
	loose = reference.digest[0] == '\0';
	oci_reference_done(&reference);
	return loose;
}

static bool debian_is_loose(const char *text)
{
	struct deb_reference reference;
	const char *problem;
	bool loose;

	if (!deb_reference_parse(text, &reference, &problem)) {
		return false;
	}
	loose = reference.date[0] == '\0';
	deb_reference_done(&reference);
	return loose;
}

static const struct yaml_node *text_at(const struct yaml_node *root, const char *path)
{
	const struct yaml_node *node = settings_node(root, path);

	return node != NULL && node->kind == YAML_TEXT && !yaml_is_null(node) ? node : NULL;
}

static const char *value_at(const struct yaml_node *root, const char *path)
{
	const struct yaml_node *node = text_at(root, path);

	return node != NULL ? node->text : NULL;
}

/* *ret_value: without "oci:". */
static const struct yaml_node *find_image(
	const struct yaml_node *root, const char **ret_key, const char **ret_value)
{
	const struct yaml_node *word = text_at(root, "base"), *inner = text_at(root, "base.oci");

	if (word != NULL && str_starts(word->text, "oci:") && image_is_loose(word->text + 4)) {
		*ret_key = "base";
		*ret_value = word->text + 4;
		return word;
	}
	if (inner != NULL && image_is_loose(inner->text)) {
		*ret_key = "base.oci";
		*ret_value = inner->text;
		return inner;
	}
	return NULL;
}

static const struct yaml_node *find_debian(const struct yaml_node *root, const char **ret_key)
{
	const struct yaml_node *word = text_at(root, "base"), *inner = text_at(root, "base.deb");

	if (word != NULL && str_starts(word->text, "deb:") && debian_is_loose(word->text + 4)) {
		*ret_key = "base";
		return word;
	}
	*ret_key = "base.deb";
	return inner != NULL && debian_is_loose(inner->text) ? inner : NULL;
}

const struct yaml_node *pin_base_find(const struct yaml_node *root, const char **ret_key)
{
	const char *ignored;
	const struct yaml_node *image = find_image(root, ret_key, &ignored);

	return image != NULL ? image : find_debian(root, ret_key);
}

/* Paths count from the file's folder, as reading it has them. */
static int ask_digest(const char *name, const struct yaml_node *root, const char *value,
	const struct pin_asking *asking, char **ret_digest, struct error *err)
{
	struct pin_image image = {
		.user = value_at(root, "base.user"), .secret = value_at(root, "base.secret")};
	CLEANUP(oci_reference_done) struct oci_reference reference = {0};
	CLEANUP(free_p) char *folder = folder_of_file(name);
	CLEANUP(free_p) char *path = NULL;
	const char *problem = "";

	if (!oci_reference_parse(value, &reference, &problem)) {
		return error_set(err, ERROR_INTERNAL, "%s %s", value, problem);
	}
	path = reference.path != NULL ? path_resolve(folder, reference.path) : NULL;
	image.reference = path != NULL ? path : value;
	return asking->digest(asking->context, &image, ret_digest, err);
}

int pin_base_resolve(const char *name, const struct yaml_node *root,
	const struct pin_asking *asking, char **ret_text, struct error *err)
{
	const char *key, *value = NULL, *mirror = value_at(root, "base.mirror");
	const struct yaml_node *node = find_image(root, &key, &value);
	CLEANUP(free_p) char *digest = NULL;
	char date[DEB_DATE_SIZE];
	int status;

	if (node != NULL) {
		status = ask_digest(name, root, value, asking, &digest, err);
		if (status < 0) {
			return status;
		}
		*ret_text = xasprintf("%s@%s", node->text, digest);
		return 0;
	}
	node = find_debian(root, &key);
	if (node == NULL) {
		return error_set(err, ERROR_INTERNAL, "%s: the base is pinned", name);
	}
	deb_date_now(mirror != NULL ? mirror : DEB_MIRROR_DEFAULT, clock_real_ms(), date);
	*ret_text = xasprintf("%s@%s", node->text, date);
	return 0;
}
