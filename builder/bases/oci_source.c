/*
 * Requests to a registry, in a child. Tokens are asked for when a request is refused, once for each
 * request, as the registry says where. A password goes over https only, or to this machine itself.
 */
#include "builder/bases/oci_source.h"

#include "base/base64.h"
#include "base/io.h"
#include "builder/child.h"
#include "builder/download.h"
#include "gen/version.h"

#include <curl/curl.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define CHALLENGE_SIZE 4096
#define TOKEN_BYTES_MAX (64 * 1024)
#define CONNECT_SECONDS 20L
#define REQUEST_SECONDS 60L
#define PROBE_SECONDS 5L

struct oci_source {
	struct child *child;
	struct oci_place place;
	char *base; /* "https://registry-1.docker.io/v2/library/debian" */
	bool secure;
	char *authorization; /* NULL: none yet */
	char challenge[CHALLENGE_SIZE];
};

/* ---- single requests ---- */

struct reply {
	struct buffer body;
	struct oci_source *source; /* whose challenge is kept; NULL: nobody's */
	long http;
};

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
	struct reply *reply = context;

	return buffer_add(&reply->body, data, size * count) ? size * count : 0;
}

static size_t on_header(char *data, size_t size, size_t count, void *context)
{
	static const char name[] = "www-authenticate:";
	struct reply *reply = context;
	size_t length = size * count;

	if (reply->source != NULL && length >= sizeof(name) && length < CHALLENGE_SIZE &&
		strncasecmp(data, name, sizeof(name) - 1) == 0) {
		snprintf(reply->source->challenge, CHALLENGE_SIZE, "%.*s",
			(int)(length - sizeof(name) + 1), data + sizeof(name) - 1);
		reply->source->challenge[strcspn(reply->source->challenge, "\r\n")] = '\0';
	}
	return length;
}

static struct curl_slist *header_list(const char *authorization)
{
	CLEANUP(free_p) char *line = NULL;
	struct curl_slist *headers = curl_slist_append(NULL, "Accept: " OCI_ACCEPT);

	if (authorization != NULL) {
		line = xasprintf("Authorization: %s", authorization);
		headers = curl_slist_append(headers, line);
	}
	return headers;
}

/* A GET whose body fits into memory. Any HTTP status is a success; look at reply->http. */
static int request(const struct oci_source *source, const char *url, const char *authorization,
	long seconds, struct reply *reply, struct error *err)
{
	CURL *curl = curl_easy_init();
	struct curl_slist *headers = header_list(authorization);
	char reason[CURL_ERROR_SIZE] = "";
	const char *protocols = source->secure ? "https" : "http,https";
	CURLcode code;

	if (curl == NULL) {
		return error_set(err, ERROR_INTERNAL, "libcurl does not start");
	}
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, protocols);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT,
		seconds < CONNECT_SECONDS ? seconds : CONNECT_SECONDS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, seconds);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "hob/" HOB_VERSION);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, reply);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->http);
	curl_easy_cleanup(curl);
	curl_slist_free_all(headers);
	if (code == CURLE_OK) {
		return 0;
	}
	error_set(err, code == CURLE_OPERATION_TIMEDOUT ? ERROR_TIMEOUT : ERROR_REMOTE, "%s: %s",
		url, reason[0] != '\0' ? reason : curl_easy_strerror(code));
	return error_hint(err, "check the name of the registry and the network");
}

/* ---- tokens ---- */

/* "http://127.0.0.1:5001/token": nobody else can listen on the way. */
static bool url_is_private(const char *url)
{
	CLEANUP(free_p) char *host = NULL;

	if (str_starts(url, "https://")) {
		return true;
	}
	host = xstrndup(url + strlen("http://"), strcspn(url + strlen("http://"), "/?#"));
	return strchr(host, '@') == NULL && oci_host_is_loopback(host);
}

static char *basic(const struct oci_place *place)
{
	CLEANUP(free_p) char *pair = NULL;
	CLEANUP(free_p) char *encoded = NULL;

	if (place->user == NULL) {
		return NULL;
	}
	pair = xasprintf("%s:%s", place->user, place->password);
	encoded = base64_encode(pair, strlen(pair));
	return xasprintf("Basic %s", encoded);
}

static void add_query(struct buffer *url, const char *key, const char *value)
{
	char *escaped = curl_easy_escape(NULL, value, 0);

	buffer_addf(url, "%c%s=%s", strchr(buffer_text(url), '?') != NULL ? '&' : '?', key,
		escaped != NULL ? escaped : "");
	curl_free(escaped);
}

static int take_token(struct oci_source *source, const struct buffer *body, struct error *err)
{
	CLEANUP(free_p) char *token = NULL;
	int status = oci_token_parse(buffer_text(body), body->length, &token, err);

	if (status == 0) {
		free(source->authorization);
		source->authorization = xasprintf("Bearer %s", token);
		explicit_bzero(token, strlen(token));
	}
	return status;
}

static int refused(const struct oci_source *source, const char *who, struct error *err)
{
	const struct oci_place *place = &source->place;

	error_set(err, ERROR_DENIED, "%s refuses %s%s", who,
		place->user != NULL ? "user " : "to serve it to everybody",
		place->user != NULL ? place->user : "");
	return place->user != NULL
		       ? error_hint(err, "is the secret right, and may the user read it?")
		       : error_hint(err, "write base: {oci: …, user: NAME, secret: NAME}, or check "
					 "the name: a registry says the same of what it does not "
					 "have");
}

static int ask_token(
	struct oci_source *source, const struct oci_challenge *challenge, struct error *err)
{
	CLEANUP(buffer_done) struct buffer url = {0};
	CLEANUP(free_p) char *login = basic(&source->place);
	struct reply reply = {.http = 0};
	int status;

	if (!url_is_private(challenge->realm)) {
		return error_set(err, ERROR_DENIED,
			"the registry sends for its tokens to %.200s, which is not https",
			challenge->realm);
	}
	buffer_add_str(&url, challenge->realm);
	if (challenge->service[0] != '\0') {
		add_query(&url, "service", challenge->service);
	}
	if (challenge->scope[0] != '\0') {
		add_query(&url, "scope", challenge->scope);
	}
	buffer_init(&reply.body, TOKEN_BYTES_MAX);
	status = request(source, buffer_text(&url), login, REQUEST_SECONDS, &reply, err);
	if (status == 0 && reply.http != 200) {
		status = reply.http == 401 || reply.http == 403
				 ? refused(source, "the token server", err)
				 : error_set(err, ERROR_REMOTE, "the token server answers %ld",
					   reply.http);
	}
	if (status == 0) {
		status = take_token(source, &reply.body, err);
	}
	buffer_done(&reply.body);
	return status;
}

/* After a 401. */
static int authorize(struct oci_source *source, struct error *err)
{
	struct oci_challenge challenge;

	if (!oci_challenge_parse(source->challenge, &challenge)) {
		return error_set(err, ERROR_DENIED,
			"%s refuses, and does not say how to log in in a way that hob knows",
			source->place.reference->host);
	}
	if (!challenge.basic) {
		return ask_token(source, &challenge, err);
	}
	if (source->place.user == NULL || !url_is_private(source->base)) {
		return refused(source, source->place.reference->host, err);
	}
	free(source->authorization);
	source->authorization = basic(&source->place);
	return 0;
}

/* ---- blobs ---- */

/* A file of the layout, by its path there. */
static int open_local(const struct oci_source *source, const char *path, uint64_t bytes_max,
	int *ret_fd, struct error *err)
{
	const struct oci_place *place = &source->place;
	CLEANUP(close_p) int fd = -1;
	struct stat about;
	int status = 0;

	if (fstat(place->local_fd, &about) == 0 && S_ISDIR(about.st_mode)) {
		fd = io_open_beneath(place->local_fd, path, O_RDONLY | O_NONBLOCK, 0, err);
		status = fd < 0 ? fd : 0;
		if (status == 0 && (fstat(fd, &about) < 0 || !S_ISREG(about.st_mode))) {
			status = error_set(err, ERROR_INVALID, "%s is no file", path);
		}
	} else {
		status = oci_archive_file(source->child, place, path, bytes_max, &fd, err);
	}
	if (status == 0) {
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	error_wrap(err, "the image layout %s", place->reference->path);
	return err->kind == ERROR_NOT_FOUND
		       ? error_hint(err, "it must be an OCI image layout that holds the digest, as "
					 "`skopeo copy … oci:PATH` makes")
		       : -(int)err->kind;
}

static int bring_local(
	struct oci_source *source, const char *sha256, uint64_t bytes_max, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("blobs/sha256/%s", sha256);
	CLEANUP(free_p)
	char *location = xasprintf("%s/%s", source->place.reference->path, path);
	CLEANUP(close_p) int fd = -1;
	struct download download = {.location = location,
		.sha256 = sha256,
		.folder_fd = source->place.folder_fd,
		.bytes_max = bytes_max};
	int status = open_local(source, path, bytes_max, &fd, err);

	download.local_fd = fd;
	return status < 0 ? status : download_here(source->child, &download, err);
}

static int not_there(const struct oci_source *source, const char *sha256, struct error *err)
{
	if (err->kind == ERROR_REMOTE && strstr(err->message, " 404") != NULL) {
		error_set(err, ERROR_NOT_FOUND, "%s has no %s with the digest sha256:%s",
			source->place.reference->host, source->place.reference->repository, sha256);
		return error_hint(err, "check the name and the digest; registries forget images");
	}
	return -(int)err->kind;
}

int oci_source_bring(struct oci_source *source, const char *sha256, bool manifest,
	uint64_t bytes_max, struct error *err)
{
	CLEANUP(free_p)
	char *url = xasprintf("%s/%s/sha256:%s", source->base != NULL ? source->base : "",
		manifest ? "manifests" : "blobs", sha256);
	struct download download = {.location = url,
		.sha256 = sha256,
		.local_fd = -1,
		.folder_fd = source->place.folder_fd,
		.bytes_max = bytes_max,
		.https_only = source->secure,
		.authorization = source->authorization,
		.accept = manifest ? OCI_ACCEPT : NULL,
		.challenge = source->challenge,
		.challenge_size = sizeof(source->challenge)};
	int status;

	if (faccessat(source->place.folder_fd, sha256, F_OK, 0) == 0) {
		return 0;
	}
	if (source->place.local_fd >= 0) {
		return bring_local(source, sha256, bytes_max, err);
	}
	source->challenge[0] = '\0';
	status = download_here(source->child, &download, err);
	if (status == -ERROR_DENIED && source->challenge[0] != '\0') {
		status = authorize(source, err);
		if (status == 0) {
			download.authorization = source->authorization;
			status = download_here(source->child, &download, err);
			if (status == -ERROR_DENIED) {
				status = refused(source, source->place.reference->host, err);
			}
		}
	}
	return status < 0 ? not_there(source, sha256, err) : 0;
}

static int resolve_local(const struct oci_source *source, char *sha256, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {.max = OCI_MANIFEST_BYTES_MAX};
	CLEANUP(close_p) int fd = -1;
	char block[4096];
	ssize_t got = 0;
	int status = open_local(source, "index.json", OCI_MANIFEST_BYTES_MAX, &fd, err);

	if (status == 0 && lseek(fd, 0, SEEK_SET) < 0) {
		status = error_sys(err, errno, "rewind index.json");
	}
	while (status == 0 && (got = read(fd, block, sizeof(block))) > 0) {
		if (!buffer_add(&text, block, (size_t)got)) {
			status = error_set(err, ERROR_LIMIT, "index.json is over %d bytes",
				OCI_MANIFEST_BYTES_MAX);
		}
	}
	if (status == 0 && got < 0) {
		status = error_sys(err, errno, "read index.json");
	}
	return status < 0 ? status : oci_layout_parse(buffer_text(&text), text.length, sha256, err);
}

int oci_source_resolve(struct oci_source *source, char *sha256, struct error *err)
{
	const char *tag = source->place.reference->tag;
	CLEANUP(free_p)
	char *url = xasprintf("%s/manifests/%s", source->base, tag != NULL ? tag : "latest");
	struct reply reply = {.source = source};
	int status = 0;

	if (source->place.local_fd >= 0) {
		return resolve_local(source, sha256, err);
	}
	buffer_init(&reply.body, OCI_MANIFEST_BYTES_MAX);
	for (int i = 0; status == 0 && i < 2; i++) {
		buffer_clear(&reply.body);
		status = request(source, url, source->authorization, REQUEST_SECONDS, &reply, err);
		if (status < 0 || reply.http != 401) {
			break;
		}
		status = authorize(source, err);
	}
	if (status == 0 && reply.http == 401) {
		status = refused(source, source->place.reference->host, err);
	} else if (status == 0 && reply.http == 404) {
		error_set(err, ERROR_NOT_FOUND, "%s has no %s:%s", source->place.reference->host,
			source->place.reference->repository, tag != NULL ? tag : "latest");
		status = error_hint(err, "check the name and the tag");
	} else if (status == 0 && reply.http != 200) {
		status = error_set(err, ERROR_REMOTE, "%s answers %ld",
			source->place.reference->host, reply.http);
	}
	if (status == 0) {
		digest_of(buffer_text(&reply.body), reply.body.length, sha256);
	}
	buffer_done(&reply.body);
	return status;
}

/* ---- the connection ---- */

/* Loopback speaks http as a rule; one that does not is told by its answer. */
static bool speaks_http(struct oci_source *source, const char *host)
{
	CLEANUP(free_p) char *url = xasprintf("http://%s/v2/", host);
	struct error ignored = ERROR_INIT;
	struct reply reply = {.http = 0};
	bool good;

	buffer_init(&reply.body, TOKEN_BYTES_MAX);
	good = request(source, url, NULL, PROBE_SECONDS, &reply, &ignored) == 0 &&
	       reply.http != 400;
	buffer_done(&reply.body);
	return good || reply.http == 0;
}

int oci_source_open(struct child *child, const struct oci_place *place,
	struct oci_source **ret_source, struct error *err)
{
	const struct oci_reference *reference = place->reference;
	struct oci_source *source;
	const char *host = reference->host;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		return error_set(err, ERROR_INTERNAL, "libcurl does not start");
	}
	source = xcalloc(1, sizeof(*source));
	source->child = child;
	source->place = *place;
	if (reference->path == NULL) {
		source->secure = !oci_host_is_loopback(host) || !speaks_http(source, host);
		source->base = xasprintf("%s://%s/v2/%s", source->secure ? "https" : "http",
			streq(host, "docker.io") ? "registry-1.docker.io" : host,
			reference->repository);
	}
	*ret_source = source;
	return 0;
}

void oci_source_close(struct oci_source *source)
{
	if (source->authorization != NULL) {
		explicit_bzero(source->authorization, strlen(source->authorization));
	}
	free(source->authorization);
	free(source->base);
	free(source);
}
