/* A thin layer over EVP, so that no other file includes OpenSSL. */
#include "base/digest.h"

#include "base/base64.h"
#include "base/memory.h"

#include <assert.h>
#include <openssl/evp.h>

struct digest {
	EVP_MD_CTX *context;
};

struct digest *digest_new(void)
{
	struct digest *digest = xcalloc(1, sizeof(*digest));

	digest->context = EVP_MD_CTX_new();
	if (digest->context == NULL ||
		EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) != 1) {
		abort();
	}
	return digest;
}

void digest_free(struct digest *digest)
{
	if (digest != NULL) {
		EVP_MD_CTX_free(digest->context);
		free(digest);
	}
}
DEFINE_CLEANUP(digest_free_p, struct digest, digest_free)

void digest_add(struct digest *digest, const void *data, size_t length)
{
	int done = EVP_DigestUpdate(digest->context, data, length);

	assert(done == 1);
	(void)done;
}

void digest_add_str(struct digest *digest, const char *text)
{
	digest_add(digest, text, strlen(text) + 1);
}

void digest_add_str_or_null(struct digest *digest, const char *text)
{
	digest_add_str(digest, text != NULL ? "+" : "-");
	digest_add_str(digest, text != NULL ? text : "");
}

void digest_end(struct digest *digest, char *text)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char raw[EVP_MAX_MD_SIZE];
	unsigned length = 0;
	int done = EVP_DigestFinal_ex(digest->context, raw, &length);

	assert(done == 1 && length == 32);
	(void)done;
	for (unsigned i = 0; i < length; i++) {
		text[2 * i] = hex[raw[i] >> 4];
		text[2 * i + 1] = hex[raw[i] & 15];
	}
	text[2 * length] = '\0';
}

void digest_of(const void *data, size_t length, char *text)
{
	CLEANUP(digest_free_p) struct digest *digest = digest_new();

	digest_add(digest, data, length);
	digest_end(digest, text);
}

int digest_of_fd(int fd, char *text, struct error *err)
{
	CLEANUP(digest_free_p) struct digest *digest = digest_new();
	char chunk[65536];
	ssize_t got;

	while ((got = read(fd, chunk, sizeof(chunk))) != 0) {
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read");
		}
		digest_add(digest, chunk, (size_t)got);
	}
	digest_end(digest, text);
	return 0;
}

static bool is_hex(const char *text, size_t length)
{
	return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

bool digest_is_valid(const char *text)
{
	return is_hex(text, SHA256_TEXT_SIZE - 1);
}

bool sha1_is_valid(const char *text)
{
	return is_hex(text, 2 * SHA1_SIZE);
}

void digest_sha1(const void *data, size_t length, unsigned char *bytes)
{
	if (EVP_Digest(data, length, bytes, NULL, EVP_sha1(), NULL) != 1) {
		abort();
	}
}

void digest_websocket_accept(const char *key, char *text)
{
	static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	CLEANUP(free_p) char *joined = xasprintf("%s%s", key, suffix);
	CLEANUP(free_p) char *encoded = NULL;
	unsigned char raw[SHA1_SIZE];

	digest_sha1(joined, strlen(joined), raw);
	encoded = base64_encode(raw, sizeof(raw));
	assert(strlen(encoded) < WEBSOCKET_ACCEPT_SIZE);
	memcpy(text, encoded, strlen(encoded) + 1);
}
