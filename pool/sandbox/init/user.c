/*
 * Who a command runs as, by the sandbox's own /etc/passwd and /etc/group. Those files are written
 * by whoever is inside: they are opened without blocking, must be regular, and are read up to a
 * cap.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCOUNTS_MAX (1024 * 1024) /* bytes of /etc/passwd or /etc/group */
#define GROUPS_MAX 64 /* supplementary groups that are taken */
#define FIELDS_MAX 7

/* The whole file as text on the heap, or NULL with errno. */
static char *accounts_read(const char *path)
{
	int fd = path_open(-1, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;
	size_t length = 0;
	ssize_t got;
	char *text;

	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > ACCOUNTS_MAX) {
		close(fd);
		errno = EINVAL;
		return NULL;
	}
	text = malloc((size_t)st.st_size + 1);
	while (text != NULL && length < (size_t)st.st_size &&
		(got = read(fd, text + length, (size_t)st.st_size - length)) > 0) {
		length += (size_t)got;
	}
	close(fd);
	if (text != NULL) {
		text[length] = '\0';
	}
	return text;
}

/* Cuts the next line of *text into fields at ':'. The count; 0 at the end. */
static size_t next_line(char **text, char *fields[FIELDS_MAX])
{
	char *line = *text;
	size_t count = 0;
	char *end;

	if (*line == '\0') {
		return 0;
	}
	end = line + strcspn(line, "\n");
	*text = *end == '\0' ? end : end + 1;
	*end = '\0';
	while (count < FIELDS_MAX && line != NULL) {
		fields[count++] = line;
		line = strchr(line, ':');
		if (line != NULL) {
			*line++ = '\0';
		}
	}
	return count;
}

static bool id_parse(const char *text, uint32_t *ret_id)
{
	uint64_t id = 0;

	if (*text == '\0') {
		return false;
	}
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9' || id > UINT32_MAX) {
			return false;
		}
		id = 10 * id + (uint64_t)(*text - '0');
	}
	/* The last id means "no change" to the kernel. */
	if (id >= UINT32_MAX) {
		return false;
	}
	*ret_id = (uint32_t)id;
	return true;
}

static int passwd_find(struct user *user, char *why, size_t why_size)
{
	char *text = accounts_read("/etc/passwd");
	char *fields[FIELDS_MAX] = {NULL};
	char *at = text;
	bool found = false;
	size_t count;

	if (text == NULL) {
		int sys = errno;

		text_format(why, why_size, "user %s: /etc/passwd: %s", user->name, strerror(sys));
		return sys;
	}
	while (!found && (count = next_line(&at, fields)) > 0) {
		uint32_t uid, gid;

		if (count >= 6 && strcmp(fields[0], user->name) == 0 && id_parse(fields[2], &uid) &&
			id_parse(fields[3], &gid)) {
			user->uid = uid;
			user->gid = gid;
			text_format(user->home, sizeof(user->home), "%s", fields[5]);
			found = true;
		}
	}
	free(text);
	if (!found) {
		text_format(why, why_size, "user %s: not in /etc/passwd", user->name);
		return ENOENT;
	}
	return 0;
}

static bool list_has(char *list, const char *name)
{
	char *save = NULL;

	for (char *item = strtok_r(list, ",", &save); item != NULL;
		item = strtok_r(NULL, ",", &save)) {
		if (strcmp(item, name) == 0) {
			return true;
		}
	}
	return false;
}

static void group_add(struct user *user, gid_t gid)
{
	if (user->groups == NULL) {
		user->groups = calloc(GROUPS_MAX, sizeof(*user->groups));
	}
	if (user->groups != NULL && user->group_count < GROUPS_MAX) {
		user->groups[user->group_count++] = gid;
	}
}

/* Sets the gid from `wanted` (NULL: keep it), and the groups that list the user. */
static int groups_find(struct user *user, const char *wanted, char *why, size_t why_size)
{
	char *text = accounts_read("/etc/group");
	char *fields[FIELDS_MAX] = {NULL};
	bool found = wanted == NULL;
	char *at = text;
	size_t count;

	while (text != NULL && (count = next_line(&at, fields)) > 0) {
		uint32_t gid;

		if (count < 3 || !id_parse(fields[2], &gid)) {
			continue;
		}
		if (!found && strcmp(fields[0], wanted) == 0) {
			user->gid = gid;
			found = true;
		}
		if (count >= 4 && user->name[0] != '\0' && list_has(fields[3], user->name)) {
			group_add(user, gid);
		}
	}
	free(text);
	if (!found) {
		text_format(why, why_size, "group %s: not in /etc/group", wanted);
		return ENOENT;
	}
	return 0;
}

/* Without a look into any file: what most commands have. */
static bool is_plain_root(const char *text)
{
	return text[0] == '\0' || strcmp(text, "root") == 0 || strcmp(text, "0") == 0 ||
	       strcmp(text, "0:0") == 0;
}

int user_find(const char *text, struct user *user, char *why, size_t why_size)
{
	const char *colon = strchr(text, ':');
	const char *group = colon != NULL ? colon + 1 : NULL;
	size_t length = colon != NULL ? (size_t)(colon - text) : strlen(text);
	bool numeric;
	int sys = 0;

	*user = (struct user){.is_root = is_plain_root(text)};
	if (user->is_root) {
		text_format(user->name, sizeof(user->name), "root");
		text_format(user->home, sizeof(user->home), "/root");
		return 0;
	}
	if (length == 0 || length >= sizeof(user->name)) {
		text_format(why, why_size, "user \"%s\": not a name or id", text);
		return EINVAL;
	}
	memcpy(user->name, text, length);
	numeric = id_parse(user->name, &user->uid);
	if (numeric) {
		user->gid = user->uid;
		text_format(user->home, sizeof(user->home), user->uid == 0 ? "/root" : "/");
	} else {
		sys = passwd_find(user, why, why_size);
	}
	if (sys == 0 && group != NULL && id_parse(group, &user->gid)) {
		group = NULL;
	}
	if (sys == 0 && (group != NULL || !numeric)) {
		sys = groups_find(user, group, why, why_size);
	}
	return sys;
}

void user_done(struct user *user)
{
	free(user->groups);
	user->groups = NULL;
}
