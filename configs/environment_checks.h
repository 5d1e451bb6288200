/* What the values of an environment must be, one by one (for its table of settings) and together.
 */
#ifndef HOB_CONFIGS_ENVIRONMENT_CHECKS_H
#define HOB_CONFIGS_ENVIRONMENT_CHECKS_H

#include "configs/settings.h"

struct environment;
struct environment_source;

setting_check_fn check_name;
setting_check_fn check_environment_name; /* must not look like the id of an image */
/* http(s), git and file URLs without credentials; paths become absolute. */
setting_check_fn check_source_url;
setting_check_fn check_tar_location;
setting_check_fn check_ref;
setting_check_fn check_sha256; /* makes it lower-case */
setting_check_fn check_user;
setting_check_fn check_run;
setting_check_fn check_auth_user;
setting_check_fn check_cron;
setting_check_fn check_zone;
/* `inputs` of a step: patterns that name nothing outside the sources. */
setting_read_fn inputs_read;
setting_write_fn inputs_write;
/* `secrets` of a step: a list of names. */
setting_read_fn secrets_read;
/* `env` to a sorted list of KEY=value; and back. */
setting_read_fn env_read;
setting_write_fn env_write;

/* environment_services.c */
setting_check_fn check_port;
setting_check_fn check_service_url;
MUSTCHECK int environment_check_services(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err);
void environment_warm_fingerprint_set(struct environment *environment);
void environment_services_free(struct environment *environment);
/* The node of one entry of a list, or of a value in it, whether the list is one or a mapping. */
const struct yaml_node *entry_node(
	const struct yaml_node *root, const char *list, size_t index, const char *key);

/* Does the source's auth go with its url, and is it complete? */
MUSTCHECK int check_source_auth(const struct environment_source *source, const char *name,
	const struct yaml_node *node, struct error *err);
/* "ssh://…" or "user@host:path"? */
bool url_is_ssh(const char *url);
/* Duplicates, and values that do not go together; errors point into `root`. */
MUSTCHECK int environment_check_whole(const struct environment *environment, const char *name,
	const struct yaml_node *root, struct error *err);

/* The absolute folder of a file, links resolved where it exists. The caller owns it. */
char *folder_of_file(const char *file);

#endif
