/* Giving secrets to a step, by hob-init's file requests, and reading them from their files. */
#include "builder/credentials/step_secrets.h"

#include "base/clock.h"
#include "base/memory.h"
#include "builder/machine.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#define PUT_MS 30000
/* The step's user reads them; nobody else is in a build's sandbox. */
#define SECRET_MODE 0444

static bool has_name(const struct step_secrets *secrets, const char *name, size_t *ret_index)
{
	for (size_t i = 0; i < secrets->count; i++) {
		if (streq(secrets->names[i], name)) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

static int read_one(
	struct machine *machine, struct step_secrets *secrets, const char *name, struct error *err)
{
	struct secret secret = {0};
	int status = secret_read(machine->config->secrets, name, &secret, err);

	if (status < 0) {
		return status;
	}
	secrets->names = xreallocarray(secrets->names, secrets->count + 1, sizeof(char *));
	secrets->secrets =
		xreallocarray(secrets->secrets, secrets->count + 1, sizeof(struct secret));
	secrets->names[secrets->count] = name;
	secrets->secrets[secrets->count++] = secret;
	if (secret.length < STEP_SECRET_BYTES_MIN) {
		error_set(err, ERROR_INVALID, "secret \"%s\" is shorter than %d bytes", name,
			STEP_SECRET_BYTES_MIN);
		return error_hint(err, "layers are searched for it, and would hold it by chance");
	}
	return 0;
}

int step_secrets_read(struct machine *machine, const struct environment *environment,
	struct step_secrets *ret_secrets, struct error *err)
{
	struct step_secrets secrets = {0};
	int status = 0;

	for (size_t i = 0; i < environment->step_count; i++) {
		char *const *names = environment->steps[i].secrets;
		size_t found;

		for (; status == 0 && names != NULL && *names != NULL; names++) {
			if (!has_name(&secrets, *names, &found)) {
				status = read_one(machine, &secrets, *names, err);
			}
		}
	}
	if (status < 0) {
		step_secrets_done(&secrets);
		return status;
	}
	*ret_secrets = secrets;
	return 0;
}

void step_secrets_done(struct step_secrets *secrets)
{
	for (size_t i = 0; i < secrets->count; i++) {
		secret_done(&secrets->secrets[i]);
	}
	free(secrets->names);
	free(secrets->secrets);
	*secrets = (struct step_secrets){0};
}

/* ---- into the sandbox ---- */

struct putting {
	struct machine *machine;
	const struct secret *secret;
	struct init_file_handle *file;
	size_t sent;
	bool ended, done;
	struct error error;
};

static void on_room(void *context, size_t bytes)
{
	struct putting *putting = context;
	size_t left = putting->secret->length - putting->sent, part = left < bytes ? left : bytes;
	struct error err = ERROR_INIT;

	if (putting->ended) {
		return;
	}
	if (init_file_send(putting->file, putting->secret->text + putting->sent, part, &err) < 0) {
		return; /* `done` says so */
	}
	putting->sent += part;
	if (putting->sent == putting->secret->length) {
		putting->ended = true;
		init_file_send_end(putting->file);
	}
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct putting *putting = context;

	(void)bytes;
	if (err != NULL) {
		error_copy(&putting->error, err);
	}
	putting->file = NULL;
	putting->done = true;
	machine_wake(putting->machine);
}

static int put_one(struct machine *machine, const char *name, const struct secret *secret,
	struct init_client *client, struct error *err)
{
	static const struct file_events events = {.room = on_room, .done = on_done};
	CLEANUP(free_p) char *path = xasprintf(STEP_SECRETS_FOLDER "/%s", name);
	struct putting putting = {.machine = machine, .secret = secret, .error = ERROR_INIT};
	int status = init_file_write(
		client, path, SECRET_MODE, secret->length, &events, &putting, &putting.file, err);

	if (status == 0) {
		status = machine_wait(machine, &putting.done, clock_mono_ms() + PUT_MS,
			"giving it a secret", err);
	}
	if (putting.file != NULL) {
		init_file_cancel(putting.file);
	}
	if (status == 0 && putting.error.kind != ERROR_NONE) {
		error_copy(err, &putting.error);
		status = -(int)err->kind;
	}
	return status < 0 ? error_wrap(err, "secret \"%s\"", name) : 0;
}

int step_secrets_put(struct machine *machine, const struct step_secrets *secrets,
	char *const *names, struct init_client *client, const bool *closed, struct error *err)
{
	int status = 0;

	for (; status == 0 && names != NULL && *names != NULL; names++) {
		size_t index;

		if (*closed) {
			return error_set(err, ERROR_UNAVAILABLE, "its sandbox died at its start");
		}
		if (has_name(secrets, *names, &index)) {
			status = put_one(machine, *names, &secrets->secrets[index], client, err);
		}
	}
	return status;
}
