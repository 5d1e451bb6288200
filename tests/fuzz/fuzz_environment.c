/* Any bytes as an environment: no crash, and what was accepted reads back from its explanation. */
#include "base/memory.h"
#include "configs/environment.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(environment_free_p) struct environment *environment = NULL;
	CLEANUP(environment_free_p) struct environment *again = NULL;
	CLEANUP(free_p) char *explained = NULL;
	struct error err = ERROR_INIT;

	if (environment_parse("/e/fuzz.yaml", (const char *)data, size, &environment, &err) < 0) {
		assert(err.kind == ERROR_INVALID && err.message[0] != '\0');
		return 0;
	}
	explained = environment_explain(environment);
	if (environment_parse("/e/again.yaml", explained, strlen(explained), &again, &err) < 0) {
		error_print("fuzz_environment", &err);
		abort();
	}
	assert(streq(environment->fingerprint, again->fingerprint));
	return 0;
}
