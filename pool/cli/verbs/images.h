/* Between the files of `hob images`. */
#ifndef HOB_POOL_CLI_VERBS_IMAGES_H
#define HOB_POOL_CLI_VERBS_IMAGES_H

#include "base/json.h"
#include "pool/cli/cli.h"

#include <stdbool.h>

struct images_options {
	bool packages; /* info */
	bool stat; /* diff */
};

/* Root's call goes to the program. For others the options are taken out of the operands; *ret_done
 * says that there is nothing more to do. */
MUSTCHECK int images_begin(struct call *call, bool *ret_done, struct error *err);

/* GET /v1/images/{id}/packages as a table. */
void images_print_packages(const json_t *reply);
extern const struct verb images_diff;

#endif
