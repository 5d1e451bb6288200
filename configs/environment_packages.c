/* `packages` and `files` of an environment: that each version is exact and each file has a place,
 * and the variables by which commands find what is installed outside /usr. */
#include "configs/environment_packages.h"

#include "base/digest.h"
#include "base/path.h"
#include "configs/environment.h"

#include <stdio.h>

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MIRRORS_MAX 8
#if defined(__x86_64__)
#define TRIPLET "x86_64-linux-gnu"
#elif defined(__aarch64__)
#define TRIPLET "aarch64-linux-gnu"
#else
#define TRIPLET "."
#endif

/* ---- packages ---- */

static int refuse_loose(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *item, enum package_manager manager, const char *name,
	struct error *err)
{
	static const char *const asks[PACKAGE_MANAGERS] = {[PACKAGE_APT] = "apt-cache policy",
		[PACKAGE_NPM] = "npm view",
		[PACKAGE_PIP] = "pip index versions"};
	static const char *const examples[PACKAGE_MANAGERS] = {[PACKAGE_APT] = "NAME=VERSION",
		[PACKAGE_NPM] = "NAME@MAJOR.MINOR.PATCH",
		[PACKAGE_PIP] = "NAME==VERSION"};

	setting_refuse(in, row, item, err,
		"names no exact version of %.64s: \"%.128s\" is not of the form %s", name,
		item->text, examples[manager]);
	return error_hint(err,
		"`hob env pin %s` writes in what it is now; `%s %s` shows what there is", in->name,
		asks[manager], name);
}

static int package_check(const struct settings_input *in, const struct setting *row,
	struct yaml_node *item, char *const *before, struct error *err)
{
	CLEANUP(free_p) char *name = NULL;
	enum package_manager manager = PACKAGE_APT;
	enum package_state state;

	if (!package_manager_from_name(strrchr(row->key, '.') + 1, &manager)) {
		return error_set(err, ERROR_INTERNAL, "no package manager for %s", row->key);
	}
	state = package_parse(manager, item->text, &name, NULL);
	if (state == PACKAGE_NONSENSE) {
		setting_refuse(in, row, item, err, "holds \"%.128s\", which names no package of %s",
			item->text, package_manager_name(manager));
		return error_hint(err, "such as %s",
			manager == PACKAGE_APT   ? "ripgrep=13.0.0-4+b2"
			: manager == PACKAGE_NPM ? "typescript@5.4.5, \"@types/node@20.12.7\""
						 : "pandas==2.2.0, \"black[d]==24.4.0\"");
	}
	if (state == PACKAGE_LOOSE) {
		return refuse_loose(in, row, item, manager, name, err);
	}
	for (; before != NULL && *before != NULL; before++) {
		CLEANUP(free_p) char *other = NULL;

		package_parse(manager, *before, &other, NULL);
		if (package_name_equal(manager, name, other)) {
			return setting_refuse(in, row, item, err, "names %.128s twice", name);
		}
	}
	return 0;
}

int packages_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	return setting_texts_read(
		in, row, node, target, PACKAGES_MAX, "names of packages", package_check, err);
}

/* ---- files ---- */

int check_file_url(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	const char *host = strstr(*text, "://");
	size_t length = host != NULL ? strcspn(host + 3, "/") : 0;

	if ((!str_starts(*text, "http://") && !str_starts(*text, "https://")) || length == 0) {
		return setting_refuse(in, row, node, err, "expects an http(s):// URL");
	}
	if (memchr(host + 3, '@', length) != NULL) {
		return setting_refuse(in, row, node, err, "must not hold a password");
	}
	return 0;
}

static int check_mirror_url(const struct settings_input *in, const struct setting *row,
	struct yaml_node *item, char *const *before, struct error *err)
{
	(void)before;
	return check_file_url(in, row, item, &item->text, err);
}

int urls_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	return setting_texts_read(
		in, row, node, target, MIRRORS_MAX, "URLs", check_mirror_url, err);
}

int check_file_mode(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	size_t length = strlen(*text);

	if (length < 3 || length > 4 || strspn(*text, "01234567") != length ||
		(length == 4 && (*text)[0] != '0')) {
		setting_refuse(in, row, node, err, "expects a mode such as \"0755\"");
		return error_hint(err, "set-user-id and its like are for no file of a sandbox");
	}
	return 0;
}

static int check_place(const struct environment *environment, const char *path, bool folder,
	const char *name, const struct yaml_node *node, struct error *err)
{
	static const char *const own[] = {"/proc", "/sys", "/dev", "/run", "/tmp"};
	/* Links in most systems, which a folder of that name would hide. */
	static const char *const links[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};

	if (streq(path, "/") && !folder) {
		return yaml_error(err, name, node, false, "\"files.path\" must not be /");
	}
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		if (path_is_below(path, own[i])) {
			return yaml_error(err, name, node, false,
				"%s is of every sandbox's own: nothing can be placed there",
				own[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		if (path_is_below(path, links[i])) {
			yaml_error(err, name, node, false, "%s is a link in most bases", links[i]);
			return error_hint(err, "say /usr%s", path);
		}
	}
	if (environment->base == BASE_HOST && path_is_below(path, "/usr")) {
		yaml_error(err, name, node, false,
			"with base: host, /usr is this machine's and read-only");
		return error_hint(err, "place it below /opt, and add that to PATH in `env`");
	}
	return 0;
}

int environment_check_files(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	for (size_t i = 0; i < environment->file_count; i++) {
		const struct environment_file *file = &environment->files[i];
		const struct yaml_node *entry = &settings_node(root, "files")->items[i];
		const struct yaml_node *place =
			settings_node(entry, file->path != NULL ? "path" : "unpack");
		int status;

		if ((file->path != NULL) == (file->unpack != NULL)) {
			yaml_error(err, name, entry, false,
				"\"files\" expects either \"path\" or \"unpack\"");
			return error_hint(err,
				"path: the file's name in the sandbox; unpack: the folder for "
				"what an archive holds");
		}
		if (file->unpack != NULL && file->mode != NULL) {
			return yaml_error(err, name, settings_node(entry, "mode"), false,
				"\"files.mode\" is not for an archive, which brings its own");
		}
		status = check_place(environment, file->path != NULL ? file->path : file->unpack,
			file->unpack != NULL, name, place, err);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

/* ---- what follows from them ---- */

static bool has_variable(char *const *env, const char *name)
{
	size_t length = strlen(name);

	for (; *env != NULL; env++) {
		if (strncmp(*env, name, length) == 0 && (*env)[length] == '=') {
			return true;
		}
	}
	return false;
}

static void add_sorted(char ***env, const char *entry)
{
	size_t count = strv_count(*env), place = 0;

	strv_add(env, entry);
	while (place < count && strcmp((*env)[place], entry) < 0) {
		place++;
	}
	for (size_t i = count; i > place; i--) {
		char *moved = (*env)[i];

		(*env)[i] = (*env)[i - 1];
		(*env)[i - 1] = moved;
	}
}

void environment_packages_env(struct environment *environment)
{
	bool apt = environment->packages[PACKAGE_APT] != NULL && environment->base == BASE_HOST;
	bool npm = environment->packages[PACKAGE_NPM] != NULL;
	bool pip = environment->packages[PACKAGE_PIP] != NULL;
	CLEANUP(free_p)
	char *path = xasprintf("PATH=%s%s%s%s", pip ? PACKAGES_ROOT "/pip/bin:" : "",
		npm ? PACKAGES_ROOT "/npm/node_modules/.bin:" : "",
		apt ? PACKAGES_ROOT "/apt/usr/sbin:" PACKAGES_ROOT "/apt/usr/bin:" PACKAGES_ROOT
				    "/apt/sbin:" PACKAGES_ROOT "/apt/bin:" PACKAGES_ROOT
				    "/apt/usr/games:"
		    : "",
		PATH_DEFAULT);

	if ((apt || npm || pip) && !has_variable(environment->env, "PATH")) {
		add_sorted(&environment->env, path);
	}
	if (apt && !has_variable(environment->env, "LD_LIBRARY_PATH")) {
		add_sorted(&environment->env,
			"LD_LIBRARY_PATH=" PACKAGES_ROOT "/apt/usr/lib/" TRIPLET ":" PACKAGES_ROOT
			"/apt/lib/" TRIPLET ":" PACKAGES_ROOT "/apt/usr/lib");
	}
}

void environment_packages_digest(const struct environment *environment, struct digest *digest)
{
	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		if (environment->packages[i] != NULL) {
			digest_add_str_or_null(
				digest, package_manager_name((enum package_manager)i));
		}
		for (char **text = environment->packages[i]; text != NULL && *text != NULL;
			text++) {
			digest_add_str_or_null(digest, *text);
		}
	}
	for (size_t i = 0; i < environment->file_count; i++) {
		/* Where it comes from does not matter, its digest says what it is. */
		digest_add_str_or_null(digest, environment->files[i].sha256);
		digest_add_str_or_null(digest, environment->files[i].path);
		digest_add_str_or_null(digest, environment->files[i].unpack);
		digest_add_str_or_null(digest, environment->files[i].mode);
	}
}

void environment_packages_free(struct environment *environment)
{
	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		strv_free(environment->packages[i]);
	}
	for (size_t i = 0; i < environment->file_count; i++) {
		free(environment->files[i].url);
		free(environment->files[i].sha256);
		free(environment->files[i].path);
		free(environment->files[i].unpack);
		free(environment->files[i].mode);
		strv_free(environment->files[i].mirrors);
	}
	free(environment->files);
}
