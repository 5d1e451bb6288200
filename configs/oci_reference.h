/*
 * Names of container images as people write them: [HOST/]NAME[:TAG][@sha256:DIGEST], or the path of
 * an image layout with @sha256:DIGEST. Only spelling; nothing is asked of anybody.
 */
#ifndef HOB_CONFIGS_OCI_REFERENCE_H
#define HOB_CONFIGS_OCI_REFERENCE_H

#include "base/digest.h"
#include "base/memory.h"

#include <stdbool.h>

struct oci_reference {
	char *path; /* of a layout; NULL: it is in a registry */
	char *host; /* "docker.io", "127.0.0.1:5000" */
	char *repository; /* "library/debian" */
	char *tag; /* NULL: none */
	char digest[SHA256_TEXT_SIZE]; /* hex; "": none */
};

/* False with *ret_problem a text for people ("has …"); then there is nothing to free. */
bool oci_reference_parse(
	const char *text, struct oci_reference *ret_reference, const char **ret_problem);
void oci_reference_done(struct oci_reference *reference);
/* Without the digest: "docker.io/library/debian:12", or the path. The caller owns it. */
char *oci_reference_name(const struct oci_reference *reference);
/* Is the host this machine by loopback, so that plain http shows nothing to anybody? */
bool oci_host_is_loopback(const char *host);

#endif
