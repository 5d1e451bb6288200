/*
 * What lies between the base and the sources of an image: a layer for each package manager, then
 * one for all `files`. Each is found again by a key of the layers below it and its exact list, so a
 * new commit installs nothing.
 */
#ifndef HOB_BUILDER_PACKAGES_PACKAGES_H
#define HOB_BUILDER_PACKAGES_PACKAGES_H

#include "configs/packages/package.h"

#include <jansson.h>

struct buffer;
struct environment;
struct job;
struct layer;
struct staging;
struct store;

/* packages.c: job->package_keys, files_key and below_key, from base_key. */
MUSTCHECK int job_packages_keys(struct job *job, struct error *err);
/* Makes or finds their layers, and notes in job->installed what they hold. */
MUSTCHECK int job_packages(struct job *job, struct error *err);

/* files.c: the key of the layer of all files, over `below`; and the layer. */
void files_key(const struct environment *environment, const char *below, char *key);
MUSTCHECK int files_layer(struct job *job, struct error *err);

/* script.c: the command that installs a manager's packages and writes its report to standard
 * output. The caller owns it. */
char *package_script(const struct environment *environment, enum package_manager manager);
/* What it runs with: PATH, and what the managers and proxies read. Free with strv_free. */
char **package_env(const struct environment *environment);

/* installed.c: a report as a list of {manager, name, version, digest, requested}. What was asked
 * for and is not in the report was there already, and has no digest. ERROR_CORRUPT. */
MUSTCHECK int installed_parse(enum package_manager manager, const char *report,
	char *const *requested, json_t **ret_list, struct error *err);
#define INSTALLED_BYTES_MAX (8 * 1024 * 1024) /* of a report */
/* The list lies beside the tree, so that a layer which is found again brings it along. */
MUSTCHECK int installed_write(const struct staging *staging, const json_t *list, struct error *err);
/* NULL when it is gone: then the layer is to be made again. The caller owns it. */
json_t *installed_read(struct store *store, const struct layer *layer);

/* host_tools.c: apt in a sandbox with base: host needs to know where packages come from and what
 * the machine has; a layer that no image lists holds that. */
MUSTCHECK int host_apt_layer(struct job *job, struct layer *ret_layer, struct error *err);
/* What of this machine shapes what a manager installs over base: host. Into key[65]. */
MUSTCHECK int host_tools_key(enum package_manager manager, char *key, struct error *err);

#endif
