/*
 * What is in every base: the mount points that the launcher needs, and for `host` the few files of
 * /etc that programs in /usr expect. Rule: only what is on the list, only what everybody may read,
 * never a key or a password; names and ids of this machine's people stay out.
 */
#include "builder/base.h"

#include "base/digest.h"
#include "base/io.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

/* A change of what is written below makes new layers. */
#define SKELETON_VERSION "1"
#define FILE_BYTES_MAX                                                                             \
	(16 * 1024 * 1024) /* ld.so.cache and certificate bundles are the largest                  \
			    */
#define DEPTH_MAX 12

/* In /etc, by fnmatch. Folders come whole. */
static const char *const etc_list[] = {
	"alternatives",
	"bash.bashrc",
	"bash_completion",
	"bash_completion.d",
	"bindresvport.blacklist",
	"ca-certificates",
	"ca-certificates.conf",
	"crypto-policies",
	"debian_version",
	"environment.d",
	"ethertypes",
	"fonts",
	"fpc*.cfg",
	"gai.conf",
	"groff",
	"host.conf",
	"inputrc",
	"issue",
	"java*",
	"ld-musl-*",
	"ld.so.cache",
	"ld.so.conf",
	"ld.so.conf.d",
	"libaudit.conf",
	"locale.alias",
	"locale.gen",
	"localtime",
	"login.defs",
	"lsb-release",
	"magic",
	"magic.mime",
	"mailcap",
	"manpath.config",
	"maven",
	"mime.types",
	"networks",
	"npmrc",
	"nsswitch.conf",
	"os-release",
	"perl",
	"pki",
	"profile",
	"profile.d",
	"protocols",
	"python3*",
	"R",
	"redhat-release",
	"rpc",
	"services",
	"shells",
	"skel",
	"ssl",
	"terminfo",
	"timezone",
	"vim",
	"xattr.conf",
	"xdg",
	"xml",
};

/* Left out wherever they are. */
static const char *const never_list[] = {
	"*.key",
	"*.pem.key",
	"*_key",
	"private",
	"*secret*",
	"*.dpkg-*",
	"*.ucf-*",
	"*~",
	"*.bak",
	"*.rpmnew",
	"shadow*",
	"*.p12",
	"*.pfx",
	"settings.xml",
	"settings-security.xml",
};

/* Our own, in place of this machine's. */
static const struct {
	const char *path, *text;
	mode_t mode;
} own_files[] = {
	{"etc/passwd",
		"root:x:0:0:root:/root:/bin/bash\n"
		"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
		"bin:x:2:2:bin:/bin:/usr/sbin/nologin\n"
		"mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n"
		"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
		"_apt:x:100:65534::/nonexistent:/usr/sbin/nologin\n"
		"agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
		"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		0644},
	{"etc/group",
		"root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:"
		"8:\n"
		"kmem:x:15:\nwww-data:x:33:\nshadow:x:42:\nutmp:x:43:\nstaff:x:50:\nusers:x:100:\n"
		"agent:x:1000:\nnogroup:x:65534:\n",
		0644},
	{"etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", 0644},
	{"etc/hostname", "", 0644},
	{"etc/machine-id", "", 0444},
	{"etc/resolv.conf", "", 0644},
	{"etc/fstab", "", 0644},
};

static const struct {
	const char *path;
	mode_t mode;
} own_folders[] = {
	{"etc", 0755},
	{"home", 0755},
	{"home/agent",
		0777}, /* the layer has one owner; in a sandbox there is nobody else to keep out */
	{"media", 0755},
	{"mnt", 0755},
	{"opt", 0755},
	{"root", 0700},
	{"srv", 0755},
	{"usr", 0755},
	{"var", 0755},
	{"var/cache", 0755},
	{"var/lib", 0755},
	{"var/log", 0755},
	{"var/mail", 0755},
	{"var/spool", 0755},
	{"var/tmp", 01777},
	{"workspace", 0755},
};

static const struct {
	const char *path;
	mode_t mode;
} mount_points[] = {
	{"dev", 0755},
	{"proc", 0555},
	{"run", 0755},
	{"sys", 0555},
	{"tmp", 01777},
};

static int make_folder(int tree_fd, const char *path, mode_t mode, struct error *err)
{
	struct stat seen;

	if (mkdirat(tree_fd, path, 0755) < 0) {
		if (errno != EEXIST) {
			return error_sys(err, errno, "make /%s", path);
		}
		if (fstatat(tree_fd, path, &seen, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISDIR(seen.st_mode)) {
			error_set(err, ERROR_INVALID, "/%s in the base is no folder", path);
			return error_hint(
				err, "a sandbox mounts something there: it must be a plain folder");
		}
		return 0;
	}
	return fchmodat(tree_fd, path, mode, 0) < 0
		       ? error_sys(err, errno, "set the mode of /%s", path)
		       : 0;
}

int skeleton_write(int tree_fd, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(mount_points); i++) {
		if (make_folder(tree_fd, mount_points[i].path, mount_points[i].mode, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

/* ---- copying from the machine, or only looking ---- */

struct copying {
	int root_fd;
	int tree_fd; /* -1: only digest */
	struct digest *digest;
};

static int copy_entry(struct copying *copying, const char *path, int depth, struct error *err);

static bool matches(const char *name, const char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (fnmatch(list[i], name, 0) == 0) {
			return true;
		}
	}
	return false;
}

static bool is_credential(const char *line, size_t length)
{
	static const char *const words[] = {"_auth", "password", "email", "username", "token",
		"keyfile", "certfile", "_key", "secret"};
	const char *equals = memchr(line, '=', length);
	CLEANUP(free_p)
	char *key = xstrndup(line, equals != NULL ? (size_t)(equals - line) : length);
	CLEANUP(free_p)
	char *value = equals != NULL ? xstrndup(equals, length - (size_t)(equals - line)) : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasestr(key, words[i]) != NULL) {
			return true;
		}
	}
	/* registry=https://me:password@host/ */
	return value != NULL && strstr(value, "://") != NULL && strchr(value, '@') != NULL;
}

size_t skeleton_npmrc(const char *text, char **ret_text)
{
	struct buffer kept = {0};
	size_t dropped = 0;

	while (*text != '\0') {
		size_t length = strcspn(text, "\n");

		if (is_credential(text, length)) {
			dropped++;
		} else {
			buffer_add(&kept, text, length);
			buffer_add_str(&kept, "\n");
		}
		text += length + (text[length] == '\n');
	}
	*ret_text = buffer_steal(&kept);
	return dropped;
}

static int write_new(int tree_fd, const char *path, const char *data, size_t length, mode_t mode,
	struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open(tree_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode, err);

	if (fd < 0) {
		return fd;
	}
	if (io_write_full(fd, data, length, err) < 0) {
		return error_wrap(err, "write /%s", path);
	}
	return fchmod(fd, mode) < 0 ? error_sys(err, errno, "set the mode of /%s", path) : 0;
}

static int copy_file(
	struct copying *copying, const char *path, const struct stat *seen, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {.max = FILE_BYTES_MAX};
	CLEANUP(free_p) char *npmrc = NULL;
	const struct timespec times[2] = {seen->st_mtim, seen->st_mtim};
	int status = io_read_file(copying->root_fd, path, &text, err);

	if (status < 0) {
		return status;
	}
	if (streq(path, "etc/npmrc")) {
		skeleton_npmrc(buffer_text(&text), &npmrc);
		status = write_new(copying->tree_fd, path, npmrc, strlen(npmrc), 0644, err);
	} else {
		status = write_new(copying->tree_fd, path, buffer_text(&text), text.length,
			(seen->st_mode & 0111) != 0 ? 0755 : 0644, err);
	}
	if (status == 0 && utimensat(copying->tree_fd, path, times, 0) < 0) {
		return error_sys(err, errno, "set the time of /%s", path);
	}
	return status;
}

static int copy_link(struct copying *copying, const char *path, struct error *err)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(copying->root_fd, path, target, sizeof(target) - 1);

	if (length < 0) {
		return error_sys(err, errno, "read the link /%s", path);
	}
	target[length] = '\0';
	digest_add_str(copying->digest, target);
	if (copying->tree_fd >= 0 && symlinkat(target, copying->tree_fd, path) < 0) {
		return error_sys(err, errno, "make the link /%s", path);
	}
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in order, so that the digest does not depend on the file system's. */
static int list_sorted(int dir_fd, const char *path, char ***ret_names, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, path, err);
	struct dirent *entry;
	char **names = NULL;
	size_t count;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			strv_add(&names, entry->d_name);
		}
	}
	count = strv_count(names);
	if (count > 1) {
		qsort(names, count, sizeof(*names), compare_names);
	}
	*ret_names = names;
	return 0;
}

static int copy_folder(struct copying *copying, const char *path, int depth, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	int status = list_sorted(copying->root_fd, path, &names, err);

	if (status == 0 && copying->tree_fd >= 0) {
		status = make_folder(copying->tree_fd, path, 0755, err);
	}
	for (size_t i = 0; status == 0 && names != NULL && names[i] != NULL; i++) {
		CLEANUP(free_p) char *below = xasprintf("%s/%s", path, names[i]);

		if (!matches(names[i], never_list, ARRAY_SIZE(never_list))) {
			status = copy_entry(copying, below, depth + 1, err);
		}
	}
	return status;
}

static void digest_entry(struct digest *digest, const char *path, const struct stat *seen)
{
	int64_t numbers[4] = {(int64_t)seen->st_mode, S_ISREG(seen->st_mode) ? seen->st_size : 0,
		S_ISREG(seen->st_mode) ? seen->st_mtim.tv_sec : 0,
		S_ISREG(seen->st_mode) ? seen->st_mtim.tv_nsec : 0};

	digest_add_str(digest, path);
	digest_add(digest, numbers, sizeof(numbers));
}

/* What is not for everybody, what vanished meanwhile, and what is no file is passed over. */
static int copy_entry(struct copying *copying, const char *path, int depth, struct error *err)
{
	struct stat seen;

	if (fstatat(copying->root_fd, path, &seen, AT_SYMLINK_NOFOLLOW) < 0 || depth > DEPTH_MAX) {
		return 0;
	}
	if (S_ISLNK(seen.st_mode)) {
		digest_entry(copying->digest, path, &seen);
		return copy_link(copying, path, err);
	}
	if ((seen.st_mode & S_IROTH) == 0) {
		return 0;
	}
	if (S_ISREG(seen.st_mode) && seen.st_size <= FILE_BYTES_MAX) {
		digest_entry(copying->digest, path, &seen);
		return copying->tree_fd >= 0 ? copy_file(copying, path, &seen, err) : 0;
	}
	if (S_ISDIR(seen.st_mode) && (seen.st_mode & S_IXOTH) != 0) {
		digest_entry(copying->digest, path, &seen);
		return copy_folder(copying, path, depth, err);
	}
	return 0;
}

/* /bin -> usr/bin and the like; a machine that still has them apart cannot lend its /usr alone. */
static int copy_top_links(struct copying *copying, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	bool merged = false;
	int status = list_sorted(copying->root_fd, ".", &names, err);

	for (size_t i = 0; status == 0 && names != NULL && names[i] != NULL; i++) {
		char target[PATH_MAX] = "";

		if (readlinkat(copying->root_fd, names[i], target, sizeof(target) - 1) > 0 &&
			(str_starts(target, "usr/") || str_starts(target, "/usr/"))) {
			merged |= streq(names[i], "bin");
			digest_add_str(copying->digest, names[i]);
			status = copy_link(copying, names[i], err);
		}
	}
	if (status == 0 && !merged) {
		error_set(err, ERROR_UNSUPPORTED,
			"base: host needs a machine whose /bin is a link into /usr");
		return error_hint(err, "use `base: {tar: …}` here");
	}
	return status;
}

static int copy_etc(struct copying *copying, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	int status = list_sorted(copying->root_fd, "etc", &names, err);

	for (size_t i = 0; status == 0 && names != NULL && names[i] != NULL; i++) {
		CLEANUP(free_p) char *path = xasprintf("etc/%s", names[i]);

		if (matches(names[i], etc_list, ARRAY_SIZE(etc_list)) &&
			!matches(names[i], never_list, ARRAY_SIZE(never_list))) {
			status = copy_entry(copying, path, 1, err);
		}
	}
	return status;
}

static int copy_host(struct copying *copying, struct error *err)
{
	int status = copy_top_links(copying, err);

	return status < 0 ? status : copy_etc(copying, err);
}

int skeleton_host_key(int root_fd, char *key, struct error *err)
{
	struct copying copying = {.root_fd = root_fd, .tree_fd = -1, .digest = digest_new()};
	int status;

	digest_add_str(copying.digest, "skeleton " SKELETON_VERSION);
	status = copy_host(&copying, err);
	if (status == 0) {
		digest_end(copying.digest, key);
	}
	digest_free(copying.digest);
	return status;
}

int skeleton_host_write(int root_fd, int tree_fd, struct error *err)
{
	struct copying copying = {.root_fd = root_fd, .tree_fd = tree_fd, .digest = digest_new()};
	int status = skeleton_write(tree_fd, err);

	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(own_folders); i++) {
		status = make_folder(tree_fd, own_folders[i].path, own_folders[i].mode, err);
	}
	if (status == 0) {
		status = copy_host(&copying, err);
	}
	digest_free(copying.digest);
	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(own_files); i++) {
		status = write_new(tree_fd, own_files[i].path, own_files[i].text,
			strlen(own_files[i].text), own_files[i].mode, err);
	}
	if (status == 0 && symlinkat("../proc/self/mounts", tree_fd, "etc/mtab") < 0) {
		return error_sys(err, errno, "make the link /etc/mtab");
	}
	return status;
}
