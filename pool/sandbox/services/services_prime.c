/* The environment's prime: one command, once, after the services are ready. What it said last is
 * part of the message when it fails. */
#include "base/clock.h"
#include "base/fault.h"
#include "base/loop.h"
#include "pool/sandbox/services/services_private.h"

/* Room in a message, beside the rest of it. */
#define TAIL_BYTES 512

static void prime_end(struct services *services, struct error *err)
{
	loop_timer_stop(services->prime_timer);
	if (err != NULL && services->prime_tail.length > 0) {
		struct error inner = *err;

		error_set(err, inner.kind, "%s; it said last:\n%s", inner.message,
			buffer_text(&services->prime_tail));
	}
	services->events->primed(services->context, err);
}

static void on_prime_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct services *services = context;
	struct buffer *tail = &services->prime_tail;

	(void)stream;
	init_exec_consumed(services->prime, length);
	if (length > TAIL_BYTES) {
		data = (const char *)data + length - TAIL_BYTES;
		length = TAIL_BYTES;
	}
	buffer_add(tail, data, length);
	if (tail->length > TAIL_BYTES) {
		buffer_consume(tail, tail->length - TAIL_BYTES);
	}
}

static void on_prime_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct services *services = context;
	struct error why = ERROR_INIT;

	services->prime = NULL;
	if (err != NULL && err->kind == ERROR_UNAVAILABLE) {
		return;
	}
	if (err != NULL) {
		error_copy(&why, err);
		error_wrap(&why, "prime");
	} else if (result->code != 0) {
		error_set(&why, ERROR_FAILED, "prime ended with code %d", result->code);
	}
	prime_end(services, why.kind == ERROR_NONE ? NULL : &why);
}

static void on_prime_timeout(void *context)
{
	struct services *services = context;
	struct error err = ERROR_INIT;
	char limit[CLOCK_TEXT_SIZE];

	init_exec_detach(services->prime, true);
	services->prime = NULL;
	duration_format(limit, services->environment->prime.timeout_ms);
	error_set(&err, ERROR_TIMEOUT, "prime took longer than its timeout of %s", limit);
	prime_end(services, &err);
}

void services_prime(struct services *services)
{
	static const struct exec_events events = {
		.output = on_prime_output, .ended = on_prime_ended};
	struct error err = ERROR_INIT;

	(void)fault_point("service.prime");
	services->prime_timer = loop_timer_new(services->loop, on_prime_timeout, services);
	if (services_exec(services, NULL, services->environment->prime.run, helper_id(services), 0,
		    &events, services, &services->prime, &err) < 0) {
		error_wrap(&err, "prime");
		prime_end(services, &err);
		return;
	}
	loop_timer_after(services->prime_timer, services->environment->prime.timeout_ms);
}
