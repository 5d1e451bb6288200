/*
 * Secrets of steps: files in /run/secrets of the step's sandbox, which is memory, and afterwards
 * what the layer is searched for. A layer that holds one is not kept.
 */
#ifndef HOB_BUILDER_CREDENTIALS_STEP_SECRETS_H
#define HOB_BUILDER_CREDENTIALS_STEP_SECRETS_H

#include "base/error.h"
#include "configs/secret.h"

#include <stdbool.h>
#include <stddef.h>

struct environment;
struct init_client;
struct machine;
struct range;
struct store;

#define STEP_SECRETS_FOLDER "/run/secrets"
/* A shorter one would be found by chance. */
#define STEP_SECRET_BYTES_MIN 8

/* All that an environment's steps name, each once; names are the environment's. */
struct step_secrets {
	const char **names;
	struct secret *secrets;
	size_t count;
};

/* ERROR_NOT_FOUND, ERROR_DENIED, ERROR_INVALID (too short to be looked for). */
MUSTCHECK int step_secrets_read(struct machine *machine, const struct environment *environment,
	struct step_secrets *ret_secrets, struct error *err);
void step_secrets_done(struct step_secrets *secrets);

/* Writes those in `names` (NULL-terminated; NULL: none) into a sandbox that has started. `closed`
 * becomes true when that dies. */
MUSTCHECK int step_secrets_put(struct machine *machine, const struct step_secrets *secrets,
	char *const *names, struct init_client *client, const bool *closed, struct error *err);

/*
 * Reads staging/<staging>/tree for any of them: in files, names, links and attributes, as they are
 * or in base64. ERROR_DENIED naming the file and the secret. What is compressed or encrypted (an
 * object of git, an archive) is not seen through.
 */
MUSTCHECK int step_secrets_search(const struct step_secrets *secrets, struct range *range,
	const char *staging, struct error *err);

/* What every base64 text that holds the secret behind a multiple of three bytes and `shift` more
 * must contain; free() it. */
char *step_secret_base64(const struct secret *secret, size_t shift, size_t *ret_length);
/* The search in one text of any bytes. */
bool step_secret_is_in(const struct secret *secret, const void *data, size_t length);

#endif
