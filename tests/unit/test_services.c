/* What services are made of: the first bytes of an HTTP answer, back-off, their settings, logs and
 * probes of a real hob-init. */
#include "tests/lib/init_kit.h"
#include "tests/lib/environment_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/loop.h"
#include "configs/environment.h"
#include "pool/sandbox/init/http_status.h"
#include "pool/sandbox/services/services.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

/* ---- pure parts ---- */

static void check_status(const char *text, int status)
{
	assert_int_equal(http_status_read(text, strlen(text)), status);
}

static void test_http_status(void **state)
{
	char bytes[HTTP_STATUS_BYTES];

	(void)state;
	check_status("HTTP/1.1 200 OK\r\n", 200);
	check_status("HTTP/1.0 302\r\n", 302);
	check_status("HTTP/1.1 404\nX", 404);
	check_status("HTTP/1.1 599 \xff\xfe", 599);
	check_status("", 0);
	check_status("H", 0);
	check_status("HTTP/1.1 20", 0);
	check_status("HTTP/1.1 200", 0);
	check_status("HTTP/2.0 200 OK", -1);
	check_status("HTTP/1.x 200 OK", -1);
	check_status("HTTP/1.1  200 OK", -1);
	check_status("HTTP/1.1 2000 OK", -1);
	check_status("HTTP/1.1 099 OK", -1);
	check_status("HTTP/1.1 600 OK", -1);
	check_status("HTTP/1.1 -20 OK", -1);
	check_status("ICY 200 OK\r\n\r\n", -1);
	check_status("h", -1);
	/* Each wrong first byte is told at once, and no answer is read past its end. */
	for (int first = 0; first < 256; first++) {
		bytes[0] = (char)first;
		assert_int_equal(http_status_read(bytes, 1), first == 'H' ? 0 : -1);
	}
	memcpy(bytes, "HTTP/1.1 200", 12);
	for (int last = 0; last < 256; last++) {
		bool ends = last == ' ' || last == '\r' || last == '\n';

		bytes[12] = (char)last;
		assert_int_equal(http_status_read(bytes, sizeof(bytes)), ends ? 200 : -1);
	}
}

static void test_delays(void **state)
{
	(void)state;
	assert_int_equal(service_delay_ms(500, 30000, 1), 500);
	assert_int_equal(service_delay_ms(500, 30000, 2), 1000);
	assert_int_equal(service_delay_ms(500, 30000, 4), 4000);
	assert_int_equal(service_delay_ms(500, 30000, 7), 30000);
	assert_int_equal(service_delay_ms(500, 30000, 4000000000u), 30000);
	assert_int_equal(
		service_delay_ms(INT64_C(86400000), INT64_C(86400000), 50), INT64_C(86400000));
}

static void refuse(const char *text, const char *expected)
{
	struct error err;

	assert_contains(env_refuse(text, &err), expected);
}

#define ONE(keys) "name: e\nservices: [{name: a, run: x, " keys "}]\n"

static void test_settings(void **state)
{
	CLEANUP(environment_free_p)
	struct environment *e =
		env_parse("name: e\nservices:\n"
			  "  - name: web\n    run: npm start\n    env: {B: 2, A: 1}\n"
			  "    ready: {http: \"http://localhost:3000/up?x#frag\", timeout: 5s}\n"
			  "    restart: {attempts: 0}\n    on_refresh: signal\n"
			  "  - {name: db, run: db, ready: {tcp: 5432}, on_restore: skip}\n"
			  "prime: {run: make, on_failure: ignore}\n");
	CLEANUP(free_p) char *text = environment_explain(e);
	CLEANUP(environment_free_p) struct environment *again = env_parse(text);
	CLEANUP(free_p) char *request = NULL;
	uint16_t port = 0;

	(void)state;
	assert_int_equal(again->service_count, 2);
	assert_string_equal(again->warm_fingerprint, e->warm_fingerprint);
	assert_string_equal(again->services[0].env[0], "A=1");
	assert_string_equal(again->services[0].on_refresh, "signal");
	assert_int_equal(again->services[0].restart_attempts, 0);
	assert_int_equal(again->services[0].ready_timeout_ms, 5000);
	assert_true(again->services[0].on_restore);
	assert_false(again->services[1].on_restore);
	assert_true(again->prime.may_fail);
	request = service_request(&again->services[0], &port);
	assert_int_equal(port, 3000);
	assert_true(str_starts(request, "GET /up?x HTTP/1.1\r\nHost: localhost:3000\r\n"));
	assert_null(service_request(&again->services[1], &port));
	assert_int_equal(port, 5432);
}

static void test_settings_refused(void **state)
{
	(void)state;
	refuse(ONE("ready: {tcp: 0}"), "expects a port");
	refuse(ONE("ready: {tcp: 65536}"), "expects a port");
	refuse(ONE("ready: {tcp: 80x}"), "expects a port");
	refuse(ONE("ready: {http: \"http://example.com/\"}"), "expects http://127.0.0.1");
	refuse(ONE("ready: {http: \"http://127.0.0.1.example.com/\"}"), "expects http://127.0.0.1");
	refuse(ONE("ready: {http: \"https://127.0.0.1/\"}"), "expects http://127.0.0.1");
	refuse(ONE("ready: {http: \"http://127.0.0.1:0/\"}"), "expects http://127.0.0.1");
	refuse(ONE("ready: {http: \"http://127.0.0.1/\\r\\nX: y\"}"), "holds a space");
	refuse(ONE("ready: {tcp: 80, file: /x}"), "has 2 ways");
	refuse(ONE("ready: {file: x}"), "expects an absolute path");
	refuse(ONE("ready: up"), "\"ready\" expects a mapping");
	refuse(ONE("restart: {delay: 1m, max_delay: 1s}"), "less than its delay");
	refuse(ONE("on_refresh: reload"), "expects one of keep, restart, signal");
	refuse("name: e\nservices: [{name: a, run: x}, {name: a, run: y}]\n",
		"two services with the name \"a\"");
	refuse("name: e\nprime: {timeout: 5s}\n", "\"prime.run\" is missing");
}

/* Only what runs counts, not how long it may take; and the image knows nothing of it. */
static void test_fingerprints(void **state)
{
	CLEANUP(environment_free_p) struct environment *none = env_parse("name: e\n");
	CLEANUP(environment_free_p) struct environment *one = env_parse(ONE("ready: {tcp: 80}"));
	CLEANUP(environment_free_p)
	struct environment *slow = env_parse(ONE("ready: {tcp: 80, timeout: 1h}"));
	CLEANUP(environment_free_p) struct environment *other = env_parse(ONE("ready: {tcp: 81}"));
	CLEANUP(environment_free_p)
	struct environment *prime = env_parse("name: e\nprime: {run: x}\n");

	(void)state;
	assert_string_equal(none->warm_fingerprint, "");
	assert_string_equal(one->warm_fingerprint, slow->warm_fingerprint);
	assert_string_not_equal(one->warm_fingerprint, other->warm_fingerprint);
	assert_string_not_equal(prime->warm_fingerprint, "");
	assert_string_equal(none->fingerprint, one->fingerprint);
	assert_string_equal(none->fingerprint, prime->fingerprint);
}

/* ---- hob-init's part ---- */

struct log {
	struct init_kit *kit;
	struct init_file_handle *file;
	struct buffer text;
	bool done;
	uint64_t status;
	struct error error;
};

static void on_data(void *context, const void *data, size_t length)
{
	struct log *log = context;

	buffer_add(&log->text, data, length);
	init_file_consumed(log->file, length);
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct log *log = context;

	log->done = true;
	log->status = bytes;
	if (err != NULL) {
		error_copy(&log->error, err);
	}
	loop_stop(log->kit->loop);
}

static const struct file_events log_events = {.data = on_data, .done = on_done};

static char *read_log(struct init_kit *kit, uint32_t id)
{
	struct log log = {.kit = kit};
	struct error err = ERROR_INIT;

	buffer_init(&log.text, 0);
	assert_ok(init_log_read(kit->client, id, false, &log_events, &log, &log.file, &err), &err);
	init_kit_until(kit, &log.done);
	assert_string_equal(log.error.message, "");
	return buffer_steal(&log.text);
}

static void start_service(
	struct init_kit *kit, struct kit_run *run, const char *script, uint32_t follows)
{
	char *argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t)script, NULL};
	struct exec_spec spec = {.argv = argv, .service = true, .follows = follows};

	kit_run_start(kit, run, &spec);
}

static void check_log(struct init_kit *kit, uint32_t id, const char *expected)
{
	CLEANUP(free_p) char *text = read_log(kit, id);

	assert_string_equal(text, expected);
}

static void test_log_of_services(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run first = {.hold = false}, second = {.hold = false};

	start_service(kit, &first, "echo one; echo two >&2; exit 3", 0);
	init_kit_until(kit, &first.ended);
	assert_int_equal(first.result.code, 3);
	assert_int_equal(first.out.length + first.err.length, 0); /* nothing was sent */
	check_log(kit, first.id, "one\ntwo\n");
	/* Still there for another connection; the next start goes on with it. */
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 1);
	start_service(kit, &second, "echo three", first.id);
	init_kit_until(kit, &second.ended);
	check_log(kit, second.id, "one\ntwo\n[hob] it ended with code 3; started again\nthree\n");
	init_exec_forget(kit->client, second.id);
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 0);
	kit_run_done(&first);
	kit_run_done(&second);
}

static void test_flood_without_anybody(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};
	CLEANUP(free_p) char *text = NULL;

	/* A megabyte that nobody reads or grants: the command ends all the same. */
	start_service(kit, &run, "yes 0123456 | head -c 1048576", 0);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.result.code, 0);
	text = read_log(kit, run.id);
	assert_true(strlen(text) >= 60000 && strlen(text) <= 2 * SERVICE_LOG_MAX);
	assert_string_equal(text + strlen(text) - 8, "0123456\n");
	init_exec_forget(kit->client, run.id);
	kit_run_done(&run);
}

static void test_the_group_ends_with_it(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};

	/* The child holds the pipe open and would live on. */
	start_service(kit, &run, "(while :; do sleep 0.01; echo x; done) & sleep 0.1", 0);
	init_kit_until(kit, &run.ended);
	{
		CLEANUP(free_p) char *before = read_log(kit, run.id);

		init_kit_pause(kit, 100);
		check_log(kit, run.id, before);
	}
	init_exec_forget(kit->client, run.id);
	kit_run_done(&run);
}

static void probe(struct init_kit *kit, const struct probe_spec *spec, struct log *log)
{
	struct error err = ERROR_INIT;

	*log = (struct log){.kit = kit};
	assert_ok(init_probe(kit->client, spec, &log_events, log, &log->file, &err), &err);
	init_kit_until(kit, &log->done);
}

/* A port that is bound, so that nobody else has it, and listens only if told. */
static int port_take(bool listening, uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0 && bind(fd, (void *)&address, sizeof(address)) == 0);
	assert_int_equal(getsockname(fd, (void *)&address, &length), 0);
	if (listening) {
		assert_int_equal(listen(fd, 1), 0);
	}
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void test_probes(void **state)
{
	struct init_kit *kit = *state;
	struct probe_spec spec = {.timeout_ms = 60000};
	struct log log;
	CLEANUP(close_p) int listening = -1;
	CLEANUP(close_p) int closed = -1;

	closed = port_take(false, &spec.port);
	probe(kit, &spec, &log);
	assert_contains(log.error.message, "nobody listens there");
	listening = port_take(true, &spec.port);
	probe(kit, &spec, &log);
	assert_string_equal(log.error.message, "");
	/* It accepts, by its backlog, and says nothing. */
	spec.http = "GET / HTTP/1.1\r\n\r\n";
	spec.timeout_ms = 500;
	probe(kit, &spec, &log);
	assert_contains(log.error.message, "accepts, but does not answer");
	spec = (struct probe_spec){.path = kit->folder, .timeout_ms = 60000};
	probe(kit, &spec, &log);
	assert_string_equal(log.error.message, "");
	spec.path = "/nowhere/at all";
	probe(kit, &spec, &log);
	assert_contains(log.error.message, "/nowhere/at all: No such file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_http_status),
		cmocka_unit_test(test_delays),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_settings_refused),
		cmocka_unit_test(test_fingerprints),
		cmocka_unit_test_setup_teardown(
			test_log_of_services, init_kit_setup, init_kit_teardown),
		cmocka_unit_test_setup_teardown(
			test_flood_without_anybody, init_kit_setup, init_kit_teardown),
		cmocka_unit_test_setup_teardown(
			test_the_group_ends_with_it, init_kit_setup, init_kit_teardown),
		cmocka_unit_test_setup_teardown(test_probes, init_kit_setup, init_kit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
