/* hob create: claims a warm sandbox, or has one made, and says which. */
#include "pool/cli/claim.h"
#include "pool/cli/cli.h"

static const struct option_row create_rows[] = {
	{"image", '\0', OPTION_TEXT, "ID", offsetof(struct claim_options, image),
		"take this image instead of the newest (`hob images ls`)"},
	{"key", 'k', OPTION_TEXT, "K", offsetof(struct claim_options, key),
		"take the one that `hob warm --key K` reserved"},
	{"max-age", '\0', OPTION_DURATION, "DUR", offsetof(struct claim_options, max_age_ms),
		"only of an image that was the newest this long ago; an earlier one will do"},
	{"min-commit", '\0', OPTION_TEXT, "COMMIT", offsetof(struct claim_options, min_commit),
		"only at this commit, or of an image that was built after it"},
	CLAIM_OPTION_ROWS,
};

static int create_run(struct call *call, struct error *err)
{
	const struct claim_options *options = call->values;

	if (call->operand_count == 0 && options->image == NULL) {
		error_set(err, ERROR_USAGE, "hob create needs an environment, or --image ID");
		return error_hint(err, "`hob env ls` lists the environments");
	}
	if (call->operand_count > 0 && options->image != NULL) {
		return error_set(err, ERROR_USAGE, "give an environment or --image, not both");
	}
	return claim_and_print(call->cli, call->operands[0], options, err);
}

const struct verb verb_create = {
	.name = "create",
	.group = "Sandboxes",
	.operands = "ENV | --image ID",
	.summary = "Take a sandbox of an environment: a warm one, or a new one when none is ready",
	.details =
		"Prints its id on standard output, and on standard error whether it was warm, if\n"
		"not why, and how long it took.\n\n"
		"  id=$(hob create -q webapp)",
	VERB_OPTIONS(create_rows, struct claim_options),
	.defaults = &claim_defaults,
	.operands_max = 1,
	.run = create_run,
};
