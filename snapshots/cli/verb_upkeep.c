/*
 * `hob-snapshots upkeep`: what keeps a store in shape, one thing after the other and with the least
 * claim on processor and disk: what killed processes and a killed sharing left, garbage (more of it
 * while less space is free than hob.yaml wants), deep snapshots, equal files. hobd starts it, and
 * hob-build where no hobd runs; one at a time. A signal ends it between two steps.
 */
#include "snapshots/cli/cli.h"
#include "snapshots/cli/policies.h"
#include "snapshots/share/share.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/flatten.h"

#include "base/clock.h"
#include "base/log.h"
#include "configs/config.h"
#include "configs/free_space.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define UPKEEP_LOCK "upkeep.lock"
#define DOWNLOAD_YOUNG_MS (3600 * INT64_C(1000)) /* a build may be about to use it */
#define IOPRIO_IDLE (3 << 13)

struct upkeep {
	struct snapshots_cli *cli;
	char *setting; /* free_space */
	struct policies policies;
	struct gc_result collected;
	struct share_result shared;
	uint64_t downloads, flattened, failed;
	struct error first; /* of what failed */
};

static void upkeep_done(struct upkeep *upkeep)
{
	free(upkeep->setting);
	policies_done(&upkeep->policies);
}

static void note(struct upkeep *upkeep, const char *event, const struct error *err)
{
	log_failure(event, err);
	upkeep->failed++;
	if (upkeep->first.kind == ERROR_NONE) {
		error_copy(&upkeep->first, err);
	}
}

/* ---- space ---- */

static bool is_low(const struct upkeep *upkeep)
{
	struct free_space space = {0};
	struct error err = ERROR_INIT;

	if (free_space_look(store_path(upkeep->cli->store), upkeep->setting, &space, &err) < 0) {
		log_failure("upkeep.space_unknown", &err);
		return false;
	}
	return space.low;
}

static bool is_enough(void *context)
{
	return cli_is_stopped(NULL) || !is_low(context);
}

struct download {
	char name[80];
	int64_t used_ms;
};

static int compare_used(const void *a, const void *b)
{
	const struct download *left = a, *right = b;

	return (left->used_ms > right->used_ms) - (left->used_ms < right->used_ms);
}

/* Finished ones that nobody has used for an hour; they can be had again. */
static struct download *list_downloads(int folder, size_t *ret_count, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(folder, ".", err);
	struct download *list = NULL;
	size_t room = 0;
	struct dirent *entry;

	*ret_count = 0;
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		struct stat status;
		int64_t used_ms;

		if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISREG(status.st_mode) || strlen(entry->d_name) != 64) {
			continue;
		}
		used_ms = 1000 * (int64_t)(status.st_atim.tv_sec > status.st_mtim.tv_sec
						   ? status.st_atim.tv_sec
						   : status.st_mtim.tv_sec);
		if (clock_real_ms() - used_ms > DOWNLOAD_YOUNG_MS) {
			struct download *one = array_add(&list, ret_count, &room);

			snprintf(one->name, sizeof(one->name), "%.64s", entry->d_name);
			one->used_ms = used_ms;
		}
	}
	return list;
}

static void drop_downloads(struct upkeep *upkeep)
{
	struct error err = ERROR_INIT;
	CLEANUP(close_p)
	int folder = io_open(store_fd(upkeep->cli->store), "downloads",
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &err);
	CLEANUP(free_p) struct download *list = NULL;
	size_t count = 0;

	if (folder < 0) {
		return; /* none was ever made */
	}
	list = list_downloads(folder, &count, &err);
	if (count > 0) {
		qsort(list, count, sizeof(*list), compare_used);
	}
	for (size_t i = 0; i < count && !is_enough(upkeep); i++) {
		if (unlinkat(folder, list[i].name, 0) == 0) {
			log_info("upkeep.download_removed", "sha256", list[i].name);
			upkeep->downloads++;
		}
	}
}

static void collect(struct upkeep *upkeep)
{
	CLEANUP(gc_plan_done) struct gc_plan plan = {0};
	struct store *store = upkeep->cli->store;
	const struct policies *policies = &upkeep->policies;
	struct gc_result more = {0};
	struct error err = ERROR_INIT;
	int status = gc_plan_make(store, policies->list, policies->count, &plan, &err);

	if (status == 0) {
		status = gc_plan_run_until(
			store, &plan, cli_is_stopped, NULL, &upkeep->collected, &err);
	}
	if (status == 0 && !is_enough(upkeep)) {
		gc_plan_done(&plan);
		status = gc_plan_pressed(store, policies->list, policies->count, &plan, &err);
		if (status == 0) {
			status = gc_plan_run_until(store, &plan, is_enough, upkeep, &more, &err);
		}
		upkeep->collected.removed += more.removed;
		upkeep->collected.freed += more.freed;
		drop_downloads(upkeep);
	}
	if (status < 0) {
		note(upkeep, "upkeep.gc_failed", &err);
	}
	if (upkeep->collected.removed > 0) {
		log_info("upkeep.collected", "removed", upkeep->collected.removed, "bytes",
			upkeep->collected.freed);
	}
}

/* ---- deep snapshots ---- */

static int flatten_one(struct upkeep *upkeep, int64_t id, struct error *err)
{
	struct flatten_result result = {0};
	struct error failure = ERROR_INIT;
	struct store *store = upkeep->cli->store;
	int status = snapshot_flatten(store, id, &result, &failure);

	if (status < 0) {
		note(upkeep, "upkeep.flatten_failed", &failure);
		return failure.kind == ERROR_NOT_FOUND ? 0 : flatten_note(store, id, &failure, err);
	}
	upkeep->flattened++;
	log_info(
		"upkeep.flattened", "snapshot", id, "before", result.before, "after", result.after);
	return flatten_note(store, id, NULL, err);
}

static void flatten_all(struct upkeep *upkeep)
{
	struct error err = ERROR_INIT;
	int64_t id = 0, last = 0;
	int status = 0;

	while (status == 0 && !cli_is_stopped(NULL) && !is_low(upkeep)) {
		status = flatten_due(upkeep->cli->store, &id, &err);
		if (status < 0 || id == 0 || id == last) {
			break; /* what came out as deep as it went in is not tried for ever */
		}
		last = id;
		status = flatten_one(upkeep, id, &err);
	}
	if (status < 0) {
		note(upkeep, "upkeep.flatten_failed", &err);
	}
}

static void share(struct upkeep *upkeep)
{
	const struct share_events events = {cli_is_stopped, NULL, NULL};
	struct error err = ERROR_INIT;
	int status = store_share(upkeep->cli->store, &events, &upkeep->shared, &err);

	if (status < 0 && status != -ERROR_CANCELLED && status != -ERROR_BUSY) {
		note(upkeep, "upkeep.share_failed", &err);
	}
}

/* What was still held by a dying process when hobd started is found here. */
static void sweep(struct upkeep *upkeep)
{
	struct store_sweep found = {0};
	struct error err = ERROR_INIT;

	if (store_recover(upkeep->cli->store, &found, &err) < 0) {
		note(upkeep, "upkeep.sweep_failed", &err);
	} else if (found.staging + found.orphans + found.finished + found.snapshots > 0) {
		log_info("upkeep.swept", "staging", found.staging, "layers",
			found.orphans + found.finished, "runs", found.snapshots);
	}
}

/* ---- the whole ---- */

/* Everybody else first, for what this process does and its helper too. */
static void step_back(void)
{
	(void)setpriority(PRIO_PROCESS, 0, 19);
	(void)syscall(SYS_ioprio_set, 1 /* a process */, 0, IOPRIO_IDLE);
}

static void report(const struct upkeep *upkeep)
{
	char freed[CLI_TEXT_SIZE], saved[CLI_TEXT_SIZE];

	if (upkeep->cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "removed",
			(json_int_t)upkeep->collected.removed, "removed_bytes",
			(json_int_t)upkeep->collected.freed, "downloads_removed",
			(json_int_t)upkeep->downloads, "flattened", (json_int_t)upkeep->flattened,
			"shared_files", (json_int_t)upkeep->shared.files, "shared_bytes",
			(json_int_t)upkeep->shared.bytes, "layers_in_use",
			(json_int_t)upkeep->shared.waiting, "failed", (json_int_t)upkeep->failed,
			"interrupted", cli_is_stopped(NULL));

		json_print(json);
		return;
	}
	text_bytes(freed, upkeep->collected.freed);
	text_bytes(saved, upkeep->shared.bytes);
	printf("removed %" PRIu64 " (%s), flattened %" PRIu64 ", shares %" PRIu64
	       " more files (%s)\n",
		upkeep->collected.removed, freed, upkeep->flattened, upkeep->shared.files, saved);
}

static int run(struct upkeep *upkeep, struct error *err)
{
	CLEANUP(close_p) int turn = -1;
	int status = store_turn(upkeep->cli->store, UPKEEP_LOCK,
		"another upkeep of this store is running", &turn, err);

	if (status == 0) {
		status = share_settle_all(upkeep->cli->store, err);
	}
	if (status < 0) {
		return status;
	}
	sweep(upkeep);
	collect(upkeep);
	flatten_all(upkeep);
	if (!cli_is_stopped(NULL)) {
		share(upkeep);
	}
	report(upkeep);
	if (upkeep->first.kind != ERROR_NONE) {
		error_copy(err, &upkeep->first);
		return -(int)err->kind;
	}
	return 0;
}

static int read_setting(struct upkeep *upkeep, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	int status = config_load(upkeep->cli->config_path, &config, err);

	if (status == 0) {
		upkeep->setting = xstrdup(config->free_space);
		log_setup("hob-snapshots", LOG_INFO, config->log_json);
	}
	return status;
}

int cli_upkeep(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(upkeep_done) struct upkeep upkeep = {.cli = cli, .first = ERROR_INIT};
	int status;

	cli_stop_gently();
	step_back();
	cli->rights = STORE_RIGHTS_MAKE_TREES;
	status = read_setting(&upkeep, err);
	if (status == 0) {
		status = policies_read(cli, &upkeep.policies, err);
	}
	if (status == 0) {
		status = cli_open(cli, STORE_WRITE, err);
	}
	return status < 0 ? status : run(&upkeep, err);
}
