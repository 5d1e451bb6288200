/* Reading what images say. Media types only tell an index from a manifest and name what hob cannot
 * take; how a layer is compressed shows in its bytes. */
#include "builder/bases/oci_image.h"

#include "base/buffer.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <strings.h>
#include <sys/utsname.h>

#define OCI_IMAGE_VERSION 1
#define PLATFORMS_TEXT 512
#define NAMES_BYTES_MAX 300 /* of a message; what is over is left out */

const char *oci_architecture(void)
{
	static const struct {
		const char *machine, *name;
	} names[] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"riscv64", "riscv64"},
		{"ppc64le", "ppc64le"}, {"s390x", "s390x"}, {"loongarch64", "loong64"}};
	struct utsname about;

	if (uname(&about) == 0) {
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			if (streq(about.machine, names[i].machine)) {
				return names[i].name;
			}
		}
	}
	return "unknown";
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text != NULL ? text : "";
}

static int parse_document(
	const char *text, size_t length, const char *what, json_t **ret_json, struct error *err)
{
	json_error_t problem;
	json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);

	if (json == NULL || !json_is_object(json)) {
		json_decref(json);
		return error_set(err, ERROR_CORRUPT, "the %s is no JSON object: %s", what,
			json == NULL ? problem.text : "something else");
	}
	*ret_json = json;
	return 0;
}

static int parse_descriptor(
	const json_t *json, const char *what, struct oci_blob *ret_blob, struct error *err)
{
	const char *digest = text_of(json, "digest");
	const json_t *size = json_object_get(json, "size");

	if (!str_starts(digest, "sha256:") || !digest_is_valid(digest + 7)) {
		return error_set(err,
			str_starts(digest, "sha512:") ? ERROR_UNSUPPORTED : ERROR_CORRUPT,
			"%s has no sha256 digest but \"%.80s\"", what, digest);
	}
	if (!json_is_integer(size) || json_integer_value(size) < 0) {
		return error_set(err, ERROR_CORRUPT, "%s has no size", what);
	}
	memcpy(ret_blob->sha256, digest + 7, SHA256_TEXT_SIZE);
	ret_blob->bytes = (uint64_t)json_integer_value(size);
	return 0;
}

/* ---- indexes ---- */

/* arm64 has one variant that is the same as none. */
static bool platform_fits(const json_t *platform, const char *architecture)
{
	const char *variant = text_of(platform, "variant");

	return streq(text_of(platform, "os"), "linux") &&
	       streq(text_of(platform, "architecture"), architecture) &&
	       (variant[0] == '\0' || (streq(architecture, "arm64") && streq(variant, "v8")) ||
		       (streq(architecture, "amd64") && streq(variant, "v1")));
}

static void list_platforms(const json_t *manifests, char *text, size_t size)
{
	size_t used = 0, index;
	const json_t *entry;

	text[0] = '\0';
	json_array_foreach (manifests, index, entry) {
		const json_t *platform = json_object_get(entry, "platform");

		if (used + 96 < size && platform != NULL) {
			used += (size_t)snprintf(text + used, size - used, "%s%.30s/%.30s",
				used > 0 ? ", " : "", text_of(platform, "os"),
				text_of(platform, "architecture"));
		}
	}
}

static int parse_index(const json_t *manifests, const char *architecture, struct oci_blob *ret_next,
	struct error *err)
{
	char platforms[PLATFORMS_TEXT];
	const json_t *entry, *only = json_array_get(manifests, 0);
	size_t index;

	json_array_foreach (manifests, index, entry) {
		const json_t *platform = json_object_get(entry, "platform");

		if (platform != NULL && platform_fits(platform, architecture)) {
			return parse_descriptor(entry, "an entry of the index", ret_next, err);
		}
	}
	/* An index.json of a layout often says nothing of its single image. */
	if (json_array_size(manifests) == 1 && json_object_get(only, "platform") == NULL) {
		return parse_descriptor(only, "the entry of the index", ret_next, err);
	}
	list_platforms(manifests, platforms, sizeof(platforms));
	error_set(err, ERROR_UNSUPPORTED, "the image is not made for linux/%s but for %s",
		architecture, platforms[0] != '\0' ? platforms : "no platform at all");
	return error_hint(err, "hob runs images of the machine's own architecture only");
}

/* ---- manifests ---- */

static int parse_layer(const json_t *json, struct oci_image *image, struct error *err)
{
	const char *type = text_of(json, "mediaType");

	if (strstr(type, "encrypted") != NULL) {
		return error_set(err, ERROR_UNSUPPORTED, "a layer is encrypted (%.80s)", type);
	}
	return parse_descriptor(json, "a layer", &image->layers[image->layer_count++], err);
}

static int parse_manifest(const json_t *json, struct oci_image *image, struct error *err)
{
	const json_t *layers = json_object_get(json, "layers"), *layer;
	const char *type = text_of(json_object_get(json, "config"), "mediaType");
	size_t index;

	if (!json_is_array(layers) || json_array_size(layers) == 0) {
		error_set(err, ERROR_UNSUPPORTED, "it is no image: its manifest has no layers");
		return error_hint(
			err, "manifests of Docker's schema 1 are too old: push the image again");
	}
	if (json_array_size(layers) > OCI_LAYERS_MAX) {
		return error_set(
			err, ERROR_LIMIT, "the image has more than %d layers", OCI_LAYERS_MAX);
	}
	if (!streq(type, "application/vnd.oci.image.config.v1+json") &&
		!streq(type, "application/vnd.docker.container.image.v1+json")) {
		return error_set(err, ERROR_UNSUPPORTED,
			"it is no container image but an artifact of type \"%.80s\"", type);
	}
	image->layer_count = 0;
	json_array_foreach (layers, index, layer) {
		if (parse_layer(layer, image, err) < 0) {
			return -(int)err->kind;
		}
	}
	return parse_descriptor(
		json_object_get(json, "config"), "the manifest's config", &image->config, err);
}

int oci_manifest_parse(const char *text, size_t length, const char *architecture,
	struct oci_image *image, struct oci_blob *ret_next, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *manifests;
	int status = parse_document(text, length, "manifest", &json, err);

	if (status < 0) {
		return status;
	}
	image->version = OCI_IMAGE_VERSION;
	manifests = json_object_get(json, "manifests");
	if (json_is_array(manifests)) {
		return parse_index(manifests, architecture, ret_next, err);
	}
	*ret_next = (struct oci_blob){0};
	return parse_manifest(json, image, err);
}

/* ---- configs ---- */

/* What has no "=" or is no text is passed over, as container engines do. */
static int parse_env(const json_t *list, struct oci_image *image, struct error *err)
{
	const json_t *item;
	size_t index;

	image->env_bytes = 0;
	json_array_foreach (list, index, item) {
		const char *entry = json_string_value(item);
		size_t length = entry != NULL ? strlen(entry) + 1 : 0;

		if (entry == NULL || entry[0] == '=' || strchr(entry, '=') == NULL) {
			continue;
		}
		if (length > sizeof(image->env) - image->env_bytes) {
			return error_set(err, ERROR_LIMIT,
				"the image's environment has more than %d bytes",
				OCI_ENV_BYTES_MAX);
		}
		memcpy(image->env + image->env_bytes, entry, length);
		image->env_bytes += (uint32_t)length;
	}
	return 0;
}

static int check_platform(const json_t *json, const char *architecture, struct error *err)
{
	const char *os = text_of(json, "os"), *made_for = text_of(json, "architecture");

	if (streq(os, "linux") && streq(made_for, architecture)) {
		return 0;
	}
	error_set(err, ERROR_UNSUPPORTED, "the image is made for %.30s/%.30s, not for linux/%s", os,
		made_for, architecture);
	return error_hint(err, "hob runs images of the machine's own architecture only");
}

int oci_config_parse(const char *text, size_t length, const char *architecture,
	struct oci_image *image, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *config;
	const char *user, *workdir;

	if (parse_document(text, length, "config", &json, err) < 0 ||
		check_platform(json, architecture, err) < 0) {
		return -(int)err->kind;
	}
	config = json_object_get(json, "config");
	user = text_of(config, "User");
	workdir = text_of(config, "WorkingDir");
	if (strlen(user) >= sizeof(image->user) || strlen(workdir) >= sizeof(image->workdir)) {
		return error_set(err, ERROR_LIMIT, "the image's User or WorkingDir is too long");
	}
	snprintf(image->user, sizeof(image->user), "%s", user);
	snprintf(image->workdir, sizeof(image->workdir), "%s", workdir[0] == '/' ? workdir : "");
	return parse_env(json_object_get(config, "Env"), image, err);
}

static bool text_ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

bool oci_image_is_sound(const struct oci_image *image)
{
	if (image->version != OCI_IMAGE_VERSION || image->layer_count == 0 ||
		image->layer_count > OCI_LAYERS_MAX || image->env_bytes > sizeof(image->env) ||
		(image->env_bytes > 0 && image->env[image->env_bytes - 1] != '\0') ||
		!text_ends(image->user, sizeof(image->user)) ||
		!text_ends(image->workdir, sizeof(image->workdir))) {
		return false;
	}
	for (uint32_t i = 0; i < image->layer_count; i++) {
		if (!text_ends(image->layers[i].sha256, SHA256_TEXT_SIZE) ||
			!digest_is_valid(image->layers[i].sha256)) {
			return false;
		}
	}
	return true;
}

/* ---- layouts ---- */

/* The name that an image has there is for people only. */
static int several(const json_t *manifests, struct error *err)
{
	CLEANUP(buffer_done) struct buffer names = {.max = NAMES_BYTES_MAX};
	const json_t *entry;
	size_t index;

	json_array_foreach (manifests, index, entry) {
		const json_t *notes = json_object_get(entry, "annotations");

		buffer_addf(&names, "%s%.71s (%.40s)", index > 0 ? ", " : "",
			text_of(entry, "digest"),
			text_of(notes, "org.opencontainers.image.ref.name"));
	}
	error_set(err, ERROR_CONFLICT, "the layout holds %zu images", json_array_size(manifests));
	return error_hint(err, "write @ and the digest of one: %s", buffer_text(&names));
}

int oci_layout_parse(const char *text, size_t length, char *sha256, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *manifests;
	struct oci_blob blob;
	int status = parse_document(text, length, "index.json", &json, err);

	if (status < 0) {
		return status;
	}
	manifests = json_object_get(json, "manifests");
	if (!json_is_array(manifests) || json_array_size(manifests) == 0) {
		return error_set(err, ERROR_CORRUPT, "the index.json names no image");
	}
	if (json_array_size(manifests) > 1) {
		return several(manifests, err);
	}
	status = parse_descriptor(
		json_array_get(manifests, 0), "the entry of the index.json", &blob, err);
	if (status == 0) {
		memcpy(sha256, blob.sha256, SHA256_TEXT_SIZE);
	}
	return status;
}

/* ---- tokens ---- */

/* No spaces and no line ends. */
int oci_token_parse(const char *text, size_t length, char **ret_token, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const char *token;

	if (json_parse_object(text, length, &json, err) < 0) {
		return error_set(err, ERROR_REMOTE, "the token server's answer is no JSON object");
	}
	token = json_string_value(json_object_get(json, "token"));
	if (token == NULL) {
		token = json_string_value(json_object_get(json, "access_token"));
	}
	if (token == NULL || token[0] == '\0') {
		return error_set(err, ERROR_REMOTE, "the token server's answer holds no token");
	}
	for (const char *at = token; *at != '\0'; at++) {
		if (*at <= ' ' || *at > '~') {
			return error_set(err, ERROR_REMOTE, "the token server's token is no token");
		}
	}
	*ret_token = xstrdup(token);
	return 0;
}

/* ---- challenges ---- */

/* One of name=value or name="value with \" in it"; NULL at the end or at nonsense. */
static const char *take_parameter(
	const char *at, char *name, size_t name_size, char *value, size_t value_size)
{
	size_t length, used = 0;

	at += strspn(at, " \t,");
	length = strcspn(at, "= \t,");
	if (length == 0 || length >= name_size || at[length] != '=') {
		return NULL;
	}
	memcpy(name, at, length);
	name[length] = '\0';
	at += length + 1;
	if (*at != '"') {
		length = strcspn(at, ", \t");
		if (length >= value_size) {
			return NULL;
		}
		memcpy(value, at, length);
		value[length] = '\0';
		return at + length;
	}
	for (at++; *at != '\0' && *at != '"'; at++) {
		at += *at == '\\' && at[1] != '\0' ? 1 : 0;
		if (used + 1 >= value_size) {
			return NULL;
		}
		value[used++] = *at;
	}
	value[used] = '\0';
	return *at == '"' ? at + 1 : NULL;
}

bool oci_challenge_parse(const char *text, struct oci_challenge *ret_challenge)
{
	struct oci_challenge challenge = {0};
	char name[64], value[1024];

	text += strspn(text, " \t");
	if (strncasecmp(text, "Basic", 5) == 0 && (text[5] == ' ' || text[5] == '\0')) {
		challenge.basic = true;
		*ret_challenge = challenge;
		return true;
	}
	if (strncasecmp(text, "Bearer ", 7) != 0) {
		return false;
	}
	text += 7;
	while ((text = take_parameter(text, name, sizeof(name), value, sizeof(value))) != NULL) {
		if (strcasecmp(name, "realm") == 0) {
			snprintf(challenge.realm, sizeof(challenge.realm), "%s", value);
		} else if (strcasecmp(name, "service") == 0 &&
			   strlen(value) < sizeof(challenge.service)) {
			snprintf(challenge.service, sizeof(challenge.service), "%.511s", value);
		} else if (strcasecmp(name, "scope") == 0) {
			snprintf(challenge.scope, sizeof(challenge.scope), "%s", value);
		}
	}
	if (!str_starts(challenge.realm, "https://") && !str_starts(challenge.realm, "http://")) {
		return false;
	}
	*ret_challenge = challenge;
	return true;
}
