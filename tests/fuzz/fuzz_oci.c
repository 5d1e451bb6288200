/*
 * What registries and layouts say, as any bytes: the first says what it is meant to be (manifest
 * or index, config, index.json, a token server's answer, a challenge, a reference). No crash, and
 * what was taken is sound: digests are digests, texts end, and a token can go into a header.
 */
#include "builder/bases/oci_image.h"

#include "base/memory.h"
#include "configs/deb_reference.h"
#include "configs/oci_reference.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "fuzz_oci: %s\n", what);
		abort();
	}
}

static void must_explain(int status, const struct error *err)
{
	must(status == 0 || (status == -(int)err->kind && err->message[0] != '\0'),
		"a failure without a reason");
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

/* A manifest leads on or is whole; with it comes any config. */
static void try_manifest(const char *text, size_t length)
{
	static struct oci_image image;
	struct oci_blob next = {0};
	struct error err = ERROR_INIT;
	int status;

	memset(&image, 0, sizeof(image));
	status = oci_manifest_parse(text, length, "amd64", &image, &next, &err);
	must_explain(status, &err);
	if (status == 0) {
		must(ends(next.sha256, sizeof(next.sha256)), "the next digest has no end");
		must(next.sha256[0] != '\0' ? digest_is_valid(next.sha256)
					    : oci_image_is_sound(&image),
			"an image was taken that is not sound");
	}
}

static void try_config(const char *text, size_t length)
{
	static struct oci_image image;
	struct error err = ERROR_INIT;
	int status;

	memset(&image, 0, sizeof(image));
	image.version = 1;
	image.layer_count = 1;
	memset(image.layers[0].sha256, 'a', SHA256_TEXT_SIZE - 1);
	status = oci_config_parse(text, length, "amd64", &image, &err);
	must_explain(status, &err);
	if (status < 0) {
		return;
	}
	must(oci_image_is_sound(&image), "a config was taken that is not sound");
	for (uint32_t at = 0; at < image.env_bytes; at += (uint32_t)strlen(image.env + at) + 1) {
		must(strchr(image.env + at, '=') > image.env + at, "a variable without a name");
	}
	must(image.workdir[0] == '\0' || image.workdir[0] == '/', "a folder that is relative");
}

static void try_layout(const char *text, size_t length)
{
	char sha256[SHA256_TEXT_SIZE] = "";
	struct error err = ERROR_INIT;
	int status = oci_layout_parse(text, length, sha256, &err);

	must_explain(status, &err);
	must(status < 0 || (ends(sha256, sizeof(sha256)) && digest_is_valid(sha256)),
		"a layout's digest is none");
}

static void try_token(const char *text, size_t length)
{
	CLEANUP(free_p) char *token = NULL;
	struct error err = ERROR_INIT;
	int status = oci_token_parse(text, length, &token, &err);

	must_explain(status, &err);
	for (const char *at = token; at != NULL && *at != '\0'; at++) {
		must(*at > ' ' && *at <= '~', "a token that is no header");
	}
	must(status < 0 || (token != NULL && token[0] != '\0'), "an empty token");
}

static void try_challenge(const char *text)
{
	struct oci_challenge challenge;

	if (!oci_challenge_parse(text, &challenge)) {
		return;
	}
	must(challenge.basic || (ends(challenge.realm, sizeof(challenge.realm)) &&
					(str_starts(challenge.realm, "http://") ||
						str_starts(challenge.realm, "https://"))),
		"a realm that is no url");
	must(ends(challenge.service, sizeof(challenge.service)) &&
			ends(challenge.scope, sizeof(challenge.scope)),
		"a parameter without an end");
}

/* A name that was taken is taken again as hob writes it. */
static void try_reference(const char *text)
{
	struct oci_reference reference, again;
	struct deb_reference debian;
	const char *problem = NULL;

	if (oci_reference_parse(text, &reference, &problem)) {
		CLEANUP(free_p) char *name = oci_reference_name(&reference);

		must(oci_reference_parse(name, &again, &problem), "a name that is none");
		oci_reference_done(&again);
		oci_reference_done(&reference);
	} else {
		must(problem != NULL, "a refusal without a reason");
	}
	if (deb_reference_parse(text, &debian, &problem)) {
		must(strpbrk(debian.suite, " /]\n\"'") == NULL, "a suite that is no word");
		deb_reference_done(&debian);
	}
	if (deb_mirror_problem(text) == NULL) {
		must(strpbrk(text, " ]\n\"'") == NULL, "a mirror that is no url");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(free_p) char *text = NULL;

	if (size == 0) {
		return 0;
	}
	text = xstrndup((const char *)data + 1, size - 1);
	switch (data[0]) {
	case 'm':
		try_manifest((const char *)data + 1, size - 1);
		break;
	case 'c':
		try_config((const char *)data + 1, size - 1);
		break;
	case 'l':
		try_layout((const char *)data + 1, size - 1);
		break;
	case 't':
		try_token((const char *)data + 1, size - 1);
		break;
	case 'w':
		try_challenge(text);
		break;
	default:
		try_reference(text);
		break;
	}
	return 0;
}
