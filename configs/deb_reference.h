/*
 * A Debian as people write it: SUITE@DATE, the date being that of a snapshot of the archive, as
 * snapshot.debian.org names them (20240601T000000Z). Only spelling; nothing is asked of anybody.
 */
#ifndef HOB_CONFIGS_DEB_REFERENCE_H
#define HOB_CONFIGS_DEB_REFERENCE_H

#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

/* http, because the release is signed, and a minimal Debian has no certificates for https yet. */
#define DEB_MIRROR_DEFAULT "http://snapshot.debian.org/archive/debian/{date}"
#define DEB_MIRROR_DATE "{date}"
#define DEB_COMPONENTS_DEFAULT "main"
#define DEB_DATE_SIZE 17

struct deb_reference {
	char *suite; /* "bookworm" */
	char date[DEB_DATE_SIZE]; /* "": none */
};

/* False with *ret_problem a text for people ("has …"); then there is nothing to free. */
bool deb_reference_parse(
	const char *text, struct deb_reference *ret_reference, const char **ret_problem);
void deb_reference_done(struct deb_reference *reference);
/* An instant that exists, written like 20240601T000000Z. */
bool deb_date_parse(const char *text, int64_t *ret_real_ms);
/* The date that pins a mirror as of now, into date[DEB_DATE_SIZE]: with {date} in it the last
 * midnight whose snapshot is surely whole, else this very second. */
void deb_date_now(const char *mirror, int64_t now_ms, char *date);
/* The archive's URL, {date} filled in. The caller owns it. */
char *deb_mirror_url(const char *mirror, const char *date);
/* NULL, or why it is no mirror that apt may be given: words for a message. */
const char *deb_mirror_problem(const char *mirror);
/* The same of "main contrib". */
const char *deb_components_problem(const char *components);

#endif
