/* The two halves of every test of what an environment file may say. */
#include "tests/lib/environment_kit.h"

#include "tests/lib/test.h"

struct environment *env_parse(const char *text)
{
	struct environment *environment = NULL;
	struct error err = ERROR_INIT;

	assert_ok(
		environment_parse("/srv/envs/webapp.yaml", text, strlen(text), &environment, &err),
		&err);
	return environment;
}

const char *env_refuse(const char *text, struct error *err)
{
	struct environment *environment = NULL;

	*err = ERROR_INIT;
	assert_kind(environment_parse("webapp.yaml", text, strlen(text), &environment, err), err,
		ERROR_INVALID);
	assert_null(environment);
	return err->message;
}
