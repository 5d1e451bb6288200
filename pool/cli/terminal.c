/* Raw mode with a way back on every exit: atexit for the orderly ones, handlers for signals that
 * would kill. tcsetattr is async-signal-safe. */
#include "pool/cli/terminal.h"

#include "base/memory.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

static struct {
	int fd;
	bool known; /* before and raw are set */
	volatile sig_atomic_t active;
	struct termios before, raw;
} terminal = {.fd = -1};

void terminal_restore(void)
{
	if (terminal.active) {
		int saved = errno;

		terminal.active = 0;
		/* Not TCSADRAIN: a stuck terminal must not keep the process from ending. */
		tcsetattr(terminal.fd, TCSANOW, &terminal.before);
		errno = saved;
	}
}

void terminal_resume(void)
{
	if (terminal.known && tcsetattr(terminal.fd, TCSANOW, &terminal.raw) == 0) {
		terminal.active = 1;
	}
}

static void on_deadly(int signal_number)
{
	terminal_restore();
	/* SA_RESETHAND has put the default back: this time it kills. */
	raise(signal_number);
}

static void catch_deadly(void)
{
	static const int deadly[] = {
		SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM, SIGXCPU, SIGPIPE};
	struct sigaction action = {.sa_handler = on_deadly, .sa_flags = (int)SA_RESETHAND};

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
		struct sigaction old;

		if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
			sigaction(deadly[i], &action, NULL);
		}
	}
}

int terminal_raw(int fd, struct error *err)
{
	if (!terminal.known) {
		if (tcgetattr(fd, &terminal.before) < 0) {
			return error_sys(err, errno, "read the terminal's settings");
		}
		terminal.raw = terminal.before;
		cfmakeraw(&terminal.raw);
		terminal.fd = fd;
		terminal.known = true;
		atexit(terminal_restore);
		catch_deadly();
	}
	if (!terminal.active) {
		if (tcsetattr(terminal.fd, TCSANOW, &terminal.raw) < 0) {
			return error_sys(err, errno, "make the terminal raw");
		}
		terminal.active = 1;
	}
	return 0;
}

bool terminal_size(uint16_t *ret_rows, uint16_t *ret_cols)
{
	static const int fds[] = {STDOUT_FILENO, STDIN_FILENO};
	struct winsize size;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (ioctl(fds[i], TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
			*ret_rows = size.ws_row;
			*ret_cols = size.ws_col;
			return true;
		}
	}
	return false;
}
