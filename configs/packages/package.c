/* The names and versions of three package managers, by the grammar of each: Debian policy 5.6.12,
 * semver 2.0.0, and PEP 440 and 508. */
#include "configs/packages/package.h"

#include <assert.h>
#include <ctype.h>

#define DIGITS "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define NAME_BYTES_MAX 214
#define VERSION_BYTES_MAX 200

static const char *const names[PACKAGE_MANAGERS] = {
	[PACKAGE_APT] = "apt", [PACKAGE_NPM] = "npm", [PACKAGE_PIP] = "pip"};
static const char *const joints[PACKAGE_MANAGERS] = {
	[PACKAGE_APT] = "=", [PACKAGE_NPM] = "@", [PACKAGE_PIP] = "=="};

const char *package_manager_name(enum package_manager manager)
{
	assert(manager < PACKAGE_MANAGERS);
	return names[manager];
}

bool package_manager_from_name(const char *name, enum package_manager *ret_manager)
{
	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		if (streq(names[i], name)) {
			*ret_manager = (enum package_manager)i;
			return true;
		}
	}
	return false;
}

static bool is_of(const char *text, size_t length, const char *letters)
{
	return length > 0 && strspn(text, letters) >= length;
}

/* ---- versions ---- */

bool deb_version_is_valid(const char *text)
{
	const char *colon = strchr(text, ':');
	const char *upstream = colon != NULL ? colon + 1 : text;
	const char *dash = strrchr(upstream, '-');
	size_t length = dash != NULL ? (size_t)(dash - upstream) : strlen(upstream);

	if (strlen(text) > VERSION_BYTES_MAX ||
		(colon != NULL && !is_of(text, (size_t)(colon - text), DIGITS))) {
		return false;
	}
	if (!isdigit((unsigned char)upstream[0]) ||
		!is_of(upstream, length, DIGITS LOWER UPPER ".+~-")) {
		return false;
	}
	return dash == NULL || is_of(dash + 1, strlen(dash + 1), DIGITS LOWER UPPER ".+~");
}

/* A number without zeros before it; returns its length, 0 when there is none. */
static size_t number_length(const char *text)
{
	size_t length = strspn(text, DIGITS);

	return length > 1 && text[0] == '0' ? 0 : length;
}

/* Identifiers with dots between, up to one of `end`. `strict`: numbers have no zeros before them.
 */
static bool identifiers(const char **text, const char *end, bool strict)
{
	for (;;) {
		size_t length = strspn(*text, DIGITS LOWER UPPER "-");

		if (length == 0 || (strict && strspn(*text, DIGITS) == length &&
					   number_length(*text) != length)) {
			return false;
		}
		*text += length;
		if (**text != '.') {
			return strchr(end, **text) != NULL;
		}
		(*text)++;
	}
}

bool npm_version_is_valid(const char *text)
{
	if (strlen(text) > VERSION_BYTES_MAX) {
		return false;
	}
	for (int part = 0; part < 3; part++) {
		size_t length = number_length(text);

		if (length == 0 || (part < 2 && text[length] != '.')) {
			return false;
		}
		text += length + (part < 2 ? 1 : 0);
	}
	if (*text == '-' && (text++, !identifiers(&text, "+", true))) {
		return false;
	}
	if (*text == '+' && (text++, !identifiers(&text, "", false))) {
		return false;
	}
	return *text == '\0';
}

/* Passes over `word` and the number after it. False: the word is there without a number. */
static bool pass_marked(const char **text, const char *word)
{
	size_t length = strlen(word), digits;

	if (strncmp(*text, word, length) != 0) {
		return true;
	}
	digits = number_length(*text + length);
	*text += length + digits;
	return digits > 0;
}

static bool pass_release(const char **text)
{
	for (;;) {
		size_t length = number_length(*text);

		if (length == 0) {
			return false;
		}
		*text += length;
		if (**text != '.' || !isdigit((unsigned char)(*text)[1])) {
			return true;
		}
		(*text)++;
	}
}

bool pip_version_is_valid(const char *text)
{
	size_t epoch = number_length(text);

	if (strlen(text) > VERSION_BYTES_MAX) {
		return false;
	}
	if (epoch > 0 && text[epoch] == '!') {
		text += epoch + 1;
	}
	if (!pass_release(&text)) {
		return false;
	}
	if (strchr("ab", *text) != NULL && *text != '\0') {
		char word[2] = {*text, '\0'};

		if (!pass_marked(&text, word)) {
			return false;
		}
	} else if (!pass_marked(&text, "rc")) {
		return false;
	}
	if (!pass_marked(&text, ".post") || !pass_marked(&text, ".dev")) {
		return false;
	}
	if (*text == '+') {
		const char *local = text + 1;

		return identifiers(&local, "", false) && *local == '\0' &&
		       strchr(text, '-') == NULL && strpbrk(text, UPPER) == NULL;
	}
	return *text == '\0';
}

/* ---- names ---- */

static bool apt_name_is_valid(const char *name)
{
	size_t length = strcspn(name, ":");

	if (length < 2 || !isalnum((unsigned char)name[0]) ||
		!is_of(name, length, LOWER DIGITS "+-.") || name[length - 1] == '-') {
		return false; /* a "-" at its end would take the package away */
	}
	return name[length] == '\0' ||
	       is_of(name + length + 1, strlen(name + length + 1), LOWER DIGITS);
}

static bool npm_part_is_valid(const char *name, size_t length)
{
	return is_of(name, length, LOWER DIGITS "-._~") && name[0] != '.' && name[0] != '-' &&
	       name[0] != '_';
}

static bool npm_name_is_valid(const char *name)
{
	const char *slash = strchr(name, '/');

	if (name[0] != '@') {
		return slash == NULL && npm_part_is_valid(name, strlen(name));
	}
	return slash != NULL && npm_part_is_valid(name + 1, (size_t)(slash - name) - 1) &&
	       npm_part_is_valid(slash + 1, strlen(slash + 1));
}

static bool pip_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	return is_of(name, length, LOWER UPPER DIGITS "-._") && isalnum((unsigned char)name[0]) &&
	       isalnum((unsigned char)name[length - 1]);
}

static bool name_is_right(enum package_manager manager, const char *name)
{
	if (strlen(name) > NAME_BYTES_MAX) {
		return false;
	}
	return manager == PACKAGE_APT   ? apt_name_is_valid(name)
	       : manager == PACKAGE_NPM ? npm_name_is_valid(name)
					: pip_name_is_valid(name);
}

/* Where the name ends, extras included; `extras`: where they begin, or the same. */
static size_t name_length(enum package_manager manager, const char *text, size_t *extras)
{
	size_t length;

	switch (manager) {
	case PACKAGE_NPM: /* the first "@" may be the scope's */
		length = (text[0] == '@' ? 1U : 0U) + strcspn(text + (text[0] == '@'), "@");
		*extras = length;
		return length;
	case PACKAGE_PIP:
		*extras = strcspn(text, "[=<>!~; @");
		if (text[*extras] != '[') {
			return *extras;
		}
		length = *extras + 1 + strspn(text + *extras + 1, LOWER UPPER DIGITS "-._,");
		return text[length] == ']' ? length + 1 : *extras;
	case PACKAGE_APT:
	case PACKAGE_MANAGERS:
		break;
	}
	length = strcspn(text, "=/<> ");
	*extras = length;
	return length;
}

static bool version_is_exact(enum package_manager manager, const char *rest, const char **version)
{
	size_t joint = strlen(joints[manager]);

	if (strncmp(rest, joints[manager], joint) != 0) {
		return false;
	}
	*version = rest + joint;
	return manager == PACKAGE_APT   ? deb_version_is_valid(*version)
	       : manager == PACKAGE_NPM ? npm_version_is_valid(*version)
					: pip_version_is_valid(*version);
}

enum package_state package_parse(
	enum package_manager manager, const char *text, char **ret_name, char **ret_version)
{
	size_t extras = 0, length = name_length(manager, text, &extras);
	CLEANUP(free_p) char *name = xstrndup(text, extras);
	const char *version = NULL;
	bool exact = version_is_exact(manager, text + length, &version);

	for (const char *c = text; *c != '\0'; c++) {
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) {
			return PACKAGE_NONSENSE;
		}
	}
	if (!name_is_right(manager, name)) {
		return PACKAGE_NONSENSE;
	}
	if (ret_name != NULL) {
		*ret_name = steal_ptr(name);
	}
	if (ret_version != NULL) {
		*ret_version = exact ? xstrdup(version) : NULL;
	}
	return exact ? PACKAGE_EXACT : PACKAGE_LOOSE;
}

char *package_text(enum package_manager manager, const char *text, const char *version)
{
	size_t extras, length = name_length(manager, text, &extras);

	return xasprintf("%.*s%s%s", (int)length, text, joints[manager], version);
}

bool package_name_equal(enum package_manager manager, const char *a, const char *b)
{
	if (manager != PACKAGE_PIP) {
		return streq(a, b);
	}
	while (*a != '\0' && *b != '\0') {
		size_t a_signs = strspn(a, "-_."), b_signs = strspn(b, "-_.");

		if ((a_signs > 0) != (b_signs > 0)) {
			return false;
		}
		if (a_signs == 0 && tolower((unsigned char)*a) != tolower((unsigned char)*b)) {
			return false;
		}
		a += a_signs > 0 ? a_signs : 1;
		b += b_signs > 0 ? b_signs : 1;
	}
	return *a == *b;
}
