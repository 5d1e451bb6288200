/* Commands that install packages. Each says its report on standard output, all else on the other.
 * Names and versions are of letters that the shell leaves alone in single quotes. */
#include "builder/packages/packages.h"

#include "base/buffer.h"
#include "configs/environment.h"
#include "configs/environment_packages.h"

#include <strings.h>

#define WORK "/opt/hob/work"
#define BEGIN                                                                                      \
	"set -eu\nexec 3>&1 1>&2\nwork=" WORK "\nmkdir -p $work\n"                                 \
	"need() { command -v \"$1\" >/dev/null || { echo \"there is no $1 in the base${2:+: "      \
	"$2}\"; "                                                                                  \
	"exit 127; }; }\n"

/* Two steps, so that the archives can be looked at before anything may delete them. */
static const char apt_begin[] =
	BEGIN "need apt-get\nneed sha256sum\n"
	      "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8\n"
	      "mkdir -p $work/lists/partial $work/cache/archives/partial\n"
	      "apt() { apt-get -q -y -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0"
	      " -o Acquire::Retries=3 -o Acquire::Languages=none -o Dir::State::lists=$work/lists"
	      " -o Dir::Cache=$work/cache -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
	      " -o Binary::apt-get::APT::Keep-Downloaded-Packages=true $more \"$@\"; }\n"
	      "apt update || echo 'some of the lists of packages could not be read'\n"
	      "install() { apt install --no-install-recommends --allow-downgrades \"$@\"";

static const char apt_report[] =
	"; }\ninstall --download-only\n"
	"for deb in $work/cache/archives/*.deb; do\n\t[ -e \"$deb\" ] || continue\n"
	"\tdpkg-deb -W --showformat='${Package}\\t${Architecture}\\t${Version}\\t' \"$deb\" >&3\n"
	"\tsha256sum \"$deb\" | cut -d' ' -f1 >&3\n";

/* A second libc beside that of the machine's /usr would break every command there. */
static const char apt_host_end[] =
	"\tcase $deb in */libc6_*) echo \"they need another libc than this machine's: take a base "
	"that is not host\"; exit 1 ;; esac\n"
	"\tmkdir -p " PACKAGES_ROOT "/apt\n\tdpkg-deb -x \"$deb\" " PACKAGES_ROOT "/apt\ndone\n"
	"rm -rf $work\n";
static const char apt_end[] = "done\ninstall\nrm -rf $work\nrmdir /opt/hob 2>/dev/null || :\n";

static const char npm_begin[] = BEGIN "need npm 'take one that has it, or add it to packages.apt'\n"
				      "dir=" PACKAGES_ROOT "/npm\nmkdir -p $dir\ncd $dir\n"
				      "export npm_config_cache=$work/npm npm_config_logs_max=0\n"
				      "cat > package.json <<'END'\n";
static const char npm_end[] = "END\nnpm install --no-audit --no-fund --no-update-notifier "
			      "--loglevel=warn --omit-lockfile-registry-resolved=false\n"
			      "cat package-lock.json >&3\ncd /\nrm -rf $work\n";

static const char pip_begin[] =
	BEGIN "need python3 'take one that has it, or add it to packages.apt'\n"
	      "dir=" PACKAGES_ROOT "/pip\n"
	      "python3 -m venv --without-pip --system-site-packages $dir\n"
	      "python3 -m pip --version || { echo 'there is no pip in the base: add python3-pip to "
	      "packages.apt'; exit 127; }\n"
	      "python3 -m pip --python $dir/bin/python install --help >/dev/null 2>&1 ||"
	      " { echo 'the pip of the base is too old: it must be 22.3 or newer'; exit 127; }\n"
	      "python3 -m pip --python $dir/bin/python install --ignore-installed --no-cache-dir"
	      " --no-warn-script-location --disable-pip-version-check --no-input"
	      " --progress-bar=off --root-user-action=ignore --report $work/report.json --";
static const char pip_end[] = "\ncat $work/report.json >&3\nrm -rf $work\n";

static void add_names(struct buffer *script, char *const *names)
{
	for (; *names != NULL; names++) {
		buffer_addf(script, " '%s'", *names);
	}
}

static void add_npm(struct buffer *script, char *const *names)
{
	json_t *json = json_object(), *wanted = json_object();
	char *text;

	for (; *names != NULL; names++) {
		CLEANUP(free_p) char *name = NULL;
		CLEANUP(free_p) char *version = NULL;

		package_parse(PACKAGE_NPM, *names, &name, &version);
		json_object_set_new(wanted, name, json_string(version));
	}
	json_object_set_new(json, "name", json_string("packages"));
	json_object_set_new(json, "private", json_true());
	json_object_set_new(json, "dependencies", wanted);
	text = json_dumps(json, JSON_INDENT(1));
	buffer_addf(script, "%s\n", text);
	free(text);
	json_decref(json);
}

char *package_script(const struct environment *environment, enum package_manager manager)
{
	char *const *names = environment->packages[manager];
	bool host = environment->base == BASE_HOST;
	struct buffer script;

	buffer_init(&script, 0);
	switch (manager) {
	case PACKAGE_APT:
		buffer_addf(&script, "more='%s'\n", host ? "-o Debug::NoLocking=1" : "");
		buffer_add_str(&script, apt_begin);
		add_names(&script, names);
		buffer_add_str(&script, apt_report);
		buffer_add_str(&script, environment->base == BASE_HOST ? apt_host_end : apt_end);
		break;
	case PACKAGE_NPM:
		buffer_add_str(&script, npm_begin);
		add_npm(&script, names);
		buffer_add_str(&script, npm_end);
		break;
	case PACKAGE_PIP:
		buffer_add_str(&script, pip_begin);
		add_names(&script, names);
		buffer_add_str(&script, pip_end);
		break;
	case PACKAGE_MANAGERS:
		break;
	}
	return buffer_steal(&script);
}

static bool is_for_managers(const char *entry)
{
	static const char *const starts[] = {"PATH=", "LD_LIBRARY_PATH=", "PIP_", "npm_config_",
		"NODE_EXTRA_CA_CERTS=", "SSL_CERT_",
		"REQUESTS_CA_BUNDLE=", "http_proxy=", "https_proxy=", "all_proxy=", "no_proxy="};

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		if (strncasecmp(entry, starts[i], strlen(starts[i])) == 0) {
			return true;
		}
	}
	return false;
}

char **package_env(const struct environment *environment)
{
	char **env = NULL;

	for (char **entry = environment->env; *entry != NULL; entry++) {
		if (is_for_managers(*entry)) {
			strv_add(&env, *entry);
		}
	}
	strv_add(&env, "HOME=" WORK);
	return env;
}
