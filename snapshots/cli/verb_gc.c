/* `hob-snapshots gc`: the policies of the environments' files, or one given here, put to work. */
#include "snapshots/cli/cli.h"
#include "snapshots/cli/policies.h"

#include "base/clock.h"
#include "base/log.h"
#include "configs/config.h"

void policies_done(struct policies *policies)
{
	environment_list_done(&policies->environments);
	free(policies->list);
}

/* The policy of --keep-last, --keep-for and --keep-labelled; false when none was said. */
static int read_options(const struct snapshots_cli *cli, struct gc_policy *policy, bool *ret_said,
	struct error *err)
{
	char *end = NULL;

	*policy = (struct gc_policy){
		.environment = cli->environment, .keep_labelled = cli->keep_labelled};
	*ret_said = cli->keep_last != NULL || cli->keep_for != NULL;
	if (cli->keep_last != NULL) {
		errno = 0;
		policy->keep_last = strtoll(cli->keep_last, &end, 10);
		if (errno != 0 || *end != '\0' || end == cli->keep_last || policy->keep_last < 1) {
			return error_set(err, ERROR_USAGE, "\"%s\" is no number of snapshots",
				cli->keep_last);
		}
	}
	if (cli->keep_for != NULL && (!duration_parse(cli->keep_for, &policy->keep_for_ms) ||
					     policy->keep_for_ms == 0)) {
		return error_set(
			err, ERROR_USAGE, "\"%s\" is no time: 12h or 30d would be", cli->keep_for);
	}
	if (!*ret_said && (cli->keep_labelled || cli->environment != NULL)) {
		return error_set(err, ERROR_USAGE,
			"--env and --keep-labelled go with --keep-last or --keep-for");
	}
	return 0;
}

int policies_read(const struct snapshots_cli *cli, struct policies *policies, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	int status = config_load(cli->config_path, &config, err);

	if (status < 0) {
		return status;
	}
	if (access(config->environments, F_OK) < 0 && errno == ENOENT) {
		return 0;
	}
	status = environment_list_load(config->environments, &policies->environments, err);
	if (status < 0) {
		return status;
	}
	for (size_t i = 0; i < policies->environments.failure_count; i++) {
		/* Its snapshots are all kept: there is no policy to go by. */
		log_failure("gc.no_policy", &policies->environments.failures[i].error, "file",
			policies->environments.failures[i].file);
	}
	for (size_t i = 0; i < policies->environments.count; i++) {
		const struct environment *environment = policies->environments.items[i];

		*array_add(&policies->list, &policies->count, &policies->room) =
			(struct gc_policy){.environment = environment->name,
				.keep_last = environment->snapshots.keep_last,
				.keep_for_ms = environment->snapshots.keep_for_ms,
				.keep_labelled = environment->snapshots.keep_labelled};
	}
	return 0;
}

static int read_policies(
	const struct snapshots_cli *cli, struct policies *policies, struct error *err)
{
	struct gc_policy policy;
	bool said = false;
	int status = read_options(cli, &policy, &said, err);

	if (status < 0) {
		return status;
	}
	if (said) {
		*array_add(&policies->list, &policies->count, &policies->room) = policy;
		return 0;
	}
	return policies_read(cli, policies, err);
}

static json_t *decisions_json(const struct gc_plan *plan)
{
	json_t *list = json_array();

	for (size_t i = 0; i < plan->count; i++) {
		const struct gc_decision *decision = &plan->decisions[i];

		json_array_append_new(list,
			json_pack("{s:s, s:s, s:s, s:s, s:I}", "name", decision->name,
				"environment", decision->environment, "decision",
				decision->remove ? "remove" : "keep", "reason", decision->reason,
				"exclusive_bytes", (json_int_t)decision->bytes));
	}
	return list;
}

static void print_decisions(const struct gc_plan *plan, bool all)
{
	static const bool right[] = {false, false, false, true, false};
	CLEANUP(cli_table_done) struct cli_table table = {.columns = 5, .right = right};
	char bytes[CLI_TEXT_SIZE];

	for (size_t i = 0; i < plan->count; i++) {
		const struct gc_decision *decision = &plan->decisions[i];

		if (!all && !decision->remove) {
			continue;
		}
		text_bytes(bytes, decision->bytes);
		cli_cell(&table, decision->remove ? "remove" : "keep");
		cli_cell(&table, decision->name);
		cli_cell(&table, decision->environment);
		cli_cell(&table, decision->remove ? bytes : "");
		cli_cell(&table, decision->reason);
	}
	cli_table_print(&table);
}

static void report(
	const struct snapshots_cli *cli, const struct gc_plan *plan, const struct gc_result *result)
{
	char freed[CLI_TEXT_SIZE];

	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:b, s:I, s:I, s:I}", "dry_run", cli->dry_run, "removed",
			(json_int_t)result->removed, "passed_over", (json_int_t)result->passed_over,
			"freed_bytes", (json_int_t)result->freed);

		json_object_set_new(json, "decisions", decisions_json(plan));
		json_print(json);
		return;
	}
	print_decisions(plan, cli->dry_run);
	if (cli->dry_run) {
		printf("would remove %zu of %zu\n", plan->removals, plan->count);
		return;
	}
	text_bytes(freed, result->freed);
	printf("removed %llu, freed %s; %llu in use were passed over\n",
		(unsigned long long)result->removed, freed,
		(unsigned long long)result->passed_over);
}

struct collecting {
	struct snapshots_cli *cli;
	size_t removals, removed;
};

/* Asked before each removal. */
static bool tell_removal(void *context)
{
	struct collecting *collecting = context;

	cli_event(collecting->cli, "progress",
		json_pack("{s:s, s:I, s:I}", "phase", "remove", "entries",
			(json_int_t)collecting->removed, "entries_all",
			(json_int_t)collecting->removals));
	collecting->removed++;
	return false;
}

static int collect(struct snapshots_cli *cli, struct gc_plan *plan, struct gc_result *result,
	struct error *err)
{
	struct collecting collecting = {cli, plan->removals, 0};

	return gc_plan_run_until(cli->store, plan, tell_removal, &collecting, result, err);
}

int cli_gc(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(policies_done) struct policies policies = {0};
	CLEANUP(gc_plan_done) struct gc_plan plan = {0};
	struct gc_result result = {0};
	int status = read_policies(cli, &policies, err);

	if (status == 0) {
		status = cli_open(cli, cli->dry_run ? STORE_READ : STORE_WRITE, err);
	}
	if (status == 0) {
		status = gc_plan_make(cli->store, policies.list, policies.count, &plan, err);
	}
	if (status == 0) {
		cli_event(cli, "progress",
			json_pack("{s:s, s:I, s:I}", "phase", "plan", "entries",
				(json_int_t)plan.count, "removals", (json_int_t)plan.removals));
	}
	if (status == 0 && !cli->dry_run) {
		status = collect(cli, &plan, &result, err);
	}
	if (status == 0) {
		report(cli, &plan, &result);
	}
	return status;
}
