/* The table of what hob needs, and `hob doctor`, which walks it. A row says what is lost without
 * the thing and what to do; its probe says what is there. */
#include "pool/cli/doctor/doctor.h"

#include "base/io.h"
#include "base/json.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/cli/doctor/doctor_probe.h"
#include "pool/cli/human.h"
#include "pool/cli/options.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PROGRAM "hob doctor"
/* No probe takes a tenth of this. */
#define PROBE_SECONDS 10

enum check_needs {
	NEEDS_ROOT = 1,
	NEEDS_CHILD = 2, /* changes the process it runs in, or might hang */
	NEEDS_SCRATCH = 4, /* a folder in the store */
};

struct check {
	const char *group, *name;
	bool required;
	unsigned needs;
	probe_fn *probe;
	const char *loss; /* without it … */
	const char *advice; /* what to do, unless the probe knows better */
};

static const struct check checks[] = {
	{"kernel", "version", true, 0, probe_kernel, "hob has not been tried on older ones",
		"install a newer kernel (Debian 12: from backports)"},
	{"kernel", "root", true, 0, probe_root,
		"hobd and hob-build are started as root, and drop it", "run `sudo hob doctor`"},
	{"kernel", "namespaces", true, NEEDS_ROOT | NEEDS_CHILD, probe_namespaces,
		"sandboxes cannot be made",
		"in a container: give it CAP_SYS_ADMIN, or use the host"},
	{"kernel", "namespace limits", false, 0, probe_namespace_counts,
		"fewer sandboxes than max_sandboxes", ""},
	{"kernel", "pidfd", true, NEEDS_CHILD, probe_pidfd, "sandboxes cannot be watched",
		"install a newer kernel"},
	{"kernel", "openat2", true, 0, probe_openat2, "paths cannot be kept in their folder",
		"install a newer kernel"},
	{"kernel", "seccomp", true, NEEDS_CHILD, probe_seccomp, "system calls cannot be filtered",
		"use a kernel with CONFIG_SECCOMP_FILTER"},
	{"cgroups", "hierarchies", true, 0, probe_cgroups,
		"sandboxes cannot be ended for certain, nor limited",
		"mount -t cgroup2 none /sys/fs/cgroup"},
	{"cgroups", "cpu", false, NEEDS_ROOT | NEEDS_CHILD, probe_cpu,
		"limits.cpus is not enforced", "boot without cgroup_disable=cpu"},
	{"cgroups", "memory", false, NEEDS_ROOT | NEEDS_CHILD, probe_memory,
		"limits.memory is not enforced", "boot with cgroup_enable=memory"},
	{"cgroups", "pids", false, NEEDS_ROOT | NEEDS_CHILD, probe_pids,
		"limits.pids is not enforced", "use a kernel with CONFIG_CGROUP_PIDS"},
	{"cgroups", "clone into", false, NEEDS_ROOT | NEEDS_CHILD, probe_clone_into,
		"a sandbox joins its group after its start, which is slower", "mount cgroup2"},
	{"cgroups", "freeze", false, NEEDS_ROOT | NEEDS_CHILD, probe_freeze,
		"the older freezer is used, whose processes must be thawed to be killed",
		"mount cgroup2"},
	{"cgroups", "kill", false, NEEDS_ROOT | NEEDS_CHILD, probe_kill,
		"a sandbox's processes are killed one by one, again and again",
		"mount cgroup2; Linux 5.14"},
	{"store", "file system", true, 0, probe_store, "there is no place for images", ""},
	{"store", "space", false, 0, probe_space,
		"builds wait and pools shrink when little is free",
		"remove old images (`hob images ls`, `hob images rm`), or enlarge it"},
	{"store", "mapped mounts", true, NEEDS_ROOT | NEEDS_CHILD | NEEDS_SCRATCH, probe_idmap,
		"sandboxes cannot share layers",
		"put `store` on xfs (with reflink), ext4 or btrfs"},
	{"store", "overlay", true, NEEDS_ROOT | NEEDS_CHILD | NEEDS_SCRATCH, probe_overlay,
		"sandboxes have no file system",
		"load the module overlay; put `store` on xfs, ext4 or btrfs"},
	{"store", "overlay layers", false, NEEDS_ROOT | NEEDS_CHILD | NEEDS_SCRATCH, probe_layers,
		"images are limited to few layers", "Linux 6.13 takes layers by descriptor"},
	{"store", "host's /usr", false, NEEDS_ROOT | NEEDS_CHILD, probe_host_usr,
		"environments with `base: host` do not work", "use a base of another kind"},
	{"store", "reflink", false, NEEDS_CHILD | NEEDS_SCRATCH, probe_reflink,
		"large files are copied byte by byte when a sandbox first writes to them",
		"put `store` on xfs (with reflink) or btrfs"},
	{"store", "project quota", false, NEEDS_ROOT | NEEDS_CHILD, probe_quota,
		"limits.disk is held to by looking now and then, not by the kernel",
		"mount the store's file system with prjquota"},
	{"store", "run folder", false, 0, probe_run,
		"each change of a sandbox's state is written to disk",
		"set `run` to a folder on a tmpfs, as /run usually is"},
	{"machine", "user", true, 0, probe_user, "hobd cannot give up root", ""},
	{"machine", "group", true, 0, probe_group, "nobody may be let in to the API", ""},
	{"machine", "ids", true, 0, probe_ids, "sandboxes have no user ids of their own",
		"give the user of hob a range in /etc/subuid and /etc/subgid"},
	{"machine", "open files", false, 0, probe_files, "fewer sandboxes than max_sandboxes", ""},
	{"machine", "inotify", true, NEEDS_CHILD, probe_inotify,
		"hobd does not see new images and environments", ""},
	{"machine", "swap", false, 0, probe_swap, "the memory of idle sandboxes stays in use",
		"set up swap or zram, if memory is short"},
	{"machine", "mmdebstrap", false, 0, probe_mmdebstrap,
		"environments with `base: deb:…` cannot make it",
		"apt-get install mmdebstrap debian-archive-keyring"},
	{"hob", "programs", true, 0, probe_programs, "hob cannot build or run anything",
		"install all of hob into one folder (`make install`)"},
	{"hob", "environments", false, 0, probe_environments, "there is nothing to build",
		"put a YAML file there; configs/environments has an example"},
	{"hob", "hobd", false, NEEDS_CHILD, probe_hobd, "no sandboxes are kept warm",
		"start hobd (`systemctl start hobd`, or as root by hand)"},
};

struct values {
	bool json, help;
	const char *config;
};

static const struct option_row options[] = {
	{"json", '\0', OPTION_FLAG, NULL, offsetof(struct values, json),
		"print JSON, for programs"},
	{"config", '\0', OPTION_TEXT, "FILE", offsetof(struct values, config),
		"hob.yaml to read instead of " CONFIG_DEFAULT_PATH " (also $HOB_CONFIG)"},
	{"help", 'h', OPTION_FLAG, NULL, offsetof(struct values, help), "print this help"},
};

void finding_set(struct finding *finding, enum finding_state state, const char *format, ...)
{
	va_list args;

	finding->state = state;
	va_start(args, format);
	vsnprintf(finding->value, sizeof(finding->value), format, args);
	va_end(args);
}

void finding_advise(struct finding *finding, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(finding->advice, sizeof(finding->advice), format, args);
	va_end(args);
}

void finding_fail(struct finding *finding, const struct error *err)
{
	finding_set(finding, FINDING_LACKING, "%s", err->message);
	if (err->hint[0] != '\0') {
		finding_advise(finding, "%s", err->hint);
	}
}

void finding_fail_sys(struct finding *finding, const char *what)
{
	int saved = errno;

	finding_set(finding, FINDING_LACKING, "%s: %s", what, strerror(saved));
	errno = saved;
}

/* In the child: mounts stay here, and it does not outlive its parent. */
static void child_main(
	const struct check *check, const struct doctor *doctor, struct finding *finding)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(PROBE_SECONDS);
	if (geteuid() == 0 && (unshare(CLONE_NEWNS) < 0 ||
				      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)) {
		finding_fail_sys(finding, "a mount namespace");
	} else {
		check->probe(doctor, finding);
	}
	_exit(0);
}

static void run_in_child(
	const struct check *check, const struct doctor *doctor, struct finding *ret_finding)
{
	struct finding *shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid;

	if (shared == MAP_FAILED) {
		finding_fail_sys(ret_finding, "mmap");
		return;
	}
	finding_set(shared, FINDING_LACKING, "no answer");
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		child_main(check, doctor, shared);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		finding_fail_sys(ret_finding, "fork");
	} else if (WIFSIGNALED(status)) {
		probe_cgroups_sweep(doctor, pid);
		finding_set(ret_finding, FINDING_LACKING,
			WTERMSIG(status) == SIGALRM ? "no answer within %d seconds"
						    : "the probe was ended by signal %d",
			WTERMSIG(status) == SIGALRM ? PROBE_SECONDS : WTERMSIG(status));
	} else {
		*ret_finding = *shared;
	}
	munmap(shared, sizeof(*shared));
}

static void check_run(
	const struct check *check, const struct doctor *doctor, struct finding *finding)
{
	*finding = (struct finding){0};
	if ((check->needs & NEEDS_ROOT) != 0 && geteuid() != 0) {
		finding_set(finding, FINDING_UNTRIED, "needs root");
	} else if ((check->needs & NEEDS_SCRATCH) != 0 && doctor->scratch == NULL) {
		finding_set(
			finding, FINDING_UNTRIED, "no folder can be made in %s", doctor->folder);
	} else if ((check->needs & NEEDS_CHILD) != 0) {
		run_in_child(check, doctor, finding);
	} else {
		check->probe(doctor, finding);
	}
	if (finding->advice[0] == '\0') {
		finding_advise(finding, "%s", check->advice);
	}
}

static const char *state_name(const struct check *check, const struct finding *finding)
{
	static const char *const names[] = {[FINDING_OK] = "ok",
		[FINDING_WARN] = "warn",
		[FINDING_LACKING] = "missing",
		[FINDING_UNTRIED] = "untried"};
	_Static_assert(ARRAY_SIZE(names) == FINDING_STATES, "every state has a name");

	return names[finding->state == FINDING_LACKING && !check->required ? FINDING_WARN
									   : finding->state];
}

static void print_line(const struct check *check, const struct finding *finding)
{
	const char *state = state_name(check, finding);
	enum style style = streq(state, "ok")        ? STYLE_GOOD
			   : streq(state, "missing") ? STYLE_BAD
						     : STYLE_WARN;

	style_print(state, style);
	printf("%*s%-8s %-17s ", (int)(9 - strlen(state)), "", check->group, check->name);
	style_print(finding->value, STYLE_PLAIN);
	putchar('\n');
	if (finding->state == FINDING_WARN || finding->state == FINDING_LACKING) {
		printf("%36swithout it: %s\n", "", check->loss);
		if (finding->advice[0] != '\0') {
			printf("%36swhat to do: ", "");
			style_print(finding->advice, STYLE_PLAIN);
			putchar('\n');
		}
	}
}

static json_t *line_json(const struct check *check, const struct finding *finding)
{
	bool good = finding->state == FINDING_OK;
	json_t *json = json_object();

	json_object_set_new(json, "group", json_string(check->group));
	json_object_set_new(json, "name", json_string(check->name));
	json_object_set_new(json, "state", json_string(state_name(check, finding)));
	json_object_set_new(json, "required", json_boolean(check->required));
	json_object_set_new(json, "found", json_str_or_null(finding->value));
	json_object_set_new(json, "lost", good ? json_null() : json_string(check->loss));
	json_object_set_new(json, "advice",
		good || finding->advice[0] == '\0' ? json_null()
						   : json_str_or_null(finding->advice));
	return json;
}

/* True when nothing required is missing or was left untried. */
static bool checks_run(const struct doctor *doctor, bool json)
{
	CLEANUP(json_decref_p) json_t *lines = json_array();
	CLEANUP(json_decref_p) json_t *whole = json_object();
	size_t required = 0, other = 0;

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct finding finding;

		check_run(&checks[i], doctor, &finding);
		if (checks[i].required &&
			(finding.state == FINDING_LACKING || finding.state == FINDING_UNTRIED)) {
			required++;
		} else if (finding.state != FINDING_OK) {
			other++;
		}
		if (json) {
			json_array_append_new(lines, line_json(&checks[i], &finding));
		} else {
			print_line(&checks[i], &finding);
		}
	}
	if (json) {
		json_object_set_new(whole, "ok", json_boolean(required == 0));
		json_object_set(whole, "checks", lines);
		human_print_json(whole);
	} else if (required == 0) {
		printf("\nhob can run here%s\n", other > 0 ? ", with what the warnings say" : "");
	} else {
		printf("\nhob cannot run here: %zu of the required things are missing or untried\n",
			required);
	}
	return required == 0;
}

/* The folder itself, or the nearest one above it that exists. */
static char *existing_folder(const char *path)
{
	char *folder = xstrdup(path);
	struct stat st;

	while (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode)) {
		char *slash = strrchr(folder, '/');

		if (slash == folder) {
			folder[1] = '\0';
			break;
		}
		*slash = '\0';
	}
	return folder;
}

/* Signals wait until the scratch folder is gone again. */
static bool doctor_run(const struct config *config, bool json)
{
	CLEANUP(free_p) char *folder = existing_folder(config->store);
	CLEANUP(free_p) char *scratch = xasprintf("%s/.hob-doctor-XXXXXX", folder);
	struct doctor doctor = {.config = config, .folder = folder};
	struct error err = ERROR_INIT;
	sigset_t blocked, before;
	bool good;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	doctor.scratch = mkdtemp(scratch);
	good = checks_run(&doctor, json);
	if (doctor.scratch != NULL && io_remove_tree(AT_FDCWD, doctor.scratch, &err) < 0) {
		error_print(PROGRAM, &err);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return good;
}

static void print_help(void)
{
	puts("Usage: hob doctor [options]\n\n"
	     "Tries out what hob needs of this machine and says what is there, what is lost "
	     "without\n"
	     "it, and what to do. Leaves nothing behind. Ends with 0 when everything required is\n"
	     "there, else with 9.\n");
	options_print(options, ARRAY_SIZE(options));
}

int doctor_main(int argc, char **argv)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	struct values values = {0};
	const struct option_set set = {options, ARRAY_SIZE(options), &values};
	struct error err = ERROR_INIT;
	size_t operands = 0;

	if (argc > 0 && options_parse(&set, 1, OPTIONS_NO_COMMAND, argv + 1, &operands, &err) < 0) {
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	if (argc > 0 && operands > 0) {
		error_set(&err, ERROR_USAGE, "takes no arguments, but got \"%s\"", argv[1]);
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	if (values.help) {
		print_help();
		return 0;
	}
	if (config_load(values.config, &config, &err) < 0) {
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	return doctor_run(config, values.json) ? 0 : error_exit_code(ERROR_UNAVAILABLE);
}
