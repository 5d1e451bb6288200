/* From the names in an environment to what stands behind them. */
#include "builder/credentials/credential.h"

#include "builder/credentials/github_app.h"
#include "builder/machine.h"
#include "configs/config.h"
#include "configs/environment.h"

/* What GitHub, GitLab and Gitea take beside a token. */
#define TOKEN_USER "x-access-token"

static const struct config_github_app *find_app(
	const struct config *config, const char *name, struct error *err)
{
	for (size_t i = 0; i < config->github_app_count; i++) {
		if (streq(config->github_apps[i].name, name)) {
			return &config->github_apps[i];
		}
	}
	error_set(err, ERROR_NOT_FOUND, "no GitHub App \"%s\"", name);
	error_hint(err, "describe it under `github_apps` in %s",
		config->file != NULL ? config->file : CONFIG_DEFAULT_PATH);
	return NULL;
}

static int find_ssh_key(const struct config *config, const struct environment_auth *auth,
	struct credential *credential, struct error *err)
{
	int status = secret_read(config->secrets, auth->secret, &credential->secret, err);

	if (status == 0) {
		status = secret_read(
			config->secrets, auth->known_hosts, &credential->known_hosts, err);
		if (status == -ERROR_NOT_FOUND) {
			error_hint(err,
				"ssh-keyscan HOST > %s/%s, and compare it with what the "
				"host's owner says",
				config->secrets, auth->known_hosts);
		}
	}
	credential->kind = CREDENTIAL_SSH_KEY;
	credential->user = xstrdup(auth->user);
	return status;
}

int credential_find(struct machine *machine, const struct environment_auth *auth,
	struct credential *ret_credential, struct error *err)
{
	const struct config *config = machine->config;
	struct credential credential = {0};
	int status = 0;

	if (streq(auth->type, "token")) {
		credential.kind = CREDENTIAL_TOKEN;
		credential.user = xstrdup(auth->user != NULL ? auth->user : TOKEN_USER);
		status = secret_read(config->secrets, auth->secret, &credential.secret, err);
	} else if (streq(auth->type, "ssh-key")) {
		status = find_ssh_key(config, auth, &credential, err);
	} else if (streq(auth->type, "github-app")) {
		const struct config_github_app *app = find_app(config, auth->app, err);

		credential.kind = CREDENTIAL_TOKEN;
		credential.user = xstrdup(TOKEN_USER);
		status = app != NULL ? github_app_token(machine, app, &credential.secret, err)
				     : -(int)err->kind;
	}
	if (status < 0) {
		credential_done(&credential);
		return status;
	}
	*ret_credential = credential;
	return 0;
}

void credential_done(struct credential *credential)
{
	secret_done(&credential->secret);
	secret_done(&credential->known_hosts);
	free(credential->user);
	*credential = (struct credential){0};
}
