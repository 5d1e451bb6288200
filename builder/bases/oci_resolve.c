/* What a container image without a digest is now: asked in a child, which has the layout's
 * descriptor and nothing else. */
#include "builder/bases/oci.h"

#include "builder/bases/oci_source.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/secret.h"

#include <stdio.h>

#define STALL_MS 60000

static int ask_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	CLEANUP(oci_source_close_p) struct oci_source *source = NULL;
	int status = oci_source_open(child, context, &source, err);

	return status < 0 ? status : oci_source_resolve(source, ret_result, err);
}

int oci_base_resolve(struct machine *machine, const struct environment *environment, int local_fd,
	char *sha256, struct error *err)
{
	CLEANUP(oci_reference_done) struct oci_reference reference = {0};
	CLEANUP(secret_done) struct secret secret = {0};
	struct oci_place place = {.reference = &reference, .local_fd = local_fd, .folder_fd = -1};
	char found[SHA256_TEXT_SIZE] = "";
	struct child_spec spec = {.what = "ask for the digest",
		.run = ask_child,
		.context = &place,
		.result_size = sizeof(found),
		.fds = &local_fd,
		.fd_count = local_fd >= 0 ? 1 : 0,
		.stall_ms = STALL_MS};
	const char *problem = "";
	int status = 0;

	if (!oci_reference_parse(environment->base_location, &reference, &problem)) {
		return error_set(
			err, ERROR_INTERNAL, "base oci:%s %s", environment->base_location, problem);
	}
	if (environment->base_secret != NULL) {
		status = secret_read(
			machine->config->secrets, environment->base_secret, &secret, err);
		place.user = environment->base_user;
		place.password = secret.text;
	}
	if (status == 0) {
		status = child_run(machine, &spec, found, err);
	}
	if (status == 0 && (found[sizeof(found) - 1] != '\0' || !digest_is_valid(found))) {
		status = error_set(err, ERROR_INTERNAL, "what was found is no digest");
	}
	if (status == 0) {
		memcpy(sha256, found, sizeof(found));
	}
	return status;
}

int oci_base_check(
	struct machine *machine, const struct environment *environment, struct error *err)
{
	char sha256[SHA256_TEXT_SIZE];
	struct error asked = ERROR_INIT;

	if (environment_check_pinned(environment, err) == 0) {
		return 0;
	}
	if (environment->base == BASE_OCI && environment->base_location[0] != '/' &&
		oci_base_resolve(machine, environment, -1, sha256, &asked) == 0) {
		error_hint(err,
			"it is now oci:%s@sha256:%s: write that, or let `hob env pin` do it",
			environment->base_location, sha256);
	}
	return -(int)err->kind;
}
