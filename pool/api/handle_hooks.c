/* Webhooks: what a forge says of a push becomes builds of the environments that it concerns. This
 * is the one part of the API that answers to strangers, by the signature alone. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "configs/config.h"
#include "configs/secret.h"
#include "pool/api/handlers.h"
#include "pool/api/hook.h"
#include "pool/api/http_private.h"
#include "pool/builds.h"
#include "pool/manager.h"

const struct route http_hook_routes[] = {
	{"POST", "/v1/hooks/github", handle_hook_github, false},
	{"POST", "/v1/hooks/generic", handle_hook_generic, false},
	{"GET", "/healthz", handle_health, false},
	{0},
};

static int read_hook_secret(
	const struct http_request *request, struct secret *secret, struct error *err)
{
	const struct config *config = request->manager->config;

	if (streq(config->hook_secret, "none")) {
		error_set(err, ERROR_NOT_FOUND, "webhooks are not set up");
		return error_hint(err, "name a secret by `hook_secret` in hob.yaml");
	}
	return secret_read(config->secrets, config->hook_secret, secret, err);
}

static void build_what_it_concerns(struct http_request *request, const struct hook_push *push)
{
	json_t *list = json_array();

	for (struct pool *pool = request->manager->pools; pool != NULL; pool = pool->next) {
		if (pool->conf != NULL && hook_concerns(push, pool->conf)) {
			bool running = build_request(pool, push->commit);

			json_array_append_new(
				list, json_pack("{s:s, s:s}", "environment", pool->name, "state",
					      running ? "running" : "queued"));
		}
	}
	log_info("hook.push", "ref", push->ref, "commit", push->commit, "environments",
		json_array_size(list));
	http_reply_json(request, MHD_HTTP_ACCEPTED, json_pack("{s:o}", "environments", list));
}

/* The answer to a body whose signature is good. */
static void answer(struct http_request *request, const char *github_event)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct hook_push push = {0};
	struct error err = ERROR_INIT;
	int status = http_body_json(request, &json, &err);

	if (status < 0) {
		error_hint(&err, "webhooks are taken as application/json");
	} else if (github_event != NULL) {
		status = hook_parse_github(json, github_event, &push, &err);
	} else {
		status = hook_parse_generic(json, &push, &err);
	}
	if (status < 0) {
		http_reply_error(request, &err);
		return;
	}
	build_what_it_concerns(request, &push);
}

void handle_hook_github(struct http_request *request)
{
	CLEANUP(secret_done) struct secret secret = {0};
	const char *event = http_header(request, "X-GitHub-Event");
	struct error err = ERROR_INIT;

	if (read_hook_secret(request, &secret, &err) < 0 ||
		hook_check_github(secret.text, http_header(request, "X-Hub-Signature-256"),
			buffer_text(&request->body), request->body.length, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	answer(request, event != NULL ? event : "");
}

void handle_hook_generic(struct http_request *request)
{
	CLEANUP(secret_done) struct secret secret = {0};
	struct error err = ERROR_INIT;

	if (read_hook_secret(request, &secret, &err) < 0 ||
		hook_check_generic(secret.text, http_header(request, "X-Hob-Signature"),
			http_header(request, "X-Hob-Timestamp"), clock_real_ms() / 1000,
			buffer_text(&request->body), request->body.length, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	answer(request, NULL);
}
