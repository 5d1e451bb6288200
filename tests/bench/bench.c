/*
 * The measuring client of `make bench`: each mode times one path through the API over the unix
 * socket and prints one JSON object with microseconds. tests/bench/run starts the daemon, calls the
 * modes and puts the rivals beside them.
 */
#include "base/json.h"
#include "base/memory.h"
#include "tests/lib/bench_kit.h"

#include <getopt.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;

#define CLIENTS_MAX 1024

struct options {
	const char *socket;
	const char *environment;
	size_t clients;
	size_t count;
	int64_t pace_us; /* between two requests of one client; 0: at once */
	char **command; /* spawn: what to start */
};

static struct http_client *client_new(const struct options *options)
{
	struct http_client *client = xmalloc(sizeof(*client));

	http_open(client, options->socket);
	return client;
}

static void client_free(struct http_client *client)
{
	http_close(client);
	free(client);
}

/* How long the claims took, and how many were warm. */
static json_t *claim_json(struct samples *samples, const struct claims *claims)
{
	json_t *json = samples_json(samples);

	json_object_set_new(json, "warm", json_integer((json_int_t)claims->from_pool));
	return json;
}

/* ---- claim: `clients` connections, each with one request under way at a time ---- */

struct claimer {
	struct http_client *http;
	double sent_at, next_at;
	bool waiting;
};

static void claimers_open(const struct options *options, struct claimer *claimers)
{
	CLEANUP(free_p) char *body = xasprintf("{\"environment\":\"%s\"}", options->environment);
	double start = now_us();

	for (size_t i = 0; i < options->clients; i++) {
		claimers[i].http = client_new(options);
		/* One small request first, so that accepting the connection is not measured. */
		(void)http_call(claimers[i].http, "GET", "/healthz", NULL);
		http_prepare(claimers[i].http, "POST", "/v1/sandboxes", body);
		claimers[i].next_at =
			start + (double)options->pace_us * (double)i / (double)options->clients;
	}
}

static void claimers_close(const struct options *options, struct claimer *claimers)
{
	for (size_t i = 0; i < options->clients; i++) {
		client_free(claimers[i].http);
	}
}

/* Sends what is due; returns how long to wait, at most until the next is. */
static double send_due(const struct options *options, struct claimer *claimers, size_t *started)
{
	double now = now_us(), wait = 1e6;

	for (size_t i = 0; i < options->clients && *started < options->count; i++) {
		struct claimer *claimer = &claimers[i];

		if (claimer->waiting) {
			continue;
		}
		if (claimer->next_at > now) {
			wait = claimer->next_at - now < wait ? claimer->next_at - now : wait;
			continue;
		}
		claimer->waiting = true;
		claimer->sent_at = now_us();
		http_send(claimer->http);
		(*started)++;
	}
	return wait;
}

static void wait_for_answers(
	const struct options *options, const struct claimer *claimers, double wait_us)
{
	struct pollfd ready[CLIENTS_MAX];
	struct timespec wait = {(time_t)(wait_us / 1e6), (long)((int64_t)wait_us % 1000000 * 1000)};

	for (size_t i = 0; i < options->clients; i++) {
		ready[i] = (struct pollfd){.fd = claimers[i].http->fd, .events = POLLIN};
	}
	(void)ppoll(ready, options->clients, &wait, NULL);
}

/* Returns microseconds from the first request sent to the last answer. */
static double run_claims(
	const struct options *options, struct samples *samples, struct claims *claims)
{
	double first_sent, last_answered = 0;
	CLEANUP(free_p) struct claimer *claimers = xcalloc(options->clients, sizeof(*claimers));
	size_t started = 0;

	claimers_open(options, claimers);
	first_sent = now_us();
	while (samples->count < options->count) {
		double wait = send_due(options, claimers, &started);

		wait_for_answers(options, claimers, wait);
		for (size_t i = 0; i < options->clients; i++) {
			struct claimer *claimer = &claimers[i];

			if (claimer->waiting && http_receive(claimer->http)) {
				last_answered = now_us();
				claimer->waiting = false;
				claimer->next_at += (double)options->pace_us;
				samples_add(samples, last_answered - claimer->sent_at);
				claims_add(claims, claimer->http);
			}
		}
	}
	claimers_close(options, claimers);
	return last_answered - first_sent;
}

static json_t *mode_claim(const struct options *options)
{
	struct http_client *client = client_new(options);
	struct samples samples = {0};
	struct claims claims = {.source = "warm"};
	double total_us = run_claims(options, &samples, &claims);
	json_t *result = claim_json(&samples, &claims);

	json_object_set_new(result, "total_us", json_real(total_us));
	claims_release(&claims, client);
	samples_done(&samples);
	client_free(client);
	return result;
}

/* ---- exec ---- */

static double spawn_us(char *const *argv)
{
	double start = now_us();
	pid_t pid;
	int status;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0 ||
		waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "bench: %s failed\n", argv[0]);
		exit(1);
	}
	return now_us() - start;
}

static void claim_one(
	struct http_client *client, const struct options *options, struct claims *claims)
{
	CLEANUP(free_p) char *body = xasprintf("{\"environment\":\"%s\"}", options->environment);

	(void)http_call(client, "POST", "/v1/sandboxes", body);
	claims_add(claims, client);
}

static void exec_true(struct http_client *client, const char *id)
{
	CLEANUP(free_p) char *path = xasprintf("/v1/sandboxes/%s/exec", id);

	if (http_call(client, "POST", path, "{\"argv\":[\"/bin/true\"]}") != 200 ||
		strstr(http_body(client), "\"exit_code\":0") == NULL) {
		bench_fail(client, "exec");
	}
}

static json_t *mode_exec(const struct options *options)
{
	struct http_client *client = client_new(options);
	struct samples inside = {0}, host = {0};
	struct claims claims = {.source = "warm"};
	char *const command[] = {(char *)(uintptr_t) "/bin/true", NULL};
	json_t *result;

	claim_one(client, options, &claims);
	exec_true(client, claims.ids[0]);
	for (size_t i = 0; i < options->count; i++) {
		double start = now_us();

		exec_true(client, claims.ids[0]);
		samples_add(&inside, now_us() - start);
		samples_add(&host, spawn_us(command));
	}
	result = samples_json(&inside);
	json_object_set_new(result, "host", samples_json(&host));
	claims_release(&claims, client);
	samples_done(&inside);
	samples_done(&host);
	client_free(client);
	return result;
}

/* ---- cold create to the end of the first command, and destroy ---- */

static json_t *mode_cold(const struct options *options)
{
	struct http_client *client = client_new(options);
	struct samples create = {0}, first = {0}, destroy = {0};
	struct claims claims = {.source = "warm"};
	json_t *result;

	for (size_t i = 0; i < options->count; i++) {
		double start = now_us(), created, ran;
		CLEANUP(free_p) char *path = NULL;

		claim_one(client, options, &claims);
		created = now_us();
		exec_true(client, claims.ids[i]);
		ran = now_us();
		path = xasprintf("/v1/sandboxes/%s", claims.ids[i]);
		if (http_call(client, "DELETE", path, NULL) != 200) {
			bench_fail(client, "destroy");
		}
		samples_add(&create, created - start);
		samples_add(&first, ran - start);
		samples_add(&destroy, now_us() - ran);
	}
	result = json_pack("{s:o, s:o, s:o}", "create", claim_json(&create, &claims),
		"first_command", samples_json(&first), "destroy", samples_json(&destroy));
	free(claims.ids); /* gone already */
	samples_done(&create);
	samples_done(&first);
	samples_done(&destroy);
	client_free(client);
	return result;
}

/* ---- standing still ---- */

static double timed_post(struct http_client *client, const char *id, const char *verb)
{
	CLEANUP(free_p) char *path = xasprintf("/v1/sandboxes/%s/%s", id, verb);
	double start = now_us();

	if (http_call(client, "POST", path, "{}") != 200) {
		bench_fail(client, verb);
	}
	return now_us() - start;
}

/* A claim to the end of its first command; then pause and resume, and a command that has to wake
 * the sandbox beside one that has not. `warm` of the claims says how many were. */
static json_t *mode_still(const struct options *options)
{
	struct http_client *client = client_new(options);
	struct samples claim = {0}, first = {0}, pause = {0}, resume = {0}, asleep = {0},
		       awake = {0};
	struct claims claims = {.source = "warm"};
	json_t *result;

	for (size_t i = 0; i < options->count; i++) {
		double start = now_us(), then;
		const char *id;

		claim_one(client, options, &claims);
		samples_add(&claim, now_us() - start);
		id = claims.ids[i];
		exec_true(client, id);
		samples_add(&first, now_us() - start);
		samples_add(&pause, timed_post(client, id, "pause"));
		samples_add(&resume, timed_post(client, id, "resume"));
		then = now_us();
		exec_true(client, id);
		samples_add(&awake, now_us() - then);
		(void)timed_post(client, id, "pause");
		then = now_us();
		exec_true(client, id);
		samples_add(&asleep, now_us() - then);
	}
	result = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "claim", claim_json(&claim, &claims),
		"first_command", samples_json(&first), "pause", samples_json(&pause), "resume",
		samples_json(&resume), "exec", samples_json(&awake), "exec_paused",
		samples_json(&asleep));
	claims_release(&claims, client);
	samples_done(&claim);
	samples_done(&first);
	samples_done(&pause);
	samples_done(&resume);
	samples_done(&asleep);
	samples_done(&awake);
	client_free(client);
	return result;
}

/* Any command of the host, for the rivals: from its start to its exit. */
static json_t *mode_spawn(const struct options *options)
{
	struct samples samples = {0};
	json_t *result;

	for (size_t i = 0; i < options->count; i++) {
		samples_add(&samples, spawn_us(options->command));
	}
	result = samples_json(&samples);
	samples_done(&samples);
	return result;
}

/* ---- wiring ---- */

static const struct mode {
	const char *name;
	json_t *(*run)(const struct options *options);
} modes[] = {{"claim", mode_claim}, {"exec", mode_exec}, {"cold", mode_cold}, {"still", mode_still},
	{"spawn", mode_spawn}};

static const struct option long_options[] = {{"socket", required_argument, NULL, 's'},
	{"environment", required_argument, NULL, 'e'}, {"clients", required_argument, NULL, 'c'},
	{"count", required_argument, NULL, 'n'}, {"pace-us", required_argument, NULL, 'p'}, {0}};

static int usage(void)
{
	fputs("usage: bench --socket PATH --environment NAME [--clients N] [--count N]\n"
	      "             [--pace-us N] {claim|exec|cold|still}\n"
	      "       bench [--count N] spawn -- COMMAND...\n",
		stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct options options = {.clients = 1, .count = 100};
	const struct rlimit files = {4096, 4096};
	int letter;

	(void)setrlimit(RLIMIT_NOFILE, &files);
	while ((letter = getopt_long(argc, argv, "+", long_options, NULL)) != -1) {
		switch (letter) {
		case 's':
			options.socket = optarg;
			break;
		case 'e':
			options.environment = optarg;
			break;
		case 'c':
			options.clients = strtoul(optarg, NULL, 10);
			break;
		case 'n':
			options.count = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			options.pace_us = strtol(optarg, NULL, 10);
			break;
		default:
			return usage();
		}
	}
	if (optind >= argc) {
		return usage();
	}
	options.command = argv + optind + 1;
	if (options.command[0] != NULL && streq(options.command[0], "--")) {
		options.command++;
	}
	if (streq(argv[optind], "spawn") ? options.command[0] == NULL
					 : options.socket == NULL || options.environment == NULL) {
		return usage();
	}
	if (options.clients < 1 || options.clients > CLIENTS_MAX || options.count < 1) {
		return usage();
	}
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (streq(modes[i].name, argv[optind])) {
			json_t *result = modes[i].run(&options);

			json_print(result);
			json_decref(result);
			return 0;
		}
	}
	return usage();
}
