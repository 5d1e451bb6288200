/* SHA-256 by libcrypto, for what crosses machines: downloads, archives, fingerprints. And SHA-1
 * where a format of others has it: git's index, the WebSocket handshake. */
#ifndef HOB_BASE_DIGEST_H
#define HOB_BASE_DIGEST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define SHA256_TEXT_SIZE 65 /* 64 lower-case hex digits and the end */

struct digest;

struct digest *digest_new(void);
void digest_free(struct digest *digest);
void digest_add(struct digest *digest, const void *data, size_t length);
/* The bytes of a text with its final '\0', so that ("ab", "c") and ("a", "bc") differ. */
void digest_add_str(struct digest *digest, const char *text);
/* The same, with a mark before it that tells NULL from "". */
void digest_add_str_or_null(struct digest *digest, const char *text);
/* Ends it: hex into text[SHA256_TEXT_SIZE]. */
void digest_end(struct digest *digest, char *text);

void digest_of(const void *data, size_t length, char *text);
/* From the current offset to the end of the file. */
MUSTCHECK int digest_of_fd(int fd, char *text, struct error *err);
/* 64 lower-case hex digits? */
bool digest_is_valid(const char *text);
/* 40 of them: a commit's whole id? */
bool sha1_is_valid(const char *text);

#define SHA1_SIZE 20
void digest_sha1(const void *data, size_t length, unsigned char *bytes);

#define WEBSOCKET_ACCEPT_SIZE 29
/* What a WebSocket server answers to Sec-WebSocket-Key (RFC 6455), into
 * text[WEBSOCKET_ACCEPT_SIZE]. */
void digest_websocket_accept(const char *key, char *text);

#endif
