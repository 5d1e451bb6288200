/*
 * Measures people who type: each client says `warm` at every keystroke and then claims by its key,
 * again and again, over one connection of its own. Prints one JSON object: the first keystroke
 * (which reserves), the others (which renew), the claim, and from the first keystroke to the
 * claim's answer when there is no pause between them.
 */
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "tests/lib/http_client.h"

#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define CLIENTS_MAX 1024
#define ID_MAX 64

struct options {
	const char *socket;
	const char *environment;
	size_t clients;
	size_t claims; /* of each client */
	size_t keystrokes; /* before each claim */
	int64_t pace_us; /* between two requests of one client; 0: at once */
};

struct samples {
	double *us;
	size_t count, room;
};

enum request_kind { FIRST, RENEWAL, CLAIM, WHOLE, KINDS };

static const char *const kind_names[] = {
	[FIRST] = "first", [RENEWAL] = "renewal", [CLAIM] = "claim", [WHOLE] = "first_to_claimed"};
_Static_assert(ARRAY_SIZE(kind_names) == KINDS, "every kind has a name");

struct person {
	struct http_client *http;
	char *warm, *claim; /* bodies */
	size_t step; /* of keystrokes + 1 */
	size_t claimed;
	bool waiting;
	double sent_at, began_at, next_at;
};

struct bench {
	struct options options;
	struct person *people;
	struct samples samples[KINDS];
	size_t hinted;
	char (*ids)[ID_MAX];
	size_t id_count, id_room;
};

static double now_us(void)
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

static double percentile(const struct samples *samples, double part)
{
	size_t place = (size_t)((double)(samples->count - 1) * part + 0.5);

	return samples->count > 0 ? samples->us[place] : 0;
}

static json_t *samples_json(struct samples *samples)
{
	if (samples->count > 0) {
		qsort(samples->us, samples->count, sizeof(double), compare);
	}
	return json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)samples->count, "p50_us",
		percentile(samples, 0.5), "p99_us", percentile(samples, 0.99), "max_us",
		percentile(samples, 1));
}

static void add(struct bench *bench, enum request_kind kind, double us)
{
	struct samples *samples = &bench->samples[kind];

	*array_add(&samples->us, &samples->count, &samples->room) = us;
}

static void people_open(struct bench *bench)
{
	const struct options *options = &bench->options;
	double start = now_us();

	bench->people = xcalloc(options->clients, sizeof(*bench->people));
	for (size_t i = 0; i < options->clients; i++) {
		struct person *person = &bench->people[i];

		person->http = xmalloc(sizeof(*person->http));
		http_open(person->http, options->socket);
		/* One small request first, so that accepting the connection is not measured. */
		(void)http_call(person->http, "GET", "/healthz", NULL);
		person->warm = xasprintf(
			"{\"environment\":\"%s\",\"key\":\"bench-%zu\"}", options->environment, i);
		person->claim = xstrdup(person->warm);
		person->next_at =
			start + (double)options->pace_us * (double)i / (double)options->clients;
	}
}

static void people_close(struct bench *bench)
{
	for (size_t i = 0; i < bench->options.clients; i++) {
		struct person *person = &bench->people[i];

		http_close(person->http);
		free(person->http);
		free(person->warm);
		free(person->claim);
	}
	free(bench->people);
}

static void send_next(const struct bench *bench, struct person *person)
{
	bool claims = person->step == bench->options.keystrokes;

	http_prepare(person->http, "POST", claims ? "/v1/sandboxes" : "/v1/warm",
		claims ? person->claim : person->warm);
	person->waiting = true;
	person->sent_at = now_us();
	if (person->step == 0) {
		person->began_at = person->sent_at;
	}
	http_send(person->http);
}

static void note_claim(struct bench *bench, const struct http_client *client)
{
	char source[16] = "";
	char(*id)[ID_MAX] = array_add(&bench->ids, &bench->id_count, &bench->id_room);

	if (!http_member(client, "id", *id, ID_MAX) ||
		!http_member(client, "source", source, sizeof(source))) {
		fprintf(stderr, "hints: no sandbox in: %s\n", http_body(client));
		exit(1);
	}
	bench->hinted += streq(source, "hinted") ? 1 : 0;
}

static void answered(struct bench *bench, struct person *person)
{
	double now = now_us();
	bool claims = person->step == bench->options.keystrokes;

	if (http_status(person->http) != (claims ? 201 : 200)) {
		fprintf(stderr, "hints: answered %d: %s\n", http_status(person->http),
			http_body(person->http));
		exit(1);
	}
	add(bench, claims ? CLAIM : person->step == 0 ? FIRST : RENEWAL, now - person->sent_at);
	person->waiting = false;
	person->next_at += (double)bench->options.pace_us;
	if (claims) {
		add(bench, WHOLE, now - person->began_at);
		note_claim(bench, person->http);
		person->claimed++;
	}
	person->step = claims ? 0 : person->step + 1;
}

/* Sends what is due; returns how long to wait, at most until the next is. */
static double send_due(struct bench *bench)
{
	double now = now_us(), wait = 1e6;

	for (size_t i = 0; i < bench->options.clients; i++) {
		struct person *person = &bench->people[i];

		if (person->waiting || person->claimed == bench->options.claims) {
			continue;
		}
		if (person->next_at > now) {
			wait = person->next_at - now < wait ? person->next_at - now : wait;
		} else {
			send_next(bench, person);
		}
	}
	return wait;
}

static void run(struct bench *bench)
{
	size_t clients = bench->options.clients;
	struct pollfd ready[CLIENTS_MAX];

	for (size_t i = 0; i < clients; i++) {
		ready[i] = (struct pollfd){.fd = bench->people[i].http->fd, .events = POLLIN};
	}
	while (bench->samples[CLAIM].count < clients * bench->options.claims) {
		double wait_us = send_due(bench);
		struct timespec wait = {
			(time_t)(wait_us / 1e6), (long)((int64_t)wait_us % 1000000 * 1000)};

		(void)ppoll(ready, clients, &wait, NULL);
		for (size_t i = 0; i < clients; i++) {
			struct person *person = &bench->people[i];

			if (person->waiting && http_receive(person->http)) {
				answered(bench, person);
			}
		}
	}
}

static void release_all(struct bench *bench)
{
	struct http_client *client = bench->people[0].http;

	for (size_t i = 0; i < bench->id_count; i++) {
		CLEANUP(free_p) char *path = xasprintf("/v1/sandboxes/%s", bench->ids[i]);

		if (http_call(client, "DELETE", path, NULL) != 200) {
			fprintf(stderr, "hints: release answered %d\n", http_status(client));
			exit(1);
		}
	}
	free(bench->ids);
}

static void print(struct bench *bench)
{
	json_t *json = json_pack("{s:I}", "hinted", (json_int_t)bench->hinted);

	for (size_t i = 0; i < KINDS; i++) {
		json_object_set_new(json, kind_names[i], samples_json(&bench->samples[i]));
		free(bench->samples[i].us);
	}
	json_print(json);
	json_decref(json);
}

static bool read_options(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {{"socket", required_argument, NULL, 's'},
		{"environment", required_argument, NULL, 'e'},
		{"clients", required_argument, NULL, 'c'}, {"claims", required_argument, NULL, 'n'},
		{"keystrokes", required_argument, NULL, 'k'},
		{"pace-us", required_argument, NULL, 'p'}, {0}};
	int letter;

	while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (letter) {
		case 's':
			options->socket = optarg;
			break;
		case 'e':
			options->environment = optarg;
			break;
		case 'c':
			options->clients = strtoul(optarg, NULL, 10);
			break;
		case 'n':
			options->claims = strtoul(optarg, NULL, 10);
			break;
		case 'k':
			options->keystrokes = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			options->pace_us = strtol(optarg, NULL, 10);
			break;
		default:
			return false;
		}
	}
	return optind == argc && options->socket != NULL && options->environment != NULL &&
	       options->clients >= 1 && options->clients <= CLIENTS_MAX && options->claims >= 1 &&
	       options->keystrokes >= 1;
}

int main(int argc, char **argv)
{
	struct bench bench = {.options = {.clients = 1, .claims = 10, .keystrokes = 5}};
	const struct rlimit files = {4096, 4096};

	if (!read_options(&bench.options, argc, argv)) {
		fputs("usage: hints --socket PATH --environment NAME [--clients N] [--claims N]\n"
		      "             [--keystrokes N] [--pace-us N]\n",
			stderr);
		return 2;
	}
	(void)setrlimit(RLIMIT_NOFILE, &files);
	people_open(&bench);
	run(&bench);
	release_all(&bench);
	people_close(&bench);
	print(&bench);
	return 0;
}
