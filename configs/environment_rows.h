/* The two tables that an environment's settings are made of, and what both need. */
#ifndef HOB_CONFIGS_ENVIRONMENT_ROWS_H
#define HOB_CONFIGS_ENVIRONMENT_ROWS_H

#include "configs/environment.h"
#include "configs/environment_checks.h"
#include "configs/settings.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define DAY (24 * 60 * MINUTE)
#define YEAR (365 * DAY)
#define MIB (INT64_C(1) << 20)
#define TIB (INT64_C(1) << 40)
/* A command goes to hob-init in one packet of 60 kB, beside its environment. */
#define RUN_BYTES_MAX 24576
#define FIELD(member) .offset = offsetof(struct environment, member)

struct setting_rows {
	const struct setting *rows;
	size_t count;
};
/* environment_base.c */
setting_read_fn base_read, base_oci_read, base_deb_read;
setting_check_fn check_mirror, check_components;
setting_write_fn base_write;

extern const struct setting_rows environment_image_rows; /* what shapes the image, and when */
extern const struct setting_rows environment_run_rows; /* how its sandboxes live */

#endif
