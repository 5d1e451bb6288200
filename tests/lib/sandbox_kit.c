/* Everything below one temporary folder and one cgroup named after the test run. */
#include "tests/lib/sandbox_kit.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/loop.h"
#include "pool/sandbox/cgroup.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>

#define PATIENCE_MS 120000

/* The launcher looks for hob-init beside the running program; it lies some folders above. */
static void init_link(void)
{
	char self[4096];
	CLEANUP(free_p) char *place = NULL;
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(length > 0);
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	place = xasprintf("%s/hob-init", self);
	for (char *slash = strrchr(self, '/'); slash != NULL; slash = strrchr(self, '/')) {
		CLEANUP(free_p) char *path = NULL;

		*slash = '\0';
		path = xasprintf("%s/hob-init", self);
		if (access(path, X_OK) == 0) {
			/* Also right when another test was first. */
			(void)!symlink(path, place);
			return;
		}
	}
	fail_msg("no hob-init in a folder above this test: make it first");
}

static void on_lost(void *context)
{
	struct sandbox_kit *kit = context;

	kit->lost = true;
	loop_stop(kit->loop);
}

static void launcher_run(struct sandbox_kit *kit)
{
	struct error err = ERROR_INIT;

	assert_ok(loop_open(&kit->loop, &err), &err);
	assert_ok(launcher_start(&kit->config, -1, &kit->launcher, &err), &err);
	assert_ok(launcher_attach(kit->launcher, kit->loop, on_lost, kit, &err), &err);
}

static void text_put(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

char *sandbox_kit_layer(struct sandbox_kit *kit, int64_t id_base, int64_t id_count)
{
	struct layer *layer = &kit->layers[kit->layer_count++];
	struct error err = ERROR_INIT;
	char *path;

	assert_true(kit->layer_count <= KIT_LAYERS_MAX);
	*layer = (struct layer){
		.id = (int64_t)kit->layer_count, .id_base = id_base, .id_count = id_count};
	path = xasprintf("%s/layers/%lld/tree", kit->config.store, (long long)layer->id);
	assert_ok(io_mkdir_all(AT_FDCWD, path, 0755, &err), &err);
	assert_int_equal(chown(path, (uid_t)id_base, (gid_t)id_base), 0);
	return path;
}

static void host_layer_make(struct sandbox_kit *kit, uid_t owner, gid_t group)
{
	static const char *const folders[] = {"dev", "proc", "sys", "run", "usr", "etc", "root",
		"var", "home", "workspace", "tmp"};
	static const char *const links[] = {"bin", "sbin", "lib", "lib64"};
	CLEANUP(free_p) char *tree = sandbox_kit_layer(kit, owner, 1);
	CLEANUP(free_p) char *command = NULL;

	assert_int_equal(chown(tree, owner, group), 0);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%s", tree, folders[i]);

		assert_int_equal(mkdir(path, 0755), 0);
		assert_int_equal(chmod(path, streq(folders[i], "tmp") ? 01777 : 0755), 0);
		assert_int_equal(lchown(path, owner, group), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%s", tree, links[i]);
		CLEANUP(free_p) char *target = xasprintf("usr/%s", links[i]);

		assert_int_equal(symlink(target, path), 0);
		assert_int_equal(lchown(path, owner, group), 0);
	}
	command = xasprintf("%s/etc/passwd", tree);
	text_put(command, "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home:/bin/sh\n");
	assert_int_equal(lchown(command, owner, group), 0);
	kit->layers[kit->layer_count - 1].host_usr = true;
}

struct sandbox_kit *sandbox_kit_new(int64_t launchers)
{
	struct sandbox_kit *kit = xcalloc(1, sizeof(*kit));
	const char *token = getenv("HOB_TEST_RUN");
	const char *user = getpwnam("hob") != NULL ? "hob" : "nobody";

	init_link();
	kit->folder = temp_folder();
	kit->fd = -1;
	kit->config = (struct config){.store = xasprintf("%s/store", kit->folder),
		.run = xasprintf("%s/run", kit->folder),
		.user = xstrdup(user),
		.group = xstrdup(user),
		.cgroup = xasprintf("hob-test-%s-%d", token != NULL ? token : "alone", getpid()),
		.id_slots = 2048,
		.launchers = launchers};
	launcher_run(kit);
	host_layer_make(kit, getpwnam(user)->pw_uid, getpwnam(user)->pw_gid);
	return kit;
}

static void leftovers_destroy(struct sandbox_kit *kit)
{
	CLEANUP(strv_free_p) char **ids = NULL;
	struct error err = ERROR_INIT;

	assert_ok(sandbox_cgroups_list(&kit->config, &ids, &err), &err);
	for (size_t i = 0; ids[i] != NULL; i++) {
		while (kit_destroy(kit, ids[i]) == -ERROR_BUSY) {
			continue;
		}
	}
}

void sandbox_kit_restart(struct sandbox_kit *kit)
{
	launcher_stop(kit->launcher);
	loop_close(kit->loop);
	kit->lost = false;
	launcher_run(kit);
}

struct sandbox_kit *sandbox_kit_broken(const char *point, const char *action)
{
	CLEANUP(free_p) char *fault = NULL;
	struct sandbox_kit *kit;

	if (geteuid() != 0) {
		skip();
	}
	fault = xasprintf("%s:1:%s", point, action);
	assert_int_equal(setenv("HOB_FAULT", fault, 1), 0);
	kit = sandbox_kit_new(1);
	assert_int_equal(unsetenv("HOB_FAULT"), 0);
	return kit;
}

void sandbox_kit_free(struct sandbox_kit *kit)
{
	if (kit == NULL) {
		return;
	}
	for (size_t i = 0; i < KIT_BOXES_MAX; i++) {
		init_client_free(kit->clients[i]);
	}
	if (kit->lost) {
		sandbox_kit_restart(kit);
	}
	leftovers_destroy(kit);
	launcher_stop(kit->launcher);
	loop_close(kit->loop);
	temp_remove(kit->folder);
	free(kit->config.store);
	free(kit->config.run);
	free(kit->config.user);
	free(kit->config.group);
	free(kit->config.cgroup);
	free(kit);
}

int sandbox_kit_setup(void **state)
{
	*state = geteuid() == 0 ? sandbox_kit_new(1) : NULL;
	return 0;
}

int sandbox_kit_teardown(void **state)
{
	sandbox_kit_free(*state);
	return 0;
}

/* ---- waiting ---- */

static void answered(struct sandbox_kit *kit, const struct error *err)
{
	kit->waiting = false;
	kit->err = ERROR_INIT;
	if (err != NULL) {
		error_copy(&kit->err, err);
	}
	loop_stop(kit->loop);
}

static void on_late(void *context)
{
	struct sandbox_kit *kit = context;

	loop_stop(kit->loop);
	fail_msg("the launcher does not answer");
}

static int answer_wait(struct sandbox_kit *kit)
{
	struct loop_timer *late = loop_timer_new(kit->loop, on_late, kit);
	struct error err = ERROR_INIT;

	loop_timer_after(late, PATIENCE_MS);
	while (kit->waiting) {
		assert_ok(loop_run(kit->loop, &err), &err);
	}
	loop_timer_free(late);
	return -(int)kit->err.kind;
}

static void on_done(void *context, const struct error *err)
{
	answered(context, err);
}

static void on_created(
	void *context, const struct sandbox_created *created, const struct error *err)
{
	struct sandbox_kit *kit = context;

	kit->created = (struct sandbox_created){.pid = -1, .pidfd = -1, .control_fd = -1};
	if (created != NULL) {
		kit->created = *created;
	}
	answered(kit, err);
}

static void on_userns(void *context, int userns_fd, const struct error *err)
{
	struct sandbox_kit *kit = context;

	kit->fd = userns_fd;
	answered(kit, err);
}

static void on_built(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct sandbox_kit *kit = context;

	kit->created.pid = pid;
	kit->fd = pidfd;
	answered(kit, err);
}

static void on_copied(void *context, const struct sandbox_copied *copied, const struct error *err)
{
	struct sandbox_kit *kit = context;

	kit->copied = copied != NULL ? *copied : (struct sandbox_copied){.files = 0};
	answered(kit, err);
}

int kit_snapshot(
	struct sandbox_kit *kit, const char *id, const char *staging, int64_t previous_layer)
{
	kit->waiting = true;
	sandbox_snapshot(kit->launcher, id, staging, previous_layer, 0, on_copied, kit);
	return answer_wait(kit);
}

int kit_keep(struct sandbox_kit *kit, const char *id, const char *staging)
{
	kit->waiting = true;
	sandbox_keep(kit->launcher, id, staging, on_done, kit);
	return answer_wait(kit);
}

int kit_destroy(struct sandbox_kit *kit, const char *id)
{
	kit->waiting = true;
	sandbox_destroy(kit->launcher, id, on_done, kit);
	return answer_wait(kit);
}

int kit_freeze(struct sandbox_kit *kit, const char *id)
{
	kit->waiting = true;
	sandbox_freeze(kit->launcher, id, on_done, kit);
	return answer_wait(kit);
}

int kit_thaw(struct sandbox_kit *kit, const char *id)
{
	kit->waiting = true;
	sandbox_thaw(kit->launcher, id, on_done, kit);
	return answer_wait(kit);
}

int kit_seal(struct sandbox_kit *kit, const char *staging)
{
	kit->waiting = true;
	sandbox_seal(kit->launcher, staging, on_done, kit);
	return answer_wait(kit);
}

int kit_prepare(struct sandbox_kit *kit, const char *staging, uint32_t slot, int *ret_fd)
{
	kit->waiting = true;
	launcher_prepare_tree(kit->launcher, staging, slot, on_userns, kit);
	answer_wait(kit);
	*ret_fd = kit->fd;
	return -(int)kit->err.kind;
}

int kit_remove(struct sandbox_kit *kit, const char *room, const char *name)
{
	kit->waiting = true;
	launcher_remove(kit->launcher, room, name, on_done, kit);
	return answer_wait(kit);
}

int kit_build(struct sandbox_kit *kit, const char *environment, pid_t *ret_pid, int *ret_pidfd)
{
	kit->waiting = true;
	launcher_build(kit->launcher, environment, BUILD_ASKED, on_built, kit);
	answer_wait(kit);
	*ret_pid = kit->created.pid;
	*ret_pidfd = kit->fd;
	return -(int)kit->err.kind;
}

/* ---- boxes ---- */

struct sandbox_spec kit_spec(const struct sandbox_kit *kit, const char *id, uint32_t slot)
{
	return (struct sandbox_spec){.kind = SANDBOX_SESSION,
		.id = id,
		.hostname = "box",
		.slot = slot,
		.layers = kit->layers,
		.layer_count = kit->layer_count,
		.limits = {.pids = 512}};
}

int box_create(struct sandbox_kit *kit, struct kit_box *box, const struct sandbox_spec *spec)
{
	*box = (struct kit_box){.kit = kit, .slot = spec->slot};
	box->init.loop = kit->loop;
	box->init.next_id = 1;
	(void)snprintf(box->id, sizeof(box->id), "%s", spec->id);
	kit->waiting = true;
	sandbox_create(kit->launcher, spec, on_created, kit);
	answer_wait(kit);
	box->created = kit->created;
	return -(int)kit->err.kind;
}

static void on_ready(void *context, const uint32_t *execs, size_t count)
{
	struct init_kit *init = context;

	(void)execs;
	init->exec_count = count;
	init->ready = true;
	loop_stop(init->loop);
}

static void on_closed(void *context)
{
	struct init_kit *init = context;

	init->closed = true;
	loop_stop(init->loop);
}

void box_connect(struct kit_box *box)
{
	static const struct init_client_events events = {.ready = on_ready, .closed = on_closed};
	struct error err = ERROR_INIT;

	assert_ok(init_client_new(box->kit->loop, steal_fd(&box->created.control_fd), &events,
			  &box->init, &box->init.client, &err),
		&err);
	for (size_t i = 0; i < KIT_BOXES_MAX; i++) {
		if (box->kit->clients[i] == NULL) {
			box->kit->clients[i] = box->init.client;
			break;
		}
	}
	init_kit_until(&box->init, &box->init.ready);
}

void box_disconnect(struct kit_box *box)
{
	for (size_t i = 0; i < KIT_BOXES_MAX; i++) {
		if (box->kit->clients[i] == box->init.client) {
			box->kit->clients[i] = NULL;
		}
	}
	init_client_free(steal_ptr(box->init.client));
}

void box_open(struct sandbox_kit *kit, struct kit_box *box, const char *id, uint32_t slot)
{
	struct sandbox_spec spec = kit_spec(kit, id, slot);

	assert_ok(box_create(kit, box, &spec), &kit->err);
	box_connect(box);
}

char *box_shell(struct kit_box *box, const char *script, int *ret_code)
{
	struct kit_run run = {.hold = false};
	char *text;
	size_t length;

	kit_run_shell(&box->init, &run, script);
	if (run.error.kind != ERROR_NONE) {
		fail_msg("%s: %s", script, run.error.message);
	}
	if (ret_code != NULL) {
		*ret_code = run.result.code;
	} else if (run.result.code != 0) {
		fail_msg("%s: exit %d: %s%s", script, run.result.code, buffer_text(&run.out),
			buffer_text(&run.err));
	}
	text = xstrdup(buffer_text(&run.out));
	length = strlen(text);
	if (length > 0 && text[length - 1] == '\n') {
		text[length - 1] = '\0';
	}
	kit_run_done(&run);
	return text;
}

int box_close(struct kit_box *box)
{
	int status;

	box_disconnect(box);
	do {
		status = kit_destroy(box->kit, box->id);
	} while (status == -ERROR_BUSY);
	fd_done(&box->created.pidfd);
	fd_done(&box->created.control_fd);
	return status;
}
