/*
 * mmdebstrap with an init above it: whatever it leaves running ends with the process namespace,
 * and the namespace with this process, however that ends. What it says is handed on line by line;
 * the complaints among it tell what went wrong.
 */
#include "builder/bases/deb.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/process.h"
#include "builder/child.h"
#include "configs/deb_reference.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define MEASURE_FIRST_MS 1000
#define MEASURE_SHARE 10 /* at most a tenth of the time goes into measuring */
#define LINE_MAX_BYTES 1000
#define COMPLAINTS_MAX 480 /* they must fit an error, with words around */

/* ---- the init ---- */

static void run_program(const struct deb_run *run, int output)
{
	int null = open("/dev/null", O_RDONLY);

	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
		dup2(output, STDERR_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0U, 0) < 0) {
		_exit(126);
	}
	execve(run->argv[0], run->argv, run->env);
	dprintf(STDERR_FILENO, "E: cannot start %s: %s\n", run->argv[0], strerror(errno));
	_exit(127);
}

/* `alive` ends when the process above does. */
static void be_init(const struct deb_run *run, int output, int alive)
{
	struct pollfd end = {.fd = alive, .events = POLLIN};
	pid_t program, ended;
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&end, 1, 0) != 0) {
		_exit(1); /* it died before it was asked for */
	}
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
		errno = 0; /* the machine's stays */
	}
	program = fork();
	if (program == 0) {
		run_program(run, output);
	}
	close(output);
	while ((ended = waitpid(-1, &status, 0)) != program || program < 0) {
		if (program < 0 || (ended < 0 && errno != EINTR)) {
			_exit(1);
		}
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* ---- what it says ---- */

struct listening {
	struct child *child;
	struct buffer line;
	struct buffer complaints; /* the last of them */
	uint64_t lines;
};

static void take_line(struct listening *listening)
{
	const char *text = buffer_text(&listening->line);
	bool complaint = str_starts(text, "E: ") || str_starts(text, "Err:") ||
			 str_starts(text, "W: GPG error") || str_starts(text, "dpkg: error");

	listening->lines++;
	child_line(listening->child, "%s", text);
	if (complaint) {
		size_t length = listening->line.length + 1;

		while (listening->complaints.length + length > COMPLAINTS_MAX &&
			listening->complaints.length > 0) {
			buffer_consume(&listening->complaints,
				strcspn(buffer_text(&listening->complaints), "\n") + 1);
		}
		buffer_addf(&listening->complaints, "%.*s\n", COMPLAINTS_MAX - 2, text);
	}
	buffer_clear(&listening->line);
}

static void take_bytes(struct listening *listening, const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		bool end = data[i] == '\n' || data[i] == '\r';

		if (!end && ((unsigned char)data[i] >= 0x20 || data[i] == '\t')) {
			buffer_add(&listening->line, &data[i], 1);
		}
		if ((end && listening->line.length > 0) ||
			listening->line.length >= LINE_MAX_BYTES) {
			take_line(listening);
		}
	}
}

static int measure(const struct deb_run *run, int64_t *ret_next_ms, struct error *err)
{
	struct tree_usage usage = {0};
	int64_t start_ms = clock_mono_ms(), took_ms;

	/* While it works, folders come and go, so a walk that fails is no failure. */
	if (io_tree_usage(run->tree_fd, ".", &usage, err) < 0) {
		*err = ERROR_INIT;
	}
	took_ms = clock_mono_ms() - start_ms;
	*ret_next_ms = clock_mono_ms() + MEASURE_FIRST_MS + MEASURE_SHARE * took_ms;
	if (run->bytes_max == 0 || usage.stored <= run->bytes_max) {
		return 0;
	}
	error_set(err, ERROR_NO_SPACE, "it needs more than the %llu MiB of limits.disk",
		(unsigned long long)run->bytes_max / (1024 * 1024));
	return error_hint(err, "raise `limits: {disk: …}` of the environment");
}

/* Until nobody can say anything any more. */
static int listen_to(
	const struct deb_run *run, int fd, struct listening *listening, struct error *err)
{
	int64_t next_ms = clock_mono_ms() + MEASURE_FIRST_MS;

	for (;;) {
		struct pollfd from = {.fd = fd, .events = POLLIN};
		int64_t wait_ms = next_ms - clock_mono_ms();
		char data[4096];
		ssize_t got;

		if (wait_ms <= 0) {
			if (measure(run, &next_ms, err) < 0) {
				return -(int)err->kind;
			}
			continue;
		}
		if (poll(&from, 1, (int)wait_ms) <= 0) {
			continue;
		}
		got = read(fd, data, sizeof(data));
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			return measure(run, &next_ms, err);
		}
		take_bytes(listening, data, (size_t)got);
	}
}

/* ---- what went wrong ---- */

static int explain(int code, const struct listening *listening, struct error *err)
{
	static const struct {
		const char *words;
		enum error_kind kind;
		const char *hint;
	} reasons[] = {
		{"No space left", ERROR_NO_SPACE, "make room on the disk of the store"},
		{"NO_PUBKEY", ERROR_CORRUPT,
			"base.keyring must hold the key that signs this mirror's release"},
		{"is not signed", ERROR_CORRUPT,
			"base.keyring must hold the key that signs this mirror's release"},
		{"The following signatures", ERROR_CORRUPT,
			"base.keyring must hold the key that signs this mirror's release"},
		{"Hash Sum mismatch", ERROR_CORRUPT,
			"the mirror was changing, or something between it and here changes what it "
			"sends; try again"},
		{"resolv", ERROR_REMOTE, "check the network, or name another base.mirror"},
		{"onnect", ERROR_REMOTE, "check the network, or name another base.mirror"},
		{"404", ERROR_REMOTE, "has the mirror this suite, and is it as old as the date?"},
		{"does not have a Release file", ERROR_REMOTE,
			"has the mirror this suite, and is it as old as the date?"},
		{"Failed to fetch", ERROR_REMOTE, "check the network, or name another base.mirror"},
	};
	const char *said = buffer_text(&listening->complaints);

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (strstr(said, reasons[i].words) != NULL) {
			error_set(err, reasons[i].kind, "mmdebstrap failed:\n%s", said);
			return error_hint(err, "%s", reasons[i].hint);
		}
	}
	return error_set(err, ERROR_FAILED, "mmdebstrap failed with exit code %d%s%s", code,
		said[0] != '\0' ? ":\n" : "; its output tells why", said);
}

int deb_run(struct child *child, const struct deb_run *run, struct error *err)
{
	struct listening listening = {.child = child};
	struct error ending = ERROR_INIT;
	int output[2], alive[2], status, code = 0;
	pid_t init;

	if (pipe2(output, O_CLOEXEC) < 0 || pipe2(alive, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "pipe");
	}
	init = fork();
	if (init == 0) {
		close(output[0]);
		close(alive[1]);
		be_init(run, output[1], alive[0]);
	}
	close(output[1]);
	close(alive[0]);
	if (init < 0) {
		return error_sys(err, errno, "fork");
	}
	status = listen_to(run, output[0], &listening, err);
	if (status < 0) {
		kill(init, SIGKILL);
	}
	if (process_wait(init, &code, &ending) < 0) {
		code = 1;
	}
	if (status == 0 && code != 0) {
		if (listening.complaints.length > 0) {
			listening.complaints.data[--listening.complaints.length] = '\0';
		}
		status = explain(code, &listening, err);
	}
	close(output[0]);
	close(alive[1]);
	buffer_done(&listening.line);
	buffer_done(&listening.complaints);
	return status;
}

int deb_check_release(const char *release, const char *date, struct error *err)
{
	struct tm tm = {0};
	const char *end = strptime(release, "%a, %d %b %Y %H:%M:%S", &tm);
	int64_t wanted_ms, made_ms;
	char made[DEB_DATE_SIZE];

	if (end == NULL || (!str_starts(end, " UTC") && !str_starts(end, " GMT") &&
				   !str_starts(end, " +0000"))) {
		return error_set(err, ERROR_CORRUPT,
			"the mirror's release has no date, so nobody can say of when it is");
	}
	made_ms = (int64_t)timegm(&tm) * 1000;
	if (!deb_date_parse(date, &wanted_ms)) {
		return error_set(err, ERROR_INTERNAL, "%s is no date", date);
	}
	if (made_ms <= wanted_ms) {
		return 0;
	}
	strftime(made, sizeof(made), "%Y%m%dT%H%M%SZ", &tm);
	error_set(err, ERROR_CONFLICT, "the mirror's release is of %s, which is after %s", made,
		date);
	return error_hint(err,
		"it keeps no old ones: write {date} into base.mirror where it does, or take %s",
		made);
}
