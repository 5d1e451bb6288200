/* What the values of services must be, alone and together, what a change of them makes out of date,
 * and the request that asks one over HTTP whether it is ready. */
#include "configs/environment.h"

#include "base/digest.h"
#include "configs/environment_checks.h"
#include "configs/yaml.h"

#include <ctype.h>
#include <stdio.h>

#define SCHEME "http://"

/* 1 to 65535 in `length` digits; 0: it is no such number. */
static uint16_t port_parse(const char *text, size_t length)
{
	unsigned long port = 0;

	for (size_t i = 0; i < length; i++) {
		if (!isdigit((unsigned char)text[i]) || i >= 5) {
			return 0;
		}
		port = port * 10 + (unsigned long)(text[i] - '0');
	}
	return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* The host is one of loopback's names. False: it is not, or the port is none. */
static bool url_split(const char *url, size_t *ret_host_length, uint16_t *ret_port)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};
	const char *host = url + strlen(SCHEME);
	size_t length = strcspn(host, "/?#");

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		size_t name = strlen(hosts[i]);

		if (strncmp(host, hosts[i], name) != 0) {
			continue;
		}
		*ret_host_length = length;
		*ret_port = length == name      ? 80
			    : host[name] == ':' ? port_parse(host + name + 1, length - name - 1)
						: 0;
		return *ret_port != 0;
	}
	return false;
}

int check_port(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	if (port_parse(*text, strlen(*text)) == 0) {
		return setting_refuse(
			in, row, node, err, "expects a port, 1 to 65535, not \"%.16s\"", *text);
	}
	return 0;
}

int check_service_url(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	size_t length;
	uint16_t port;

	for (const char *at = *text; *at != '\0'; at++) {
		if (isspace((unsigned char)*at) || !isprint((unsigned char)*at)) {
			return setting_refuse(in, row, node, err,
				"holds a space or a character that an address cannot have");
		}
	}
	if (!str_starts(*text, SCHEME) || !url_split(*text, &length, &port)) {
		setting_refuse(in, row, node, err,
			"expects http://127.0.0.1:PORT/PATH, or localhost or [::1] as host");
		return error_hint(err,
			"the service is asked inside its sandbox; for anything else use `command`");
	}
	return 0;
}

char *service_request(const struct environment_service *service, uint16_t *ret_port)
{
	const char *url = service->ready_http, *path;
	size_t length = 0;

	*ret_port = 0;
	if (service->ready_tcp != NULL) {
		*ret_port = port_parse(service->ready_tcp, strlen(service->ready_tcp));
	}
	if (url == NULL || !url_split(url, &length, ret_port)) {
		return NULL;
	}
	path = url + strlen(SCHEME) + length;
	return xasprintf("GET %s%.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: hob\r\nAccept: */*\r\n"
			 "Connection: close\r\n\r\n",
		path[0] == '/' ? "" : "/", (int)strcspn(path, "#"), path, (int)length,
		url + strlen(SCHEME));
}

static int check_service(const struct environment *environment, size_t index, const char *name,
	const struct yaml_node *root, struct error *err)
{
	const struct environment_service *service = &environment->services[index];
	int ways = (service->ready_tcp != NULL) + (service->ready_http != NULL) +
		   (service->ready_command != NULL) + (service->ready_file != NULL);

	if (ways > 1) {
		return yaml_error(err, name, entry_node(root, "services", index, "ready"), false,
			"\"services.ready\" of \"%s\" has %d ways to tell; one of tcp, http, "
			"command and file is allowed",
			service->name, ways);
	}
	for (size_t i = 0; i < index; i++) {
		if (streq(environment->services[i].name, service->name)) {
			return yaml_error(err, name, entry_node(root, "services", index, "name"),
				false, "two services with the name \"%s\"", service->name);
		}
	}
	if (service->restart_max_delay_ms < service->restart_delay_ms) {
		return yaml_error(err, name, entry_node(root, "services", index, "restart"), false,
			"\"services.restart.max_delay\" of \"%s\" is less than its delay",
			service->name);
	}
	return 0;
}

int environment_check_services(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err)
{
	int code = 0;

	for (size_t i = 0; code == 0 && i < environment->service_count; i++) {
		code = check_service(environment, i, name, root, err);
	}
	return code;
}

/* What runs and how it is asked. Limits of time and of restarts are left out, as for steps. */
void environment_warm_fingerprint_set(struct environment *environment)
{
	struct digest *digest;
	char count[24];

	if (environment->service_count == 0 && environment->prime.run == NULL) {
		return;
	}
	digest = digest_new();
	snprintf(count, sizeof(count), "%zu", environment->service_count);
	digest_add_str(digest, "hob services 1");
	digest_add_str(digest, count);
	for (size_t i = 0; i < environment->service_count; i++) {
		const struct environment_service *service = &environment->services[i];
		const char *const texts[] = {service->name, service->run, service->user,
			service->cwd, service->ready_tcp, service->ready_http,
			service->ready_command, service->ready_file};

		for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
			digest_add_str_or_null(digest, texts[k]);
		}
		snprintf(count, sizeof(count), "%zu", strv_count(service->env));
		digest_add_str(digest, count);
		for (char **entry = service->env; entry != NULL && *entry != NULL; entry++) {
			digest_add_str_or_null(digest, *entry);
		}
	}
	digest_add_str_or_null(digest, environment->prime.run);
	digest_end(digest, environment->warm_fingerprint);
	digest_free(digest);
}

void environment_services_free(struct environment *environment)
{
	for (size_t i = 0; i < environment->service_count; i++) {
		struct environment_service *service = &environment->services[i];
		char *const texts[] = {service->name, service->run, service->user, service->cwd,
			service->ready_tcp, service->ready_http, service->ready_command,
			service->ready_file, service->on_refresh, service->signal};

		for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
			free(texts[k]);
		}
		strv_free(service->env);
	}
	free(environment->services);
	free(environment->prime.run);
}
