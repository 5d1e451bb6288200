/* hob.yaml: how this machine's hob is set up. Read as strictly as an environment; a missing file at
 * the default path means all defaults. Keys are the members' names, without the unit: build_every,
 * body_max, file_max. Relative paths in the file count from its folder. */
#ifndef HOB_CONFIGS_CONFIG_H
#define HOB_CONFIGS_CONFIG_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

/* Where a store with a file system of its own has that (snapshots/volume). */
#define STORE_VOLUME_FORMAT "%s.xfs"

#define CONFIG_DEFAULT_PATH "/etc/hob/hob.yaml"

struct config {
	char *file; /* NULL: defaults only */
	char *store; /* /var/lib/hob */
	char *run; /* /run/hob: sockets and state that outlive hobd, not the machine */
	char *socket; /* <run>/hob.sock unless set */
	char *environments; /* the folder of environments/ beside hob.yaml unless set */
	char *user; /* hob: whom hobd and hob-build become after start */
	char *group; /* hob: who may open the socket */
	char *cgroup; /* name below the cgroup root, "hob"; "auto" under a delegated service */
	int64_t id_base; /* first of the ids that sandboxes' users get; 0: from /etc/subuid */
	int64_t id_slots; /* ranges of 65,536 ids: sandboxes at a time, builds too */
	int64_t launchers; /* launcher processes; 0: one a CPU, at most 4 */
	int64_t max_sandboxes;
	int64_t hit_rate; /* thousandths; 0: no forecasts */
	int64_t disk_budget; /* of all sandboxes, bytes; 0: none */
	int64_t memory_budget; /* of all ready sandboxes, bytes; 0: none */
	int64_t hints_per_caller;
	int64_t hint_ttl_max_ms;
	struct config_github_app {
		char *name; /* for environments */
		char *id, *installation; /* GitHub's numbers */
		char *key; /* name of the secret with its private key */
		char *api; /* https://api.github.com, or an Enterprise server's …/api/v3 */
	} * github_apps;
	size_t github_app_count;
	char *secrets; /* the folder of secrets; secrets/ beside hob.yaml unless set */
	char *hook_listen; /* "address:port" where webhooks are taken; "none": only by the socket */
	char *hook_secret; /* name of the secret that signs webhooks; "none": none are taken */
	int64_t max_builds; /* at once, when hobd starts them */
	bool page_out_always; /* else only where there is swap */
	int64_t page_out_after_ms; /* what is frozen this long gives its memory back; 0: never */
	int64_t freeze_after_ms; /* a ready sandbox is frozen; 0: never */
	int64_t build_every_ms; /* default for environments that do not say */
	int64_t body_bytes_max; /* of a JSON request; files are limited apart */
	int64_t file_bytes_max; /* of one uploaded file */
	int64_t output_bytes_max; /* kept of all captured commands together */
	char *free_space; /* see free_space.h */
	char *log_level;
	bool log_json;
};

/* path NULL: $HOB_CONFIG, else CONFIG_DEFAULT_PATH if it exists. `store`, `run` etc. come back
 * absolute. */
MUSTCHECK int config_load(const char *path, struct config **ret_config, struct error *err);
void config_free(struct config *config);
DEFINE_CLEANUP(config_free_p, struct config, config_free)

/* All settings as YAML that reads back to the same. free() it. */
char *config_explain(const struct config *config);
/* The table, for tests and the reference. */
struct settings;
const struct settings *config_settings(void);
/* The reference of every setting, name, type, default and one line of text: for --help and docs. */
void config_print_reference(void);

#endif
