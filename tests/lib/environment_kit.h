/* Environments for unit tests: a text that is good, or the words with which it is refused. */
#ifndef HOB_TESTS_LIB_ENVIRONMENT_KIT_H
#define HOB_TESTS_LIB_ENVIRONMENT_KIT_H

#include "configs/environment.h"

/* Of the file /srv/envs/webapp.yaml. The caller frees it. */
struct environment *env_parse(const char *text);
/* The message of a text that must be refused as invalid, in webapp.yaml; it lies in *err. */
const char *env_refuse(const char *text, struct error *err);

#endif
