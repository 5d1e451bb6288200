/*
 * At each place the forms of the secrets are tried that begin with the character there; a table
 * says for which characters there are any, since most text has none. Base64 is found over line
 * ends too, as base64(1) wraps its lines. A secret of several lines is masked line by line as well.
 */
#include "builder/credentials/mask.h"

#include "base/buffer.h"
#include "builder/credentials/step_secrets.h"

#include <ctype.h>
#include <stdio.h>

#define MASKED "***"
/* "\r\n"; more of them do not wrap a line, and are not waited over. */
#define LINE_ENDS_MAX 2

struct form {
	char *text;
	size_t length;
	bool wrapped; /* line ends in it do not count */
};

struct mask {
	mask_out_fn *out;
	void *context;
	struct form *forms;
	size_t count, room;
	bool starts[256]; /* a form begins with this */
	struct buffer waiting;
};

/* A part may yet become longer than what is there as a whole, and so counts for more. */
enum match { MATCH_NONE, MATCH_WHOLE, MATCH_PART };

/* Takes the text over. One that is too short would be found by chance. */
static void add_form(struct mask *mask, char *text, size_t length, bool wrapped)
{
	if (length < STEP_SECRET_BYTES_MIN) {
		explicit_bzero(text, length);
		free(text);
		return;
	}
	*array_add(&mask->forms, &mask->count, &mask->room) = (struct form){text, length, wrapped};
	mask->starts[(unsigned char)text[0]] = true;
}

/* "-" and "_" for what urls use otherwise. */
static void add_base64(struct mask *mask, const struct secret *secret, size_t shift)
{
	size_t length = 0;
	char *text = step_secret_base64(secret, shift, &length);
	char *for_urls = xstrndup(text, length);

	for (char *c = for_urls; *c != '\0'; c++) {
		*c = (char)(*c == '+' ? '-' : *c == '/' ? '_' : *c);
	}
	add_form(mask, text, length, true);
	add_form(mask, for_urls, length, true);
}

static void add_percent(struct mask *mask, const struct secret *secret, const char *format)
{
	CLEANUP(buffer_done) struct buffer text = {0};
	size_t length;

	for (size_t i = 0; i < secret->length; i++) {
		unsigned char c = (unsigned char)secret->text[i];

		if (isalnum(c) || strchr("-._~", c) != NULL) {
			buffer_add(&text, &c, 1);
		} else {
			char code[4];

			snprintf(code, sizeof(code), format[0] == 'X' ? "%%%02X" : "%%%02x", c);
			buffer_add_str(&text, code);
		}
	}
	length = text.length;
	add_form(mask, buffer_steal(&text), length, false);
}

static void add_lines(struct mask *mask, const struct secret *secret)
{
	for (const char *line = secret->text; *line != '\0'; line += strspn(line, "\r\n")) {
		size_t length = strcspn(line, "\r\n");

		if (length < secret->length) {
			add_form(mask, xstrndup(line, length), length, false);
		}
		line += length;
	}
}

static void add_secret(struct mask *mask, const struct secret *secret)
{
	add_form(mask, xstrndup(secret->text, secret->length), secret->length, false);
	for (size_t shift = 0; shift < 3; shift++) {
		add_base64(mask, secret, shift);
	}
	add_percent(mask, secret, "X");
	add_percent(mask, secret, "x");
	add_lines(mask, secret);
}

struct mask *mask_new(const struct step_secrets *secrets, mask_out_fn *out, void *context)
{
	struct mask *mask = xcalloc(1, sizeof(*mask));

	mask->out = out;
	mask->context = context;
	buffer_init(&mask->waiting, 0);
	for (size_t i = 0; secrets != NULL && i < secrets->count; i++) {
		add_secret(mask, &secrets->secrets[i]);
	}
	return mask;
}

void mask_free(struct mask *mask)
{
	if (mask == NULL) {
		return;
	}
	for (size_t i = 0; i < mask->count; i++) {
		explicit_bzero(mask->forms[i].text, mask->forms[i].length);
		free(mask->forms[i].text);
	}
	free(mask->forms);
	if (mask->waiting.data != NULL) {
		explicit_bzero(mask->waiting.data, mask->waiting.room);
	}
	buffer_done(&mask->waiting);
	free(mask);
}

static enum match match_form(
	const struct form *form, const char *data, size_t length, size_t *ret_used)
{
	size_t at = 0, used = 0, line_ends = 0;

	while (at < form->length) {
		if (used == length) {
			return MATCH_PART;
		}
		if (data[used] == form->text[at]) {
			at++;
			line_ends = 0;
		} else if (!form->wrapped || (data[used] != '\n' && data[used] != '\r') ||
			   ++line_ends > LINE_ENDS_MAX) {
			return MATCH_NONE;
		}
		used++;
	}
	*ret_used = used;
	return MATCH_WHOLE;
}

/* Gives the length of the longest that is there as a whole, 0 for none. */
static enum match match_any(
	const struct mask *mask, const char *data, size_t length, size_t *ret_used)
{
	enum match best = MATCH_NONE;
	size_t longest = 0;

	if (!mask->starts[(unsigned char)data[0]]) {
		return MATCH_NONE;
	}
	for (size_t i = 0; i < mask->count; i++) {
		size_t used = 0;
		enum match match = match_form(&mask->forms[i], data, length, &used);

		if (match == MATCH_WHOLE && used > longest) {
			longest = used;
		}
		best = match > best ? match : best;
	}
	*ret_used = longest;
	return best;
}

/* Shows what can be shown of the text; returns how many bytes of it are done with. */
static size_t show(const struct mask *mask, const char *data, size_t length, bool last)
{
	size_t from = 0, at = 0;

	while (at < length) {
		size_t used = 0;
		enum match match = match_any(mask, data + at, length - at, &used);

		if (match == MATCH_PART && !last) {
			break;
		}
		if (used == 0) {
			at++;
			continue;
		}
		if (at > from) {
			mask->out(mask->context, data + from, at - from);
		}
		mask->out(mask->context, MASKED, strlen(MASKED));
		at += used;
		from = at;
	}
	if (at > from) {
		mask->out(mask->context, data + from, at - from);
	}
	return at;
}

void mask_add(struct mask *mask, const void *data, size_t length)
{
	size_t done;

	if (mask->count == 0) {
		mask->out(mask->context, data, length);
		return;
	}
	if (mask->waiting.length == 0) {
		done = show(mask, data, length, false);
		buffer_add(&mask->waiting, (const char *)data + done, length - done);
		return;
	}
	buffer_add(&mask->waiting, data, length);
	buffer_consume(&mask->waiting, show(mask, mask->waiting.data, mask->waiting.length, false));
}

void mask_end(struct mask *mask)
{
	if (mask->waiting.length > 0) {
		show(mask, mask->waiting.data, mask->waiting.length, true);
		buffer_clear(&mask->waiting);
	}
}
