/* What the measuring clients share: times and their percentiles, and the sandboxes they claimed. */
#ifndef HOB_TESTS_LIB_BENCH_KIT_H
#define HOB_TESTS_LIB_BENCH_KIT_H

#include "base/json.h"
#include "tests/lib/http_client.h"

/* Microseconds with their fraction, of the monotonic clock. */
double now_us(void);

struct samples {
	double *us;
	size_t count, room;
};

void samples_add(struct samples *samples, double us);
/* The percentile `part`, 0 to 1, 1 is the longest; 0 without samples. Sorts them. */
double samples_at(struct samples *samples, double part);
/* {count, p50_us, p90_us, p99_us, max_us}. The caller owns it. */
json_t *samples_json(struct samples *samples);
void samples_done(struct samples *samples);

#define CLAIM_ID_SIZE 64

struct claims {
	char (*ids)[CLAIM_ID_SIZE];
	size_t count, room;
	size_t from_pool; /* of them, those whose source was `source` */
	const char *source; /* "warm", "hinted" */
};

/* Keeps the id of a claim's answer, or ends the program if it is none. */
void claims_add(struct claims *claims, const struct http_client *client);
/* Ends them all and forgets them. */
void claims_release(struct claims *claims, struct http_client *client);
/* Ends the program with the answer in a message. */
_Noreturn void bench_fail(const struct http_client *client, const char *what);

#endif
