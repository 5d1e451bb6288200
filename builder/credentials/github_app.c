/* The exchange runs in a child process, as all that reads servers' replies does. Invariant: a kept
 * token is read only by hob's user, and lies where a restart of the machine takes it away. */
#include "builder/credentials/github_app.h"

#include "base/base64.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "configs/config.h"
#include "gen/version.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>

#define JWT_AHEAD_S 60 /* GitHub's clock may be behind ours */
#define JWT_LIFE_S 540 /* ten minutes at the most, from "iat" on */
#define TOKEN_SPARE_MS (5 * 60 * 1000)
#define TOKEN_SIZE 512
#define REPLY_MAX 65536
#define STALL_MS 30000

/* ---- the JWT ---- */

static char *base64url(const void *data, size_t length)
{
	char *text = base64_encode(data, length);

	for (char *at = text; *at != '\0'; at++) {
		*at = (char)(*at == '+' ? '-' : *at == '/' ? '_' : *at);
	}
	text[strcspn(text, "=")] = '\0';
	return text;
}

DEFINE_CLEANUP(pkey_p, EVP_PKEY, EVP_PKEY_free)
DEFINE_CLEANUP(md_context_p, EVP_MD_CTX, EVP_MD_CTX_free)
DEFINE_CLEANUP(bio_p, BIO, BIO_free_all)

/* A key with a passphrase is refused rather than asked for. */
static int no_passphrase(char *text, int size, int writing, void *context)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)context;
	return -1;
}

static int sign(const char *key, const char *text, char **ret_signature, struct error *err)
{
	CLEANUP(bio_p) BIO *bio = BIO_new_mem_buf(key, -1);
	CLEANUP(pkey_p) EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	CLEANUP(md_context_p) EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned char signature[2048];
	size_t length = sizeof(signature);

	if (pkey == NULL || EVP_PKEY_base_id(pkey) != EVP_PKEY_RSA) {
		error_set(err, ERROR_INVALID, "the App's key is no RSA key in PEM");
		return error_hint(err, "take the .pem file that GitHub gave for the App");
	}
	if (EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, pkey) != 1 ||
		EVP_DigestSign(context, signature, &length, (const unsigned char *)text,
			strlen(text)) != 1) {
		return error_set(err, ERROR_INVALID, "the App's key does not sign");
	}
	*ret_signature = base64url(signature, length);
	return 0;
}

int github_app_jwt(
	const char *app_id, const char *key, int64_t now_s, char **ret_jwt, struct error *err)
{
	static const char header[] = "{\"alg\":\"RS256\",\"typ\":\"JWT\"}";
	CLEANUP(free_p)
	char *claims = xasprintf("{\"iat\":%lld,\"exp\":%lld,\"iss\":\"%s\"}",
		(long long)now_s - JWT_AHEAD_S, (long long)now_s + JWT_LIFE_S, app_id);
	CLEANUP(free_p) char *first = base64url(header, strlen(header));
	CLEANUP(free_p) char *second = base64url(claims, strlen(claims));
	CLEANUP(free_p) char *text = xasprintf("%s.%s", first, second);
	CLEANUP(free_p) char *signature = NULL;
	int status = sign(key, text, &signature, err);

	if (status == 0) {
		*ret_jwt = xasprintf("%s.%s", text, signature);
	}
	return status;
}

/* ---- the exchange ---- */

struct token {
	char text[TOKEN_SIZE];
	int64_t expires_ms;
};

struct exchange {
	const struct config_github_app *app;
	const char *key;
};

static size_t on_reply(char *data, size_t size, size_t count, void *context)
{
	return buffer_add(context, data, size * count) ? size * count : 0;
}

static int refused(
	const struct config_github_app *app, long code, const json_t *reply, struct error *err)
{
	const char *said = json_string_value(json_object_get(reply, "message"));

	error_set(err, code == 401 || code == 403 || code == 404 ? ERROR_DENIED : ERROR_REMOTE,
		"GitHub App \"%s\": no token: %.200s (%ld)", app->name,
		said != NULL ? said : "the server gave no reason", code);
	return error_hint(err, "check id, installation and key of the App in hob.yaml");
}

static int take_token(const struct config_github_app *app, long code, const struct buffer *text,
	struct token *token, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	struct error ignored = ERROR_INIT;
	const char *value, *expires;

	if (json_parse_object(buffer_text(text), text->length, &reply, &ignored) < 0 ||
		code != 201) {
		return refused(app, code, reply, err);
	}
	value = json_string_value(json_object_get(reply, "token"));
	expires = json_string_value(json_object_get(reply, "expires_at"));
	if (value == NULL || expires == NULL || strlen(value) >= sizeof(token->text) ||
		!clock_parse(expires, &token->expires_ms)) {
		return refused(app, code, reply, err);
	}
	snprintf(token->text, sizeof(token->text), "%s", value);
	return 0;
}

static int post(CURL *curl, const struct config_github_app *app, const char *jwt,
	struct buffer *reply, long *ret_code, struct error *err)
{
	CLEANUP(free_p)
	char *url = xasprintf("%s/app/installations/%s/access_tokens", app->api, app->installation);
	CLEANUP(free_p) char *bearer = xasprintf("Authorization: Bearer %s", jwt);
	struct curl_slist *headers = curl_slist_append(NULL, bearer);
	char reason[CURL_ERROR_SIZE] = "";
	CURLcode code;

	headers = curl_slist_append(headers, "Accept: application/vnd.github+json");
	headers = curl_slist_append(headers, "X-GitHub-Api-Version: 2022-11-28");
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)STALL_MS);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "hob/" HOB_VERSION);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_reply);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_code);
	curl_slist_free_all(headers);
	if (code != CURLE_OK) {
		error_set(err, ERROR_REMOTE, "ask %s for a token: %s", app->api,
			reason[0] != '\0' ? reason : curl_easy_strerror(code));
		return error_hint(err, "check the network; the last image stays in use");
	}
	return 0;
}

static int exchange_child(struct child *child, void *context, void *ret_token, struct error *err)
{
	const struct exchange *exchange = context;
	CLEANUP(buffer_done) struct buffer reply;
	CLEANUP(free_p) char *jwt = NULL;
	long code = 0;
	CURL *curl;
	int status =
		github_app_jwt(exchange->app->id, exchange->key, clock_real_ms() / 1000, &jwt, err);

	(void)child;
	buffer_init(&reply, REPLY_MAX);
	if (status < 0) {
		return status;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
		(curl = curl_easy_init()) == NULL) {
		return error_set(err, ERROR_INTERNAL, "libcurl does not start");
	}
	status = post(curl, exchange->app, jwt, &reply, &code, err);
	curl_easy_cleanup(curl);
	return status < 0 ? status : take_token(exchange->app, code, &reply, ret_token, err);
}

/* ---- what is kept ---- */

/* Of this App as it is described now: another installation's token would be the wrong one. */
static char *kept_path(const struct machine *machine, const struct config_github_app *app)
{
	return xasprintf(
		"%s/tokens/%s-%s-%s", machine->config->run, app->name, app->id, app->installation);
}

static bool read_kept(const char *path, struct token *token)
{
	CLEANUP(buffer_done) struct buffer text;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error ignored = ERROR_INIT;
	const char *value;
	int64_t expires_ms = 0;

	buffer_init(&text, REPLY_MAX);
	if (io_read_file(AT_FDCWD, path, &text, &ignored) < 0 ||
		json_parse_object(buffer_text(&text), text.length, &json, &ignored) < 0) {
		return false;
	}
	value = json_string_value(json_object_get(json, "token"));
	expires_ms = json_integer_value(json_object_get(json, "expires_ms"));
	if (value == NULL || strlen(value) >= sizeof(token->text) ||
		expires_ms < clock_real_ms() + TOKEN_SPARE_MS) {
		return false;
	}
	snprintf(token->text, sizeof(token->text), "%s", value);
	token->expires_ms = expires_ms;
	return true;
}

/* Without a run folder of ours the next build asks again, that is all. */
static void keep(const struct machine *machine, const char *path, const struct token *token)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/tokens", machine->config->run);
	CLEANUP(json_decref_p)
	json_t *json = json_pack(
		"{s:s, s:I}", "token", token->text, "expires_ms", (json_int_t)token->expires_ms);
	CLEANUP(free_p) char *text = json_text(json);
	struct error ignored = ERROR_INIT;

	(void)mkdir(folder, 0700);
	(void)!io_write_file(AT_FDCWD, path, text, strlen(text), 0600, &ignored);
	explicit_bzero(text, strlen(text));
}

int github_app_token(struct machine *machine, const struct config_github_app *app,
	struct secret *ret_token, struct error *err)
{
	CLEANUP(free_p) char *path = kept_path(machine, app);
	CLEANUP(free_p) char *what = xasprintf("token of GitHub App %s", app->name);
	CLEANUP(secret_done) struct secret key = {0};
	struct exchange exchange = {.app = app};
	struct child_spec spec = {.what = what,
		.run = exchange_child,
		.context = &exchange,
		.result_size = sizeof(struct token),
		.stall_ms = 2 * STALL_MS};
	struct token token = {.expires_ms = 0};
	int status = 0;

	if (!read_kept(path, &token)) {
		status = secret_read(machine->config->secrets, app->key, &key, err);
		exchange.key = key.text;
		if (status == 0) {
			status = child_run(machine, &spec, &token, err);
		}
		if (status < 0) {
			return status;
		}
		token.text[sizeof(token.text) - 1] = '\0';
		keep(machine, path, &token);
	}
	ret_token->text = xcalloc(SECRET_BYTES_MAX + 1, 1);
	ret_token->length = strlen(token.text);
	memcpy(ret_token->text, token.text, ret_token->length);
	explicit_bzero(&token, sizeof(token));
	return 0;
}
