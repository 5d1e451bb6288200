/* The API: every method and path, and who answers. */
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"

const struct route http_routes[] = {
	{"GET", "/healthz", handle_health, false},
	{"GET", "/v1/info", handle_info, false},
	{"POST", "/v1/sandboxes", handle_sandbox_create, false},
	{"GET", "/v1/sandboxes", handle_sandbox_list, false},
	{"GET", "/v1/sandboxes/*", handle_sandbox_get, false},
	{"DELETE", "/v1/sandboxes/*", handle_sandbox_delete, false},
	{"POST", "/v1/sandboxes/*/timeout", handle_sandbox_timeout, false},
	{"POST", "/v1/sandboxes/*/exec", handle_exec, false},
	{"GET", "/v1/sandboxes/*/exec", handle_exec_websocket, false},
	{"GET", "/v1/sandboxes/*/execs", handle_exec_list, false},
	{"GET", "/v1/sandboxes/*/execs/*", handle_exec_get, false},
	{"DELETE", "/v1/sandboxes/*/execs/*", handle_exec_delete, false},
	{"GET", "/v1/sandboxes/*/files/**", handle_file_get, false},
	{"PUT", "/v1/sandboxes/*/files/**", handle_file_put, true},
	{"DELETE", "/v1/sandboxes/*/files/**", handle_file_delete, false},
	{"GET", "/v1/pool", handle_pool, false},
	{"GET", "/v1/environments", handle_environment_list, false},
	{"GET", "/v1/environments/*", handle_environment_get, false},
	{"POST", "/v1/environments/*/build", handle_environment_build, false},
	{"GET", "/v1/builds", handle_build_list, false},
	{"GET", "/v1/builds/*", handle_build_get, false},
	{"GET", "/v1/builds/*/log", handle_build_log, false},
	{"GET", "/v1/images", handle_image_list, false},
	{"GET", "/v1/images/*", handle_image_get, false},
	{"DELETE", "/v1/images/*", handle_image_delete, false},
	{0},
};
