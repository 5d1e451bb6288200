/* Keys of hosts, and what a GitHub App signs with. The exchange itself is in the integration tests.
 */
#include "tests/lib/test.h"

#include "base/base64.h"
#include "builder/credentials/credential.h"
#include "builder/credentials/github_app.h"
#include "builder/credentials/step_secrets.h"

#include <openssl/evp.h>
#include <openssl/pem.h>

#define KEY "AAAAC3NzaC1lZDI1NTE5AAAAIJ7dZ0cW9Zg1"
#define OTHER "AAAAC3NzaC1lZDI1NTE5AAAAIJ7dZ0cW9Zg2"

static bool knows(const char *known_hosts, const char *host, int port)
{
	struct buffer key;
	bool known;

	buffer_init(&key, 4096);
	assert_true(base64_decode(KEY, strlen(KEY), &key));
	known = known_hosts_has(known_hosts, host, port, key.data, key.length);
	buffer_done(&key);
	return known;
}

static void test_known_hosts(void **state)
{
	(void)state;
	assert_true(knows("example.com ssh-ed25519 " KEY "\n", "example.com", 22));
	assert_true(
		knows("# x\n\na.org,Example.COM ssh-ed25519 " KEY " me\r\n", "example.com", 22));
	assert_true(knows("[example.com]:2222 ssh-ed25519 " KEY, "example.com", 2222));
	assert_true(knows(
		"example.com ssh-rsa " OTHER "\nexample.com ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("", "example.com", 22));
	assert_false(knows("example.com ssh-ed25519 " OTHER, "example.com", 22));
	assert_false(knows("example.com ssh-ed25519 " KEY, "example.com", 2222));
	assert_false(knows("[example.com]:2222 ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("example.org ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("example.com ssh-ed25519", "example.com", 22));
	assert_false(knows("#example.com ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("|1|aGFzaA==|aGFzaA== ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("@cert-authority example.com ssh-ed25519 " KEY, "example.com", 22));
	assert_false(knows("example.com ssh-ed25519 " KEY "\n@revoked example.com ssh-ed25519 " KEY,
		"example.com", 22));
}

static char *pem_of(EVP_PKEY *key, const char *passphrase)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL, *text;
	long length;

	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key,
				 passphrase != NULL ? EVP_aes_256_cbc() : NULL, passphrase,
				 passphrase != NULL ? (int)strlen(passphrase) : 0, NULL, NULL),
		1);
	length = BIO_get_mem_data(bio, &data);
	text = xstrndup(data, (size_t)length);
	BIO_free_all(bio);
	return text;
}

static void test_only_a_plain_rsa_key_signs(void **state)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048), *curve = EVP_EC_gen("P-256");
	CLEANUP(free_p) char *good = pem_of(rsa, NULL);
	CLEANUP(free_p) char *locked = pem_of(rsa, "secret");
	CLEANUP(free_p) char *other = pem_of(curve, NULL);
	CLEANUP(free_p) char *jwt = NULL;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(github_app_jwt("4711", good, 1700000000, &jwt, &err), &err);
	/* {"alg":"RS256","typ":"JWT"}.{"iat":1699999940,"exp":1700000540,"iss":"4711"} */
	assert_true(str_starts(jwt, "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9."
				    "eyJpYXQiOjE2OTk5OTk5NDAsImV4cCI6MTcwMDAwMDU0MCwiaXNzIjoi"
				    "NDcxMSJ9."));
	assert_null(strpbrk(jwt, "+/="));
	free(jwt);
	jwt = NULL;
	assert_kind(github_app_jwt("4711", other, 0, &jwt, &err), &err, ERROR_INVALID);
	assert_kind(github_app_jwt("4711", locked, 0, &jwt, &err), &err, ERROR_INVALID);
	assert_kind(github_app_jwt("4711", "no key", 0, &jwt, &err), &err, ERROR_INVALID);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(curve);
}

/* Whatever stands before and after it, and however base64 cuts it. */
static void test_a_secret_is_found_in_base64(void **state)
{
	struct secret secret = {.text = (char[]){"tok_5f0c9a1b7e"}, .length = 14};

	(void)state;
	for (size_t before = 0; before < 7; before++) {
		for (size_t after = 0; after < 4; after++) {
			CLEANUP(free_p)
			char *plain = xasprintf("%.*s%s%.*s", (int)before, "{\"a\":\"x",
				secret.text, (int)after, "\"}\n");
			CLEANUP(free_p) char *coded = base64_encode(plain, strlen(plain));

			assert_true(step_secret_is_in(&secret, plain, strlen(plain)));
			assert_true(step_secret_is_in(&secret, coded, strlen(coded)));
			plain[before + 5] ^= 1;
			free(coded);
			coded = base64_encode(plain, strlen(plain));
			assert_false(step_secret_is_in(&secret, plain, strlen(plain)));
			assert_false(step_secret_is_in(&secret, coded, strlen(coded)));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_hosts),
		cmocka_unit_test(test_only_a_plain_rsa_key_signs),
		cmocka_unit_test(test_a_secret_is_found_in_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
