/* What a remote asks for: a credential, offered once, and whether its ssh key is known. TLS
 * certificates are the library's affair. */
#include "builder/git/git_internal.h"

#include "builder/credentials/credential.h"

#include <stdio.h>

#define SSH_PORT 22
#define SSH_USER "git"

int git_offer_credential(
	git_credential **ret, const char *url, const char *user, unsigned types, void *payload)
{
	struct git_talk *talk = payload;
	const struct credential *credential = talk->source->credential;
	const char *who = credential->user != NULL ? credential->user
			  : user != NULL           ? user
						   : SSH_USER;

	(void)url;
	if (credential->kind == CREDENTIAL_SSH_KEY && (types & GIT_CREDENTIAL_USERNAME) != 0) {
		return git_credential_username_new(ret, who);
	}
	if (talk->offered) {
		return GIT_EAUTH;
	}
	talk->offered = true;
	if (credential->kind == CREDENTIAL_SSH_KEY && (types & GIT_CREDENTIAL_SSH_MEMORY) != 0) {
		return git_credential_ssh_key_memory_new(
			ret, who, NULL, credential->secret.text, NULL);
	}
	if (credential->kind == CREDENTIAL_TOKEN &&
		(types & GIT_CREDENTIAL_USERPASS_PLAINTEXT) != 0) {
		return git_credential_userpass_plaintext_new(ret, who, credential->secret.text);
	}
	return GIT_EAUTH;
}

/* Of "ssh://host:2222/…"; scp's form has none. */
static int port_of(const char *url)
{
	const char *scheme = strstr(url, "://");
	const char *start = scheme != NULL ? scheme + 3 : "";
	const char *end = start + strcspn(start, "/"), *colon = NULL;
	int port = 0;

	for (const char *at = start; at < end; at++) {
		colon = *at == ':' ? at : *at == ']' ? NULL : colon;
	}
	return colon != NULL && sscanf(colon + 1, "%5d", &port) == 1 ? port : SSH_PORT;
}

int git_check_certificate(git_cert *cert, int valid, const char *host, void *payload)
{
	struct git_talk *talk = payload;
	const struct credential *credential = talk->source->credential;
	const git_cert_hostkey *key = (const git_cert_hostkey *)(const void *)cert;

	if (cert->cert_type != GIT_CERT_HOSTKEY_LIBSSH2) {
		return valid ? 0 : GIT_ECERTIFICATE;
	}
	if (credential->known_hosts.text != NULL && (key->type & GIT_CERT_SSH_RAW) != 0 &&
		known_hosts_has(credential->known_hosts.text, host, port_of(talk->source->url),
			key->hostkey, key->hostkey_len)) {
		return 0;
	}
	talk->strange = true;
	return GIT_ECERTIFICATE;
}
