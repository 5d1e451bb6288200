/* What the package managers say that they have installed. The reports come out of a sandbox: every
 * text is looked at before it is kept. */
#include "builder/packages/packages.h"

#include "base/buffer.h"
#include "base/digest.h"
#include "base/io.h"
#include "base/json.h"
#include "snapshots/store.h"

#include <stdio.h>

#define INSTALLED_MAX 20000
#define TEXT_MAX 512

struct installed {
	enum package_manager manager;
	char *const *requested;
	json_t *list;
};

static bool is_text(const char *text)
{
	size_t length = text != NULL ? strlen(text) : 0;

	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] > 0x7e) {
			return false;
		}
	}
	return length > 0 && length <= TEXT_MAX;
}

static bool is_requested(const struct installed *installed, const char *name, const char *version)
{
	for (char *const *text = installed->requested; text != NULL && *text != NULL; text++) {
		CLEANUP(free_p) char *asked = NULL;
		CLEANUP(free_p) char *asked_version = NULL;

		package_parse(installed->manager, *text, &asked, &asked_version);
		if (installed->manager == PACKAGE_APT) {
			asked[strcspn(asked, ":")] = '\0';
		}
		if (package_name_equal(installed->manager, asked, name) && asked_version != NULL &&
			streq(asked_version, version)) {
			return true;
		}
	}
	return false;
}

/* digest NULL: there is none, or none of that kind. */
static int add(struct installed *installed, const char *name, const char *version,
	const char *digest, struct error *err)
{
	json_t *one;

	if (!is_text(name) || !is_text(version) || (digest != NULL && !is_text(digest)) ||
		json_array_size(installed->list) >= INSTALLED_MAX) {
		return error_set(
			err, ERROR_CORRUPT, "its report names something that is no package");
	}
	one = json_object();
	json_object_set_new(one, "manager", json_string(package_manager_name(installed->manager)));
	json_object_set_new(one, "name", json_string(name));
	json_object_set_new(one, "version", json_string(version));
	json_object_set_new(one, "digest", json_str_or_null(digest));
	json_object_set_new(one, "requested", json_boolean(is_requested(installed, name, version)));
	json_array_append_new(installed->list, one);
	return 0;
}

/* NAME, architecture, version and digest in columns. */
static int parse_apt(struct installed *installed, const char *report, struct error *err)
{
	int status = 0;

	while (status == 0 && *report != '\0') {
		CLEANUP(free_p) char *line = xstrndup(report, strcspn(report, "\n"));
		char *rest = line, *fields[4];
		size_t count = 0;
		char digest[SHA256_TEXT_SIZE + 8];

		while (count < ARRAY_SIZE(fields) && rest != NULL) {
			fields[count++] = strsep(&rest, "\t");
		}
		if (count < ARRAY_SIZE(fields) || rest != NULL || !digest_is_valid(fields[3])) {
			return error_set(err, ERROR_CORRUPT, "apt's report has the line \"%.100s\"",
				fields[0]);
		}
		snprintf(digest, sizeof(digest), "sha256:%s", fields[3]);
		status = add(installed, fields[0], fields[2], digest, err);
		report += strcspn(report, "\n");
		report += *report == '\n';
	}
	return status;
}

/* "node_modules/a/node_modules/@b/c" is @b/c. */
static const char *npm_name(const char *place)
{
	static const char folder[] = "node_modules/";
	const char *name = NULL;

	for (const char *at = strstr(place, folder); at != NULL; at = strstr(name, folder)) {
		name = at + strlen(folder);
	}
	return name;
}

static int parse_npm(struct installed *installed, const char *report, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const char *place;
	json_t *value;
	int status = json_parse_object(report, strlen(report), &json, err);

	if (status < 0 || !json_is_object(json_object_get(json, "packages"))) {
		return error_set(err, ERROR_CORRUPT, "npm's package-lock.json has no packages");
	}
	json_object_foreach (json_object_get(json, "packages"), place, value) {
		const char *name = npm_name(place);

		/* Parts that are for other systems stay out. */
		if (name == NULL || json_is_true(json_object_get(value, "link")) ||
			(json_is_true(json_object_get(value, "optional")) &&
				json_object_get(value, "os") != NULL)) {
			continue;
		}
		status = add(installed, name, json_string_value(json_object_get(value, "version")),
			json_string_value(json_object_get(value, "integrity")), err);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

static int parse_pip(struct installed *installed, const char *report, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	json_t *value;
	size_t i;
	int status = json_parse_object(report, strlen(report), &json, err);

	if (status < 0 || !json_is_array(json_object_get(json, "install"))) {
		return error_set(err, ERROR_CORRUPT, "pip's report has no list \"install\"");
	}
	json_array_foreach (json_object_get(json, "install"), i, value) {
		const json_t *about = json_object_get(value, "metadata");
		const json_t *archive =
			json_object_get(json_object_get(value, "download_info"), "archive_info");
		const char *hash = json_string_value(
			json_object_get(json_object_get(archive, "hashes"), "sha256"));
		const char *text = json_string_value(json_object_get(archive, "hash"));
		char digest[SHA256_TEXT_SIZE + 8];

		if (hash == NULL && text != NULL && str_starts(text, "sha256=")) {
			hash = text + strlen("sha256=");
		}
		snprintf(digest, sizeof(digest), "sha256:%s", hash != NULL ? hash : "");
		status = add(installed, json_string_value(json_object_get(about, "name")),
			json_string_value(json_object_get(about, "version")),
			hash != NULL && digest_is_valid(hash) ? digest : NULL, err);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

/* What was asked for and not installed, because the base has it in that version. */
static int add_present(struct installed *installed, struct error *err)
{
	int status = 0;

	for (char *const *text = installed->requested; status == 0 && *text != NULL; text++) {
		CLEANUP(free_p) char *name = NULL;
		CLEANUP(free_p) char *version = NULL;
		bool found = false;
		json_t *value;
		size_t i;

		package_parse(installed->manager, *text, &name, &version);
		if (installed->manager == PACKAGE_APT) {
			name[strcspn(name, ":")] = '\0';
		}
		json_array_foreach (installed->list, i, value) {
			found = found || package_name_equal(installed->manager, name,
						 json_string_value(json_object_get(value, "name")));
		}
		if (!found) {
			status = add(installed, name, version, NULL, err);
		}
	}
	return status;
}

int installed_parse(enum package_manager manager, const char *report, char *const *requested,
	json_t **ret_list, struct error *err)
{
	CLEANUP(json_decref_p) json_t *list = json_array();
	struct installed installed = {manager, requested, list};
	int status = manager == PACKAGE_APT   ? parse_apt(&installed, report, err)
		     : manager == PACKAGE_NPM ? parse_npm(&installed, report, err)
					      : parse_pip(&installed, report, err);

	if (status == 0) {
		status = add_present(&installed, err);
	}
	if (status == 0) {
		*ret_list = steal_ptr(list);
	}
	return status;
}

int installed_write(const struct staging *staging, const json_t *list, struct error *err)
{
	CLEANUP(free_p) char *text = json_text(list);

	return io_write_file(staging_fd(staging), LAYER_PACKAGES, text, strlen(text), 0600, err);
}

json_t *installed_read(struct store *store, const struct layer *layer)
{
	CLEANUP(free_p)
	char *path = xasprintf("layers/%lld/" LAYER_PACKAGES, (long long)layer->id);
	CLEANUP(buffer_done) struct buffer text = {.max = 4 * INSTALLED_BYTES_MAX};
	struct error ignored = ERROR_INIT;
	json_t *list;

	if (io_read_file(store_fd(store), path, &text, &ignored) < 0) {
		return NULL;
	}
	list = json_loads(buffer_text(&text), 0, NULL);
	if (!json_is_array(list)) {
		json_decref(list);
		return NULL;
	}
	return list;
}
