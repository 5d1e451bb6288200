/*
 * What container images say of themselves: indexes, manifests and configs as JSON, of OCI and of
 * Docker, and the challenge of a registry. All of it comes from outside and is read in a child;
 * what comes out has fixed sizes, so that it can be handed on and checked.
 */
#ifndef HOB_BUILDER_BASES_OCI_IMAGE_H
#define HOB_BUILDER_BASES_OCI_IMAGE_H

#include "base/digest.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define OCI_MANIFEST_BYTES_MAX (4 * 1024 * 1024)
#define OCI_LAYERS_MAX 127 /* what Docker allows */
#define OCI_ENV_BYTES_MAX 16384
#define OCI_ACCEPT                                                                                 \
	"application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "    \
	"application/vnd.docker.distribution.manifest.list.v2+json, "                              \
	"application/vnd.docker.distribution.manifest.v2+json"

struct oci_blob {
	char sha256[SHA256_TEXT_SIZE];
	uint64_t bytes;
};

struct oci_image {
	uint64_t version; /* of this struct, where it is kept */
	struct oci_blob config;
	struct oci_blob layers[OCI_LAYERS_MAX]; /* the lowest first */
	uint32_t layer_count;
	uint32_t env_bytes;
	char env[OCI_ENV_BYTES_MAX]; /* KEY=value, each with its '\0' */
	char user[128]; /* "": not said */
	char workdir[1024];
};

/* What hob calls this machine's architecture in images: amd64, arm64, …. */
const char *oci_architecture(void);

/* One document by its digest. An index: *ret_next is its manifest for linux on `architecture`.
 * A manifest: fills config and layers, and *ret_next is empty. ERROR_UNSUPPORTED when there is no
 * such platform (the message lists those there are), or a layer that cannot be had. */
MUSTCHECK int oci_manifest_parse(const char *text, size_t length, const char *architecture,
	struct oci_image *image, struct oci_blob *ret_next, struct error *err);
/* Fills env, user and workdir; ERROR_UNSUPPORTED when it is for another platform. */
MUSTCHECK int oci_config_parse(const char *text, size_t length, const char *architecture,
	struct oci_image *image, struct error *err);
/* Is every field what it should be? For one that a child has written. */
bool oci_image_is_sound(const struct oci_image *image);

/* The digest of the only image that a layout's index.json names. ERROR_CONFLICT, with them all,
 * when there are several. */
MUSTCHECK int oci_layout_parse(const char *text, size_t length, char *sha256, struct error *err);
/* A token server's answer; the caller owns the token, which may go into a header as it is. */
MUSTCHECK int oci_token_parse(const char *text, size_t length, char **ret_token, struct error *err);

struct oci_challenge {
	bool basic; /* Basic: user and password go to the registry itself */
	char realm[1024]; /* Bearer: where to get a token */
	char service[512], scope[1024]; /* "": not said */
};

/* The value of WWW-Authenticate. False when there is nothing in it that hob understands. */
bool oci_challenge_parse(const char *text, struct oci_challenge *ret_challenge);

#endif
