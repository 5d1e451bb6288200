/*
 * Measures people who type: each client says `warm` at every keystroke and then claims by its key,
 * again and again, over one connection of its own. Prints one JSON object: the first keystroke
 * (which reserves), the others (which renew), the claim, and from the first keystroke to the
 * claim's answer when there is no pause between them.
 */
#include "base/json.h"
#include "base/memory.h"
#include "tests/lib/bench_kit.h"

#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>

#define CLIENTS_MAX 1024

struct options {
	const char *socket;
	const char *environment;
	size_t clients;
	size_t claims; /* of each client */
	size_t keystrokes; /* before each claim */
	int64_t pace_us; /* between two requests of one client; 0: at once */
};

enum request_kind { FIRST, RENEWAL, CLAIM, WHOLE, KINDS };

static const char *const kind_names[] = {
	[FIRST] = "first", [RENEWAL] = "renewal", [CLAIM] = "claim", [WHOLE] = "first_to_claimed"};
_Static_assert(ARRAY_SIZE(kind_names) == KINDS, "every kind has a name");

struct person {
	struct http_client *http;
	char *body; /* of each request */
	size_t step; /* of keystrokes + 1 */
	size_t claimed;
	bool waiting;
	double sent_at, began_at, next_at;
};

struct bench {
	struct options options;
	struct person *people;
	struct samples samples[KINDS];
	struct claims claims;
};

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
		person->body = xasprintf(
			"{\"environment\":\"%s\",\"key\":\"bench-%zu\"}", options->environment, i);
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
		free(person->body);
	}
	free(bench->people);
}

static enum request_kind next_request(const struct bench *bench, const struct person *person)
{
	if (person->step == bench->options.keystrokes) {
		return CLAIM;
	}
	return person->step == 0 ? FIRST : RENEWAL;
}

static void send_next(const struct bench *bench, struct person *person)
{
	bool claims = next_request(bench, person) == CLAIM;

	http_prepare(person->http, "POST", claims ? "/v1/sandboxes" : "/v1/warm", person->body);
	person->waiting = true;
	person->sent_at = now_us();
	if (person->step == 0) {
		person->began_at = person->sent_at;
	}
	http_send(person->http);
}

static void answered(struct bench *bench, struct person *person)
{
	double now = now_us();
	enum request_kind kind = next_request(bench, person);

	samples_add(&bench->samples[kind], now - person->sent_at);
	person->waiting = false;
	person->next_at += (double)bench->options.pace_us;
	if (kind == CLAIM) {
		samples_add(&bench->samples[WHOLE], now - person->began_at);
		claims_add(&bench->claims, person->http);
		person->claimed++;
		person->step = 0;
	} else if (http_status(person->http) == 200) {
		person->step++;
	} else {
		bench_fail(person->http, "warm");
	}
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

static void print(struct bench *bench)
{
	json_t *json = json_pack("{s:I}", "hinted", (json_int_t)bench->claims.from_pool);

	for (size_t i = 0; i < KINDS; i++) {
		json_object_set_new(json, kind_names[i], samples_json(&bench->samples[i]));
		samples_done(&bench->samples[i]);
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
	struct bench bench = {.options = {.clients = 1, .claims = 10, .keystrokes = 5},
		.claims = {.source = "hinted"}};
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
	claims_release(&bench.claims, bench.people[0].http);
	people_close(&bench);
	print(&bench);
	return 0;
}
