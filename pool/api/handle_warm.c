/* Hints. Everything here is about the caller's own: whose they are, the connection says. */
#include "base/clock.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/body.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/hints/hint.h"
#include "pool/manager.h"

#include <sys/socket.h>

int http_caller(struct http_request *request, struct caller *ret_caller, struct error *err)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t size = sizeof(peer);

	/* Another kind of socket has no peer that the kernel vouches for. */
	if (info == NULL ||
		getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
		peer.uid == (uid_t)-1) {
		error_set(err, ERROR_DENIED, "hints need a caller, and this connection names none");
		return error_hint(err, "use the unix socket");
	}
	caller_from_uid(ret_caller, peer.uid);
	return 0;
}

static json_t *hint_to_json(const struct hint *hint)
{
	const struct entry *entry = hint->entry;
	const struct entry_record *record = &entry->record;

	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:o, s:s, s:I, s:o, s:I}", "key",
		record->hint.key, "environment", record->environment, "snapshot",
		json_numbered("snap-", record->snapshot_id), "state",
		hint_is_ready(hint) ? "ready" : "starting", "sandbox", record->id, "image",
		json_numbered("img-", record->image_id), "commit", entry_commit(entry), "eta_ms",
		(json_int_t)hint_eta_ms(hint), "expires_at", json_time(hint_expires_ms(hint)),
		"ttl_s", (json_int_t)(record->hint.ttl_ms / 1000));
}

static int check_ttl(const struct config *config, int64_t ttl_s, struct error *err)
{
	int64_t most_s = config->hint_ttl_max_ms / 1000;

	if (ttl_s <= most_s) {
		return 0;
	}
	error_set(err, ERROR_INVALID, "\"ttl_s\" is at most %lld here (hint_ttl_max)",
		(long long)most_s);
	return error_hint(err, "each further call of the same key begins it anew");
}

void handle_warm(struct http_request *request)
{
	const struct config *config = request->manager->config;
	CLEANUP(json_decref_p) json_t *json = NULL;
	const struct hint *hint = NULL;
	struct error err = ERROR_INIT;
	struct warm_body body = {0};
	struct caller caller;
	struct hint_spec spec = {.caller = &caller};

	if (http_body_json(request, &json, &err) < 0 || warm_body_parse(json, &body, &err) < 0 ||
		check_ttl(config, body.ttl_s, &err) < 0 ||
		http_caller(request, &caller, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	spec.key = body.key;
	spec.environment = body.environment;
	spec.snapshot = body.snapshot;
	spec.ttl_ms = body.ttl_s > 0                          ? body.ttl_s * 1000
		      : HINT_TTL_MS < config->hint_ttl_max_ms ? HINT_TTL_MS
							      : config->hint_ttl_max_ms;
	if (hint_warm(request->manager, &spec, &hint, &err) < 0) {
		http_reply_error_status(request,
			err.kind == ERROR_LIMIT ? MHD_HTTP_TOO_MANY_REQUESTS
						: (unsigned)error_http_status(err.kind),
			&err);
		return;
	}
	http_reply_json(request, MHD_HTTP_OK, hint_to_json(hint));
}

void handle_warm_list(struct http_request *request)
{
	struct error err = ERROR_INIT;
	struct caller caller;
	json_t *list;

	if (http_caller(request, &caller, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	list = json_array();
	for (const struct hint *hint = hints_of(request->manager, &caller); hint != NULL;
		hint = hint->next) {
		json_array_append_new(list, hint_to_json(hint));
	}
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:s, s:I, s:o}", "caller", caller.name, "hints_per_caller",
			(json_int_t)request->manager->config->hints_per_caller, "hints", list));
}

void handle_warm_cancel(struct http_request *request)
{
	const char *key = request->match.args[0];
	struct error err = ERROR_INIT;
	struct hint *hint = NULL;
	struct caller caller;

	if (key_check(key, &err) < 0 || http_caller(request, &caller, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	hint = hint_find(request->manager, &caller, key);
	if (hint == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "no hint \"%s\" of yours", key);
		error_hint(
			&err, "`hob pool hints` lists them; it may have been claimed or expired");
		http_reply_error(request, &err);
		return;
	}
	hint_end(hint, "cancelled");
	http_reply_json(
		request, MHD_HTTP_OK, json_pack("{s:s, s:s}", "key", key, "state", "cancelled"));
}
