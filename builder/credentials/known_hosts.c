/* known_hosts: "[@marker] host,host keytype base64 [comment]", a line each. */
#include "builder/credentials/credential.h"

#include "base/base64.h"
#include "base/buffer.h"

#include <stdio.h>
#include <strings.h>

#define KEY_BYTES_MAX 16384

static bool is_key(const char *text, const void *key, size_t length)
{
	CLEANUP(buffer_done) struct buffer bytes;

	buffer_init(&bytes, KEY_BYTES_MAX);
	return base64_decode(text, strlen(text), &bytes) && bytes.length == length &&
	       memcmp(bytes.data, key, length) == 0;
}

static bool names_host(char *names, const char *host, int port)
{
	CLEANUP(free_p)
	char *wanted = port == 22 ? xstrdup(host) : xasprintf("[%s]:%d", host, port);
	char *state = NULL;

	for (char *name = strtok_r(names, ",", &state); name != NULL;
		name = strtok_r(NULL, ",", &state)) {
		if (strcasecmp(name, wanted) == 0) {
			return true;
		}
	}
	return false;
}

bool known_hosts_has(
	const char *known_hosts, const char *host, int port, const void *key, size_t length)
{
	CLEANUP(free_p) char *copy = xstrdup(known_hosts);
	char *state = NULL;
	bool known = false;

	for (char *line = strtok_r(copy, "\n", &state); line != NULL;
		line = strtok_r(NULL, "\n", &state)) {
		char *words = NULL, *first = strtok_r(line, " \t\r", &words);
		const char *marker = first != NULL && first[0] == '@' ? first : NULL;
		char *names = marker != NULL ? strtok_r(NULL, " \t\r", &words) : first;
		const char *type = strtok_r(NULL, " \t\r", &words);
		const char *text = strtok_r(NULL, " \t\r", &words);

		if (text == NULL || type == NULL || names == NULL || names[0] == '#' ||
			!names_host(names, host, port) || !is_key(text, key, length)) {
			continue;
		}
		if (marker == NULL) {
			known = true;
		} else if (streq(marker, "@revoked")) {
			return false;
		}
	}
	return known;
}
