/* The checks that stand between an unprivileged program's packets and root. */
#include "pool/sandbox/launcher/launcher_wire.h"

#include "base/memory.h"

#include <inttypes.h>

/* No limit that a machine could have, and no product of one that overflows. */
#define LIMIT_MAX ((int64_t)1 << 50)

size_t launcher_request_size(const struct launcher_request *request)
{
	return offsetof(struct launcher_request, layers) +
	       request->layer_count * sizeof(request->layers[0]);
}

static bool text_ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

/* As SANDBOX_ID_PREFIX or BUILD_SANDBOX_ID_PREFIX, then [a-z0-9-]. */
static bool id_is_valid(const char *id)
{
	return (str_starts(id, SANDBOX_ID_PREFIX) || str_starts(id, BUILD_SANDBOX_ID_PREFIX)) &&
	       strlen(id) <= NAME_MAX_LENGTH && id[strlen(SANDBOX_ID_PREFIX)] != '\0' &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(id);
}

static bool hostname_is_valid(const char *name)
{
	return name[0] != '\0' && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") ==
		       strlen(name);
}

static int layer_check(const struct launcher_layer *layer, struct error *err)
{
	if (layer->id <= 0) {
		return error_set(err, ERROR_INVALID, "layer %" PRId64 ": not a layer", layer->id);
	}
	if (layer->id_base < 0 || layer->id_count < 1 || layer->id_count > ID_RANGE ||
		layer->id_base > (int64_t)UINT32_MAX - layer->id_count) {
		return error_set(err, ERROR_INVALID,
			"layer %" PRId64 ": ids %" PRId64 " + %" PRId64
			" are not a range of at most %d",
			layer->id, layer->id_base, layer->id_count, ID_RANGE);
	}
	return 0;
}

static int create_check(const struct launcher_request *request, struct error *err)
{
	const struct sandbox_limits *limits = &request->limits;
	const char *prefix =
		request->kind == SANDBOX_BUILD ? BUILD_SANDBOX_ID_PREFIX : SANDBOX_ID_PREFIX;

	if (request->kind > SANDBOX_BUILD || !str_starts(request->name, prefix)) {
		return error_set(err, ERROR_INVALID, "sandbox %s: wrong kind", request->name);
	}
	if (request->kind == SANDBOX_BUILD && !name_is_valid(request->staging)) {
		return error_set(
			err, ERROR_INVALID, "staging folder \"%s\": not a name", request->staging);
	}
	if (!hostname_is_valid(request->hostname)) {
		return error_set(
			err, ERROR_INVALID, "host name \"%s\" is not valid", request->hostname);
	}
	if (request->network_host > 1 || request->host_usr > 1) {
		return error_set(err, ERROR_INVALID, "a flag that is neither 0 nor 1");
	}
	if (limits->cpu_millis < 0 || limits->memory_bytes < 0 || limits->pids < 0 ||
		limits->cpu_millis > LIMIT_MAX || limits->memory_bytes > LIMIT_MAX ||
		limits->pids > LIMIT_MAX) {
		return error_set(err, ERROR_INVALID, "a limit is out of range");
	}
	for (size_t i = 0; i < request->layer_count; i++) {
		if (layer_check(&request->layers[i], err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static int room_check(const struct launcher_request *request, struct error *err)
{
	if (!streq(request->room, "staging") && !streq(request->room, "layers") &&
		!streq(request->room, "sandboxes")) {
		return error_set(
			err, ERROR_INVALID, "\"%s\" is no room of the store", request->room);
	}
	return 0;
}

/* Of a session: what a build sandbox changes is in its staging folder from the start. */
static int copy_check(const struct launcher_request *request, struct error *err)
{
	if (!id_is_valid(request->name) || !str_starts(request->name, SANDBOX_ID_PREFIX)) {
		return error_set(err, ERROR_INVALID, "sandbox \"%s\": not an id of a session",
			request->name);
	}
	if (!name_is_valid(request->staging)) {
		return error_set(
			err, ERROR_INVALID, "staging folder \"%s\": not a name", request->staging);
	}
	if (request->max_pause_us < 0 || request->max_pause_us > SNAPSHOT_PAUSE_MS_MAX * 1000) {
		return error_set(err, ERROR_INVALID, "a pause of %" PRId64 " us is not possible",
			request->max_pause_us);
	}
	return request->previous >= 0
		       ? 0
		       : error_set(err, ERROR_INVALID, "layer %" PRId64 ": not a layer",
				 request->previous);
}

static int form_check(
	const struct launcher_request *request, size_t length, uint32_t slots, struct error *err)
{
	if (length < offsetof(struct launcher_request, layers) || request->op == 0 ||
		request->op >= LAUNCHER_OPS || request->layer_count > SANDBOX_LAYERS_MAX ||
		length != launcher_request_size(request)) {
		return error_set(
			err, ERROR_INVALID, "a packet of %zu bytes that is no request", length);
	}
	if (!text_ends(request->name, sizeof(request->name)) ||
		!text_ends(request->staging, sizeof(request->staging)) ||
		!text_ends(request->hostname, sizeof(request->hostname)) ||
		!text_ends(request->room, sizeof(request->room))) {
		return error_set(err, ERROR_INVALID, "a text without an end");
	}
	if (request->slot >= slots) {
		return error_set(err, ERROR_INVALID, "slot %u: there are %u", request->slot, slots);
	}
	return 0;
}

static int tool_check(const struct launcher_request *request, struct error *err)
{
	if (request->kind >= STORE_TOOLS) {
		return error_set(err, ERROR_INVALID, "store tool %u: unknown", request->kind);
	}
	if ((request->name[0] != '\0' && !name_is_valid(request->name)) ||
		(request->hostname[0] != '\0' && !name_is_valid(request->hostname))) {
		return error_set(err, ERROR_INVALID, "\"%s\" is not a snapshot's name",
			name_is_valid(request->name) ? request->hostname : request->name);
	}
	return 0;
}

int launcher_request_check(
	const struct launcher_request *request, size_t length, uint32_t slots, struct error *err)
{
	if (form_check(request, length, slots, err) < 0) {
		return -(int)err->kind;
	}
	switch ((enum launcher_op)request->op) {
	case LAUNCHER_CREATE:
	case LAUNCHER_FREEZE:
	case LAUNCHER_THAW:
	case LAUNCHER_DESTROY:
	case LAUNCHER_PAGE_OUT:
	case LAUNCHER_MEASURE:
		if (!id_is_valid(request->name)) {
			return error_set(
				err, ERROR_INVALID, "sandbox \"%s\": not an id", request->name);
		}
		return request->op == LAUNCHER_CREATE ? create_check(request, err) : 0;
	case LAUNCHER_SNAPSHOT:
	case LAUNCHER_KEEP:
		return copy_check(request, err);
	case LAUNCHER_SEAL:
	case LAUNCHER_PREPARE:
	case LAUNCHER_REMOVE:
		if (!name_is_valid(request->staging)) {
			return error_set(
				err, ERROR_INVALID, "folder \"%s\": not a name", request->staging);
		}
		return request->op == LAUNCHER_REMOVE ? room_check(request, err) : 0;
	case LAUNCHER_BUILD:
		if (!name_is_valid(request->name) || request->build > BUILD_FETCH) {
			return error_set(err, ERROR_INVALID, "environment \"%s\": not a name",
				request->name);
		}
		return 0;
	case LAUNCHER_UPKEEP:
		return request->name[0] == '\0' || name_is_valid(request->name)
			       ? 0
			       : error_set(err, ERROR_INVALID, "\"%s\" is not a snapshot's name",
					 request->name);
	case LAUNCHER_AHEAD:
		return 0;
	case LAUNCHER_STORE:
		return tool_check(request, err);
	case LAUNCHER_OPS:
		break;
	}
	return error_set(err, ERROR_INVALID, "unknown request %u", request->op);
}
