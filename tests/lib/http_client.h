/* A raw HTTP/1.1 client over a unix socket for measuring: one keep-alive connection, requests made
 * ahead, no allocation between send and answer. Not a general client: answers need Content-Length.
 */
#ifndef HOB_TESTS_LIB_HTTP_CLIENT_H
#define HOB_TESTS_LIB_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_ANSWER_MAX 65536

struct http_client {
	int fd; /* non-blocking; -1: closed */
	size_t sent, request_length;
	char *request; /* owned */
	char answer[HTTP_ANSWER_MAX];
	size_t received;
};

/* Connects, or ends the program with a message: a benchmark has no other use for failure. */
void http_open(struct http_client *client, const char *socket);
void http_close(struct http_client *client);
/* Puts a request together; body may be NULL. */
void http_prepare(
	struct http_client *client, const char *method, const char *path, const char *body);
/* Sends what is prepared. */
void http_send(struct http_client *client);
/* Reads what is there; true when the answer is whole. */
bool http_receive(struct http_client *client);
/* Sends and waits; returns the status. */
int http_call(struct http_client *client, const char *method, const char *path, const char *body);

int http_status(const struct http_client *client);
const char *http_body(const struct http_client *client);
/* A string member of the body, by its first occurrence; false if it is not there. */
bool http_member(const struct http_client *client, const char *key, char *text, size_t size);

#endif
