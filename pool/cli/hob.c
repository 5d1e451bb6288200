/* `hob`, the one command people type: the table of its verbs, in the order of `hob help`. */
#include "pool/cli/cli.h"

static const struct verb *const verbs[] = {
	&verb_create,
	&verb_warm,
	&verb_exec,
	&verb_shell,
	&verb_cp,
	&verb_ls,
	&verb_info,
	&verb_logs,
	&verb_events,
	&verb_ps,
	&verb_attach,
	&verb_timeout,
	&verb_sync,
	&verb_pause,
	&verb_resume,
	&verb_rm,
	&verb_usage,
	&verb_snapshot,
	&verb_restore,
	&verb_fork,
	&verb_pool,
	&verb_top,
	&verb_build,
	&verb_builds,
	&verb_env,
	&verb_images,
	&verb_snapshots,
	&verb_simulate,
	&verb_store,
	&verb_doctor,
	&verb_version,
	&verb_help,
	NULL,
};

int main(int argc, char **argv)
{
	return cli_main(argc, argv, verbs);
}
