/* What is accepted here goes into a line of apt's sources.list as it is, so every letter is one
 * that means nothing there. */
#include "configs/deb_reference.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SUITE_MAX 64
/* A snapshot is named after its begin, and is whole some hours later. */
#define SNAPSHOT_MS (INT64_C(6) * 60 * 60 * 1000)
#define DAY_MS (INT64_C(24) * 60 * 60 * 1000)

static bool is_word(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			    (i > 0 && strchr("-._", c) != NULL))) {
			return false;
		}
	}
	return length > 0 && length <= SUITE_MAX;
}

bool deb_date_parse(const char *text, int64_t *ret_real_ms)
{
	static const char form[] = "dddddddd"
				   "T"
				   "dddddd"
				   "Z";
	struct tm tm = {0}, back;
	time_t seconds;

	for (size_t i = 0; i < sizeof(form); i++) {
		if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i]) {
			return false;
		}
	}
	sscanf(text, "%4d%2d%2dT%2d%2d%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		&tm.tm_min, &tm.tm_sec);
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	back = tm;
	seconds = timegm(&back); /* moves what does not exist to what does */
	if (back.tm_mon != tm.tm_mon || back.tm_mday != tm.tm_mday || back.tm_hour != tm.tm_hour ||
		back.tm_min != tm.tm_min || back.tm_sec != tm.tm_sec) {
		return false;
	}
	*ret_real_ms = (int64_t)seconds * 1000;
	return true;
}

bool deb_reference_parse(
	const char *text, struct deb_reference *ret_reference, const char **ret_problem)
{
	size_t suite = strcspn(text, "@");
	const char *date = text[suite] == '@' ? text + suite + 1 : "";
	int64_t ignored;

	if (!is_word(text, suite)) {
		*ret_problem = "has no name of a suite after \"deb:\"";
		return false;
	}
	if (text[suite] == '@' && !deb_date_parse(date, &ignored)) {
		*ret_problem = "has a date that is none";
		return false;
	}
	*ret_reference = (struct deb_reference){.suite = xstrndup(text, suite)};
	memcpy(ret_reference->date, date, strlen(date) + 1);
	return true;
}

void deb_reference_done(struct deb_reference *reference)
{
	free(reference->suite);
	*reference = (struct deb_reference){0};
}

void deb_date_now(const char *mirror, int64_t now_ms, char *date)
{
	bool dated = strstr(mirror, DEB_MIRROR_DATE) != NULL;
	int64_t at_ms = dated ? (now_ms - SNAPSHOT_MS) / DAY_MS * DAY_MS : now_ms;
	time_t seconds = (time_t)(at_ms / 1000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, DEB_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

char *deb_mirror_url(const char *mirror, const char *date)
{
	const char *at = strstr(mirror, DEB_MIRROR_DATE);

	if (at == NULL) {
		return xstrdup(mirror);
	}
	return xasprintf(
		"%.*s%s%s", (int)(at - mirror), mirror, date, at + strlen(DEB_MIRROR_DATE));
}

const char *deb_mirror_problem(const char *mirror)
{
	const char *host = strstr(mirror, "://");
	CLEANUP(free_p) char *plain = deb_mirror_url(mirror, "");

	if (!str_starts(mirror, "http://") && !str_starts(mirror, "https://")) {
		return "expects http://… or https://…";
	}
	if (strcspn(host + 3, "/?#:") == 0) {
		return "names no host";
	}
	for (const char *at = plain; *at != '\0'; at++) {
		if (*at == '@') {
			return "holds credentials (text before \"@\")";
		}
		if (!isalnum((unsigned char)*at) && strchr("-._~:/%+=,", *at) == NULL) {
			return strchr("{}", *at) != NULL
				       ? "may hold {date} once, and no other brace"
				       : "holds what no URL of a mirror does";
		}
	}
	return NULL;
}

const char *deb_components_problem(const char *components)
{
	for (;;) {
		size_t length = strcspn(components, " ");

		if (!is_word(components, length)) {
			return "expects words such as \"main contrib\", with one space between";
		}
		if (components[length] == '\0') {
			return NULL;
		}
		components += length + 1;
	}
}
