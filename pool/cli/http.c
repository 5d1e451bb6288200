/* One easy handle for all requests. A reply is either collected (JSON, and errors of any kind) or
 * handed on as it comes; what is collected has a cap. */
#include "pool/cli/http.h"

#include "base/buffer.h"
#include "base/memory.h"

#include <curl/curl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Two captured streams of 8 MiB, worst case all escapes, and more than any list. */
#define REPLY_MAX (128 * 1024 * 1024)
/* Of libcurl, each way: fewer calls for large files. */
#define BUFFER_BYTES (256 * 1024L)

struct http {
	CURL *curl;
	char *socket;
};

struct transfer {
	struct http *http;
	const struct http_request *request;
	struct http_reply *reply;
	struct buffer collected;
	bool decided, streams; /* set with the first byte of the body */
	int failure; /* of a callback; err says which */
	struct error *err;
};

static void address_of(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path, path, strlen(path));
}

int socket_connect(const char *path, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct sockaddr_un address;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return error_set(err, ERROR_INVALID, "the socket's path is too long: %s", path);
	}
	address_of(path, &address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return error_sys(err, errno, "make a socket");
	}
	if (connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) == 0) {
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	switch (errno) {
	case ENOENT:
	case ENOTDIR:
		error_set(err, ERROR_UNAVAILABLE, "hobd is not running (no socket at %s)", path);
		return error_hint(err,
			"start it: `systemctl start hobd`, or `hobd` as root; a socket "
			"elsewhere is named by --socket or $HOB_SOCKET");
	case ECONNREFUSED:
		error_set(
			err, ERROR_UNAVAILABLE, "hobd is not running (nobody listens at %s)", path);
		return error_hint(err, "start it: `systemctl start hobd`, or `hobd` as root");
	case EACCES:
	case EPERM:
		error_set(err, ERROR_DENIED, "no permission for hobd's socket %s", path);
		return error_hint(err, "it is for root and members of group hob: `usermod -aG hob "
				       "$USER`, then log in again");
	default:
		return error_sys(err, errno, "connect to hobd at %s", path);
	}
}

int http_open(const char *socket_path, struct http **ret_http, struct error *err)
{
	struct http *http;
	CURL *curl;

	if (curl_global_init(CURL_GLOBAL_NOTHING) != 0 || (curl = curl_easy_init()) == NULL) {
		return error_set(err, ERROR_INTERNAL, "libcurl did not start");
	}
	http = xcalloc(1, sizeof(*http));
	http->curl = curl;
	http->socket = xstrdup(socket_path);
	*ret_http = http;
	return 0;
}

void http_close(struct http *http)
{
	if (http != NULL) {
		curl_easy_cleanup(http->curl);
		free(http->socket);
		free(http);
	}
}

int http_error_from_reply(int status, const char *body, size_t length, struct error *err)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(json_decref_p) json_t *json = NULL;
	const json_t *error = NULL;

	if (json_parse_object(body, length, &json, &ignored) >= 0) {
		error = json_object_get(json, "error");
	}
	if (!json_is_string(json_object_get(error, "kind")) ||
		!json_is_string(json_object_get(error, "message"))) {
		return error_set(err, ERROR_INTERNAL, "hobd answered HTTP %d: %.*s", status,
			(int)(length < 200 ? length : 200), length > 0 ? body : "");
	}
	return json_to_error(error, ERROR_INTERNAL, "", err);
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
	static const char mode_name[] = "X-Hob-Mode:";
	struct transfer *transfer = context;
	size_t length = size * count;

	if (length > sizeof(mode_name) - 1 &&
		strncasecmp(line, mode_name, sizeof(mode_name) - 1) == 0) {
		CLEANUP(free_p)
		char *value =
			xstrndup(line + sizeof(mode_name) - 1, length - (sizeof(mode_name) - 1));

		transfer->reply->mode = strtol(value, NULL, 8) & 07777;
	}
	return length;
}

/* Once, before the first byte of the body, when status and type are known. */
static void transfer_decide(struct transfer *transfer)
{
	const char *type = NULL;
	long status = 0;
	curl_off_t bytes = -1;

	curl_easy_getinfo(transfer->http->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(transfer->http->curl, CURLINFO_CONTENT_TYPE, &type);
	curl_easy_getinfo(transfer->http->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &bytes);
	transfer->reply->status = (int)status;
	transfer->reply->bytes = bytes;
	transfer->streams = transfer->request->data != NULL && status < 300 &&
			    (type == NULL || !str_starts(type, "application/json"));
	transfer->decided = true;
}

static size_t on_data(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	size_t length = size * count;

	if (!transfer->decided) {
		transfer_decide(transfer);
	}
	if (transfer->streams) {
		transfer->failure = transfer->request->data(
			transfer->request->context, data, length, transfer->err);
	} else if (!buffer_add(&transfer->collected, data, length)) {
		transfer->failure = error_set(
			transfer->err, ERROR_LIMIT, "the answer is over %d MiB", REPLY_MAX >> 20);
	}
	return transfer->failure < 0 ? 0 : length;
}

static size_t on_upload(char *data, size_t size, size_t count, void *context)
{
	struct transfer *transfer = context;
	ssize_t got = transfer->request->upload(
		transfer->request->context, data, size * count, transfer->err);

	if (got < 0) {
		transfer->failure = (int)got;
		return CURL_READFUNC_ABORT;
	}
	return (size_t)got;
}

static void set_body(CURL *curl, struct transfer *transfer, const char *text)
{
	const struct http_request *request = transfer->request;

	if (request->upload != NULL) {
		curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
		curl_easy_setopt(curl, CURLOPT_READDATA, transfer);
		curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->upload_bytes);
	} else if (text != NULL || streq(request->method, "POST")) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text != NULL ? text : "");
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
			(curl_off_t)(text != NULL ? strlen(text) : 0));
	}
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
}

static struct curl_slist *header_list(const struct http_request *request)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	if (request->body != NULL) {
		list = curl_slist_append(list, "Content-Type: application/json");
	} else if (request->upload != NULL) {
		list = curl_slist_append(list, "Content-Type: application/octet-stream");
	}
	if (request->accept != NULL) {
		CLEANUP(free_p) char *line = xasprintf("Accept: %s", request->accept);

		list = curl_slist_append(list, line);
	}
	return list;
}

static CURLcode perform(struct transfer *transfer, const char *text)
{
	CURL *curl = transfer->http->curl;
	CLEANUP(free_p) char *url = xasprintf("http://hob%s", transfer->request->path);
	struct curl_slist *headers = header_list(transfer->request);
	CURLcode code;

	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, transfer->http->socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
	set_body(curl, transfer, text);
	code = curl_easy_perform(curl);
	curl_slist_free_all(headers);
	return code;
}

/* Why libcurl gave up, in the words of whoever sits before hobd. */
static int transfer_failure(struct transfer *transfer, CURLcode code)
{
	int fd = -1;
	int status;

	if (transfer->failure < 0) {
		return transfer->failure;
	}
	if (code == CURLE_COULDNT_CONNECT) {
		status = socket_connect(transfer->http->socket, &fd, transfer->err);
		fd_done(&fd);
		if (status < 0) {
			return status;
		}
	}
	return error_set(transfer->err, ERROR_UNAVAILABLE, "%s %s: hobd ended the connection: %s",
		transfer->request->method, transfer->request->path, curl_easy_strerror(code));
}

int http_run(struct http *http, const struct http_request *request, struct http_reply *ret_reply,
	struct error *err)
{
	CLEANUP(free_p) char *text = request->body != NULL ? json_text(request->body) : NULL;
	struct http_reply reply = {.mode = -1, .bytes = -1};
	struct transfer transfer = {.http = http, .request = request, .reply = &reply, .err = err};
	struct error not_json = ERROR_INIT;
	CURLcode code;
	int status = 0;

	buffer_init(&transfer.collected, REPLY_MAX);
	code = perform(&transfer, text);
	if (!transfer.decided) {
		transfer_decide(&transfer);
	}
	/* An early refusal of an upload cuts the sending short, but its answer is what counts. */
	if (transfer.failure >= 0 && reply.status >= 400) {
		status = http_error_from_reply(reply.status, buffer_text(&transfer.collected),
			transfer.collected.length, err);
	} else if (code != CURLE_OK) {
		status = transfer_failure(&transfer, code);
	} else if (!transfer.streams &&
		   json_parse_object(buffer_text(&transfer.collected), transfer.collected.length,
			   &reply.json, &not_json) < 0) {
		reply.json = NULL;
	}
	buffer_done(&transfer.collected);
	if (status >= 0) {
		*ret_reply = reply;
	}
	return status;
}
