/* A benchmark has no use for half a result: whatever fails ends it. */
#include "tests/lib/bench_kit.h"

#include "base/memory.h"

#include <stdio.h>
#include <time.h>

double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void samples_add(struct samples *samples, double us)
{
	*array_add(&samples->us, &samples->count, &samples->room) = us;
}

double samples_at(struct samples *samples, double part)
{
	if (samples->count == 0) {
		return 0;
	}
	qsort(samples->us, samples->count, sizeof(double), compare);
	return samples->us[(size_t)((double)(samples->count - 1) * part + 0.5)];
}

json_t *samples_json(struct samples *samples)
{
	return json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)samples->count, "p50_us",
		samples_at(samples, 0.5), "p90_us", samples_at(samples, 0.9), "p99_us",
		samples_at(samples, 0.99), "max_us", samples_at(samples, 1));
}

void samples_done(struct samples *samples)
{
	free(samples->us);
}

_Noreturn void bench_fail(const struct http_client *client, const char *what)
{
	fprintf(stderr, "%s: %s answered %d: %s\n", program_invocation_short_name, what,
		http_status(client), http_body(client));
	exit(1);
}

void claims_add(struct claims *claims, const struct http_client *client)
{
	char source[16] = "";
	char(*id)[CLAIM_ID_SIZE] = array_add(&claims->ids, &claims->count, &claims->room);

	if (http_status(client) != 201 || !http_member(client, "id", *id, CLAIM_ID_SIZE) ||
		!http_member(client, "source", source, sizeof(source))) {
		bench_fail(client, "claim");
	}
	claims->from_pool += streq(source, claims->source) ? 1 : 0;
}

void claims_release(struct claims *claims, struct http_client *client)
{
	for (size_t i = 0; i < claims->count; i++) {
		CLEANUP(free_p) char *path = xasprintf("/v1/sandboxes/%s", claims->ids[i]);

		if (http_call(client, "DELETE", path, NULL) != 200) {
			bench_fail(client, "release");
		}
	}
	free(claims->ids);
	*claims = (struct claims){.source = claims->source, .from_pool = claims->from_pool};
}
