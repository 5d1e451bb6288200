/*
 * What a source is fetched with: a token, or a key for ssh, from the secrets that the environment
 * and hob.yaml name. They are read in the build's process, handed to the child that talks to the
 * server by fork, and wiped; no file, argument, url or log of the build ever holds them.
 */
#ifndef HOB_BUILDER_CREDENTIALS_CREDENTIAL_H
#define HOB_BUILDER_CREDENTIALS_CREDENTIAL_H

#include "base/error.h"
#include "base/memory.h"
#include "configs/secret.h"

#include <stdbool.h>

struct environment_auth;
struct machine;

enum credential_kind { CREDENTIAL_NONE, CREDENTIAL_TOKEN, CREDENTIAL_SSH_KEY };

struct credential {
	enum credential_kind kind;
	char *user;
	struct secret secret; /* the token, or the private key in PEM or OpenSSH's format */
	struct secret known_hosts; /* of ssh: lines as sshd(8) describes them */
};

/* For a GitHub App it asks GitHub for a token, or takes one that is still good. ERROR_NOT_FOUND,
 * ERROR_DENIED (a secret), ERROR_REMOTE. */
MUSTCHECK int credential_find(struct machine *machine, const struct environment_auth *auth,
	struct credential *ret_credential, struct error *err);
void credential_done(struct credential *credential);

/* Is `key` (as it came from the server, `length` bytes) a key of the host by known_hosts? port: 22,
 * or another that is written as [host]:port there. A @revoked line forbids it. Hashed names and
 * certificate authorities are not understood: no match. */
bool known_hosts_has(
	const char *known_hosts, const char *host, int port, const void *key, size_t length);

#endif
