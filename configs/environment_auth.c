/* Whether a source's auth is complete and goes with its url. A token is never sent where others can
 * read it: https only, or to this machine. */
#include "configs/environment_checks.h"

#include "base/memory.h"
#include "configs/environment.h"

#include <ctype.h>

int check_auth_user(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	for (const char *at = *text; *at != '\0'; at++) {
		if (!isgraph((unsigned char)*at) || strchr(":@/", *at) != NULL) {
			return setting_refuse(in, row, node, err, "is no user name");
		}
	}
	return 0;
}

static bool is_private_way(const char *url)
{
	static const char *const here[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};

	for (size_t i = 0; i < ARRAY_SIZE(here); i++) {
		size_t length = strlen(here[i]);

		if (str_starts(url, here[i]) && strchr(":/", url[length]) != NULL) {
			return true;
		}
	}
	return str_starts(url, "https://");
}

static int check_complete(const struct environment_auth *auth, const char *name,
	const struct yaml_node *node, struct error *err)
{
	bool by_app = streq(auth->type, "github-app");

	if (by_app ? auth->app == NULL : auth->secret == NULL) {
		return yaml_error(err, name, node, false, "\"source.auth\" of type %s needs \"%s\"",
			auth->type, by_app ? "app" : "secret");
	}
	if (by_app ? auth->secret != NULL : auth->app != NULL) {
		return yaml_error(err, name, node, false,
			"\"source.auth\" of type %s takes no \"%s\"", auth->type,
			by_app ? "secret" : "app");
	}
	return 0;
}

int check_source_auth(const struct environment_source *source, const char *name,
	const struct yaml_node *node, struct error *err)
{
	const struct environment_auth *auth = &source->auth;
	bool none = streq(auth->type, "none"), key = streq(auth->type, "ssh-key");
	int code;

	if (none && url_is_ssh(source->url)) {
		yaml_error(err, name, node, false, "an ssh remote needs a key");
		return error_hint(err, "auth: {type: ssh-key, secret: NAME}, or its https:// url");
	}
	if (none) {
		return auth->secret == NULL && auth->app == NULL
			       ? 0
			       : yaml_error(err, name, node, false, "\"source.auth\" has no type");
	}
	code = check_complete(auth, name, node, err);
	if (code == 0 && key != url_is_ssh(source->url)) {
		code = yaml_error(err, name, node, false,
			key ? "a key goes with an ssh remote only"
			    : "a token goes with an https:// url only");
	}
	if (code == 0 && !key && !is_private_way(source->url)) {
		yaml_error(
			err, name, node, false, "a token would be sent where others can read it");
		code = error_hint(err, "use the https:// url");
	}
	return code;
}
