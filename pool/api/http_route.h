/* Which handler a method and path belong to. Patterns are literal segments, "*" for one segment
 * and, at the end only, "**" for all the rest. Pure. */
#ifndef HOB_POOL_API_HTTP_ROUTE_H
#define HOB_POOL_API_HTTP_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

struct http_request;

#define ROUTE_ARGS_MAX 2
#define ROUTE_ARG_SIZE 128 /* ids and names are at most 64 */

enum route_flag {
	ROUTE_STREAMS = 1, /* handle runs before the body, which it takes as it comes */
	ROUTE_WAKES = 2, /* a dormant sandbox is started again before it is handled */
};

struct route {
	const char *method;
	const char *pattern;
	void (*handle)(struct http_request *request);
	unsigned flags; /* of enum route_flag */
};

struct route_match {
	const struct route *route; /* NULL: none */
	char args[ROUTE_ARGS_MAX][ROUTE_ARG_SIZE];
	const char *rest; /* of "**": points into the path, without the leading '/' */
	bool other_method; /* the path exists, for another method */
};

/* The table ends with a row without a method. HEAD is answered as GET. */
struct route_match route_find(const struct route *routes, const char *method, const char *path);

#endif
