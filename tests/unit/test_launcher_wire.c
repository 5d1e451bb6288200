/* What a launcher believes of a packet from a program that may have been taken over. */
#include "pool/sandbox/launcher/launcher_wire.h"
#include "tests/lib/test.h"

#include <stdio.h>

#define SLOTS 100

static struct launcher_request create_request(void)
{
	struct launcher_request request = {.op = LAUNCHER_CREATE, .number = 1, .layer_count = 1};

	(void)snprintf(request.name, sizeof(request.name), "sb-0123456789ab");
	(void)snprintf(request.hostname, sizeof(request.hostname), "box");
	request.layers[0] = (struct launcher_layer){.id = 7, .id_base = 1000, .id_count = 1};
	return request;
}

static int check(const struct launcher_request *request, struct error *err)
{
	return launcher_request_check(request, launcher_request_size(request), SLOTS, err);
}

static void refused(const struct launcher_request *request)
{
	struct error err = ERROR_INIT;

	assert_kind(check(request, &err), &err, ERROR_INVALID);
}

static void test_good_requests_pass(void **state)
{
	struct launcher_request request = create_request();
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(check(&request, &err), &err);
	request.layer_count = 0;
	assert_ok(check(&request, &err), &err);
	request.op = LAUNCHER_DESTROY;
	assert_ok(check(&request, &err), &err);
}

static void test_ids_are_checked(void **state)
{
	static const char *const bad[] = {"", "sb-", "sb-../x", "sb-A", "sb-a/b", "bs-a", "x-1",
		"sb-a.b", "sb-a b", "sb-\xff", "../sb-a"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct launcher_request request = create_request();

		(void)snprintf(request.name, sizeof(request.name), "%s", bad[i]);
		refused(&request);
	}
}

static void test_texts_must_end(void **state)
{
	struct launcher_request request = create_request();

	(void)state;
	memset(request.hostname, 'a', sizeof(request.hostname));
	refused(&request);
	request = create_request();
	memset(request.name + 3, 'a', sizeof(request.name) - 3);
	refused(&request);
	request = create_request();
	memset(request.room, 'a', sizeof(request.room));
	refused(&request);
}

static void test_ranges_of_layers(void **state)
{
	static const struct launcher_layer bad[] = {{0, 0, 1}, {-1, 0, 1}, {1, -1, 1}, {1, 0, 0},
		{1, 0, -1}, {1, 0, ID_RANGE + 1}, {1, UINT32_MAX, 1}, {1, UINT32_MAX - 10, 100},
		{1, INT64_MAX, 1}, {1, 1, INT64_MAX}, {1, INT64_MIN, INT64_MIN}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct launcher_request request = create_request();

		request.layers[0] = bad[i];
		refused(&request);
	}
}

static void test_numbers_are_in_range(void **state)
{
	struct launcher_request request = create_request();

	(void)state;
	request.slot = SLOTS;
	refused(&request);
	request = create_request();
	request.kind = 2;
	refused(&request);
	request = create_request();
	request.network_host = 2;
	refused(&request);
	request = create_request();
	request.limits.memory_bytes = INT64_MAX;
	refused(&request);
	request = create_request();
	request.limits.pids = -1;
	refused(&request);
	request = create_request();
	request.op = LAUNCHER_OPS;
	refused(&request);
	request.op = 0;
	refused(&request);
}

static void test_lengths_must_match(void **state)
{
	struct launcher_request request = create_request();
	struct error err = ERROR_INIT;

	(void)state;
	for (size_t length = 0; length < sizeof(request); length++) {
		if (length != launcher_request_size(&request)) {
			assert_true(launcher_request_check(&request, length, SLOTS, &err) < 0);
		}
	}
	request.layer_count = SANDBOX_LAYERS_MAX + 1;
	assert_true(launcher_request_check(&request, sizeof(request), SLOTS, &err) < 0);
	request.layer_count = UINT32_MAX;
	assert_true(launcher_request_check(&request, sizeof(request), SLOTS, &err) < 0);
}

static void test_rooms_and_folders(void **state)
{
	struct launcher_request request = {.op = LAUNCHER_REMOVE};
	struct error err = ERROR_INIT;

	(void)state;
	(void)snprintf(request.room, sizeof(request.room), "staging");
	(void)snprintf(request.staging, sizeof(request.staging), "abc");
	assert_ok(check(&request, &err), &err);
	(void)snprintf(request.staging, sizeof(request.staging), "..");
	refused(&request);
	(void)snprintf(request.staging, sizeof(request.staging), "a/b");
	refused(&request);
	(void)snprintf(request.staging, sizeof(request.staging), "abc");
	(void)snprintf(request.room, sizeof(request.room), "mirrors");
	refused(&request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_requests_pass),
		cmocka_unit_test(test_ids_are_checked),
		cmocka_unit_test(test_texts_must_end),
		cmocka_unit_test(test_ranges_of_layers),
		cmocka_unit_test(test_numbers_are_in_range),
		cmocka_unit_test(test_lengths_must_match),
		cmocka_unit_test(test_rooms_and_folders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
