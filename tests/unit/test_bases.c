/* Skeletons of bases and downloads: what comes along from a machine, what must not, digests,
 * resuming and giving up. */
#include "tests/lib/test.h"

#include "builder/base.h"
#include "builder/download.h"
#include "builder/machine.h"
#include "builder/report.h"

#include "base/digest.h"
#include "base/io.h"
#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- skeletons ---- */

struct machine_root {
	char *folder;
	int root_fd, tree_fd;
	struct error err;
};

static void make(struct machine_root *fake, const char *path, mode_t mode, const char *text)
{
	CLEANUP(free_p) char *full = xasprintf("%s/root/%s", fake->folder, path);
	CLEANUP(free_p) char *parent = xstrndup(full, (size_t)(strrchr(full, '/') - full));

	assert_ok(io_mkdir_all(AT_FDCWD, parent, 0755, &fake->err), &fake->err);
	{
		CLEANUP(close_p)
		int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

		assert_int_equal(write(fd, text, strlen(text)), strlen(text));
		assert_int_equal(fchmod(fd, mode), 0);
	}
}

static int setup_root(void **state)
{
	struct machine_root *fake = xcalloc(1, sizeof(*fake));
	CLEANUP(free_p) char *tree = NULL, *root = NULL;

	fake->folder = temp_folder();
	tree = xasprintf("%s/tree", fake->folder);
	root = xasprintf("%s/root", fake->folder);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(root, 0755), 0);
	fake->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fake->tree_fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(symlinkat("usr/bin", fake->root_fd, "bin"), 0);
	assert_int_equal(symlinkat("usr/lib", fake->root_fd, "lib"), 0);
	assert_int_equal(symlinkat("elsewhere", fake->root_fd, "other"), 0);
	make(fake, "etc/shadow", 0640, "root:secret:");
	make(fake, "etc/passwd", 0644, "joe:x:1001:1001:Joe Secret:/home/joe:/bin/sh\n");
	make(fake, "etc/hostname", 0644, "secret-host\n");
	make(fake, "etc/machine-id", 0444, "secret-machine\n");
	make(fake, "etc/resolv.conf", 0644, "nameserver secret\n");
	make(fake, "etc/gitconfig", 0644, "[credential] secret\n");
	make(fake, "etc/ssh/ssh_host_key", 0600, "secret");
	make(fake, "etc/ssl/certs/ca.crt", 0644, "certificate\n");
	make(fake, "etc/ssl/private/server.pem", 0644, "secret");
	make(fake, "etc/ssl/certs/server.key", 0644, "secret");
	make(fake, "etc/ssl/certs/hidden", 0640, "secret");
	make(fake, "etc/profile.d/run.sh", 0755, "#!/bin/sh\n");
	make(fake, "etc/npmrc", 0644, "cafile=/etc/ca\n//registry/:_authToken=secret\n");
	make(fake, "etc/application-of-ours", 0644, "secret");
	assert_int_equal(symlinkat("/usr/share/zoneinfo/UTC", fake->root_fd, "etc/localtime"), 0);
	*state = fake;
	return 0;
}

static int teardown_root(void **state)
{
	struct machine_root *fake = *state;

	close(fake->root_fd);
	close(fake->tree_fd);
	temp_remove(fake->folder);
	free(fake);
	return 0;
}

static void assert_mode(const struct machine_root *fake, const char *path, mode_t mode)
{
	struct stat seen;

	if (fstatat(fake->tree_fd, path, &seen, AT_SYMLINK_NOFOLLOW) < 0) {
		fail_msg("%s: %s", path, strerror(errno));
	}
	assert_int_equal(seen.st_mode, mode);
}

static char *text_of(struct machine_root *fake, const char *path)
{
	CLEANUP(buffer_done) struct buffer text = {0};

	assert_ok(io_read_file(fake->tree_fd, path, &text, &fake->err), &fake->err);
	return buffer_steal(&text);
}

static void test_host_skeleton(void **state)
{
	struct machine_root *fake = *state;
	CLEANUP(free_p) char *npmrc = NULL, *passwd = NULL;

	umask(0);
	assert_ok(skeleton_host_write(fake->root_fd, fake->tree_fd, &fake->err), &fake->err);
	umask(022);
	assert_mode(fake, "bin", S_IFLNK | 0777);
	assert_mode(fake, "tmp", S_IFDIR | 01777);
	assert_mode(fake, "var/tmp", S_IFDIR | 01777);
	assert_mode(fake, "root", S_IFDIR | 0700);
	assert_mode(fake, "proc", S_IFDIR | 0555);
	assert_mode(fake, "workspace", S_IFDIR | 0755);
	assert_mode(fake, "etc/ssl/certs/ca.crt", S_IFREG | 0644);
	assert_mode(fake, "etc/profile.d/run.sh", S_IFREG | 0755);
	assert_mode(fake, "etc/localtime", S_IFLNK | 0777);
	assert_mode(fake, "etc/mtab", S_IFLNK | 0777);
	passwd = text_of(fake, "etc/passwd");
	assert_contains(passwd, "agent:x:1000:");
	npmrc = text_of(fake, "etc/npmrc");
	assert_string_equal(npmrc, "cafile=/etc/ca\n");
}

/* Nothing that says "secret" on the machine says it in the tree, in content or name. */
static void test_no_secret_comes_along(void **state)
{
	struct machine_root *fake = *state;
	CLEANUP(free_p) char *tree = xasprintf("%s/tree", fake->folder);
	char *const argv[] = {(char *)"grep", (char *)"-ri", (char *)"secret", tree, NULL};
	CLEANUP(free_p) char *found = NULL;
	int code = 0;

	assert_ok(skeleton_host_write(fake->root_fd, fake->tree_fd, &fake->err), &fake->err);
	assert_ok(process_run(argv, &found, &code, &fake->err), &fake->err);
	assert_string_equal(found, "");
	assert_int_equal(faccessat(fake->tree_fd, "other", F_OK, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(faccessat(fake->tree_fd, "etc/shadow", F_OK, 0), -1);
	assert_int_equal(faccessat(fake->tree_fd, "etc/gitconfig", F_OK, 0), -1);
}

static void test_host_key(void **state)
{
	struct machine_root *fake = *state;
	char first[SHA256_TEXT_SIZE], second[SHA256_TEXT_SIZE], third[SHA256_TEXT_SIZE];

	assert_ok(skeleton_host_key(fake->root_fd, first, &fake->err), &fake->err);
	make(fake, "etc/hostname", 0644, "other-host\n");
	assert_ok(skeleton_host_key(fake->root_fd, second, &fake->err), &fake->err);
	assert_string_equal(first, second);
	make(fake, "etc/ssl/certs/new.crt", 0644, "certificate\n");
	assert_ok(skeleton_host_key(fake->root_fd, third, &fake->err), &fake->err);
	assert_string_not_equal(first, third);
}

static void test_host_without_merged_usr(void **state)
{
	struct machine_root *fake = *state;

	assert_int_equal(unlinkat(fake->root_fd, "bin", 0), 0);
	assert_kind(skeleton_host_write(fake->root_fd, fake->tree_fd, &fake->err), &fake->err,
		ERROR_UNSUPPORTED);
}

static void test_mount_points_must_be_folders(void **state)
{
	struct machine_root *fake = *state;

	assert_int_equal(symlinkat("/canary", fake->tree_fd, "dev"), 0);
	assert_kind(skeleton_write(fake->tree_fd, &fake->err), &fake->err, ERROR_INVALID);
	assert_contains(fake->err.message, "/dev");
}

static void test_npmrc(void **state)
{
	static const char *const dropped[] = {"_auth=abc", "//r/:_authToken=x", "_password = x",
		"email=a@b", "password=x", "//r/:certfile=/x", "registry=https://me:pw@r/"};
	CLEANUP(free_p) char *kept = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++) {
		CLEANUP(free_p) char *text = NULL;

		assert_int_equal(skeleton_npmrc(dropped[i], &text), 1);
		assert_string_equal(text, "");
	}
	assert_int_equal(skeleton_npmrc("registry=https://r/\nfund=false", &kept), 0);
	assert_string_equal(kept, "registry=https://r/\nfund=false\n");
}

/* ---- downloads ---- */

#define CONTENT_BYTES 300000

struct bench {
	char *folder;
	struct report *report;
	struct machine machine;
	pid_t server;
	int server_stdin, port;
	char *url;
	char sha256[SHA256_TEXT_SIZE];
	struct download task;
	struct error err;
};

/* Serves one file in several moods: /good, /cut (half, then all by a range), /flaky (503 once),
 * /norange (never a range), /missing. */
static const char server_text[] =
	"import http.server,sys,threading\n"
	"data=open(sys.argv[1],'rb').read()\n"
	"seen=set()\n"
	"class H(http.server.BaseHTTPRequestHandler):\n"
	" def log_message(self,*a): pass\n"
	" def do_GET(self):\n"
	"  mood=self.path[1:]; first=mood not in seen; seen.add(mood)\n"
	"  if mood=='missing' or (mood=='flaky' and first):\n"
	"   self.send_error(404 if mood=='missing' else 503); return\n"
	"  if mood=='hang': threading.Event().wait()\n"
	"  start=0; r=self.headers.get('Range')\n"
	"  if r and mood!='norange': start=int(r.split('=')[1].split('-')[0])\n"
	"  self.send_response(206 if start else 200)\n"
	"  self.send_header('Content-Length',str(len(data)-start))\n"
	"  if start: self.send_header('Content-Range','bytes "
	"%d-%d/%d'%(start,len(data)-1,len(data)))\n"
	"  self.end_headers()\n"
	"  body=data[start:]\n"
	"  if mood in('cut','norange') and first: body=body[:len(body)//2]\n"
	"  self.wfile.write(body)\n"
	"s=http.server.ThreadingHTTPServer(('127.0.0.1',0),H); s.daemon_threads=True\n"
	"threading.Thread(target=s.serve_forever,daemon=True).start()\n"
	"print(s.server_address[1],flush=True); sys.stdin.read()\n";

static void start_server(struct bench *bench)
{
	CLEANUP(free_p) char *file = xasprintf("%s/content", bench->folder);
	char *const argv[] = {
		(char *)"python3", (char *)"-c", (char *)(uintptr_t)server_text, file, NULL};
	struct process_spec spec = {.argv = argv, .stderr_fd = -1};
	int in[2], out[2], pidfd;
	FILE *reply;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	spec.stdin_fd = in[0];
	spec.stdout_fd = out[1];
	assert_ok(process_spawn(&spec, &bench->server, &pidfd, &bench->err), &bench->err);
	close(pidfd);
	close(in[0]);
	close(out[1]);
	bench->server_stdin = in[1];
	reply = fdopen(out[0], "r");
	assert_int_equal(fscanf(reply, "%d", &bench->port), 1);
	fclose(reply);
}

static int setup(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));
	CLEANUP(free_p) char *content = xmalloc(CONTENT_BYTES + 1);
	CLEANUP(free_p) char *downloads = NULL;

	bench->folder = temp_folder();
	for (size_t i = 0; i < CONTENT_BYTES; i++) {
		content[i] = (char)('a' + (i * i >> 5) % 26);
	}
	content[CONTENT_BYTES] = '\0';
	temp_write(bench->folder, "content", content);
	digest_of(content, CONTENT_BYTES, bench->sha256);
	downloads = xasprintf("%s/downloads", bench->folder);
	assert_int_equal(mkdir(downloads, 0700), 0);
	bench->report = report_new(REPORT_QUIET);
	assert_ok(machine_init(&bench->machine, NULL, bench->report, &bench->err), &bench->err);
	start_server(bench);
	bench->task = (struct download){.sha256 = bench->sha256,
		.local_fd = -1,
		.folder_fd = open(downloads, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.stall_ms = 20000};
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;
	int code;

	kill(bench->server, SIGTERM);
	(void)!process_wait(bench->server, &code, &bench->err);
	close(bench->server_stdin);
	close(bench->task.folder_fd);
	machine_done(&bench->machine);
	report_free(bench->report);
	temp_remove(bench->folder);
	free(bench->url);
	free(bench);
	return 0;
}

static int get(struct bench *bench, const char *mood, int *ret_fd)
{
	free(bench->url);
	bench->url = xasprintf("http://127.0.0.1:%d/%s", bench->port, mood);
	bench->task.location = bench->url;
	return download_get(&bench->machine, &bench->task, ret_fd, &bench->err);
}

static void assert_gets(struct bench *bench, const char *mood)
{
	char found[SHA256_TEXT_SIZE];
	int fd = -1;

	assert_ok(get(bench, mood, &fd), &bench->err);
	assert_ok(digest_of_fd(fd, found, &bench->err), &bench->err);
	assert_string_equal(found, bench->sha256);
	close(fd);
	assert_int_equal(unlinkat(bench->task.folder_fd, bench->sha256, 0), 0);
}

static void assert_folder_is_empty(struct bench *bench)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(bench->task.folder_fd, ".", &bench->err);
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.') {
			fail_msg("%s was left in downloads/", entry->d_name);
		}
	}
}

static void test_download(void **state)
{
	struct bench *bench = *state;

	assert_gets(bench, "good");
	assert_gets(bench, "flaky");
	assert_gets(bench, "cut");
	assert_gets(bench, "norange");
	assert_folder_is_empty(bench);
}

static void test_download_is_kept(void **state)
{
	struct bench *bench = *state;
	int fd = -1;

	assert_ok(get(bench, "good", &fd), &bench->err);
	close(fd);
	assert_ok(get(bench, "missing", &fd), &bench->err);
	close(fd);
}

static void test_download_resumes(void **state)
{
	struct bench *bench = *state;
	char part[SHA256_TEXT_SIZE + 8];
	CLEANUP(free_p) char *content = temp_read(bench->folder, "content");
	int fd;

	snprintf(part, sizeof(part), "%s.part", bench->sha256);
	fd = openat(bench->task.folder_fd, part, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, content, 1000), 1000);
	close(fd);
	assert_gets(bench, "good");
	/* What an earlier attempt left may be of another file. */
	fd = openat(bench->task.folder_fd, part, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, content + 1, 1000), 1000);
	close(fd);
	assert_gets(bench, "good");
}

static void test_download_fails(void **state)
{
	struct bench *bench = *state;
	char wrong[SHA256_TEXT_SIZE];
	int fd = -1;

	assert_kind(get(bench, "missing", &fd), &bench->err, ERROR_REMOTE);
	assert_contains(bench->err.message, "404");
	memset(wrong, '0', 64);
	wrong[64] = '\0';
	bench->task.sha256 = wrong;
	assert_kind(get(bench, "good", &fd), &bench->err, ERROR_CORRUPT);
	assert_contains(bench->err.message, bench->sha256);
	assert_int_equal(fd, -1);
	assert_int_equal(faccessat(bench->task.folder_fd, wrong, F_OK, 0), -1);
	bench->task.stall_ms = 400;
	assert_kind(get(bench, "hang", &fd), &bench->err, ERROR_TIMEOUT);
}

static void test_local_file(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *path = xasprintf("%s/content", bench->folder);
	int fd = -1;

	bench->task.location = path;
	bench->task.local_fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_ok(download_get(&bench->machine, &bench->task, &fd, &bench->err), &bench->err);
	close(fd);
	assert_int_equal(unlinkat(bench->task.folder_fd, bench->sha256, 0), 0);
	temp_write(bench->folder, "content", "changed");
	assert_kind(download_get(&bench->machine, &bench->task, &fd, &bench->err), &bench->err,
		ERROR_CORRUPT);
	close(bench->task.local_fd);
	assert_folder_is_empty(bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define ROOT(name) cmocka_unit_test_setup_teardown(name, setup_root, teardown_root)
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		ROOT(test_host_skeleton),
		ROOT(test_no_secret_comes_along),
		ROOT(test_host_key),
		ROOT(test_host_without_merged_usr),
		ROOT(test_mount_points_must_be_folders),
		cmocka_unit_test(test_npmrc),
		CASE(test_download),
		CASE(test_download_is_kept),
		CASE(test_download_resumes),
		CASE(test_download_fails),
		CASE(test_local_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
