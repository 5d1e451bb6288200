/* A flag for each signal; several of one kind before the loop looks count as one, as in the kernel.
 */
#include "pool/cli/session_signals.h"

#include "base/memory.h"

static const struct {
	int number;
	const char *name;
	bool tty_only;
} known[] = {
	{SIGINT, "INT", false},
	{SIGTERM, "TERM", false},
	{SIGHUP, "HUP", false},
	{SIGQUIT, "QUIT", false},
	{SIGUSR1, "USR1", false},
	{SIGUSR2, "USR2", false},
	{SIGWINCH, "WINCH", true},
	{SIGTSTP, "TSTP", true},
	{SIGCONT, "CONT", true},
};

static struct {
	volatile sig_atomic_t came[ARRAY_SIZE(known)];
	bool caught[ARRAY_SIZE(known)];
	struct sigaction before[ARRAY_SIZE(known)], pipe_before;
	sigset_t mask_before;
} signals;

static void on_signal(int number)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].number == number) {
			signals.came[i] = 1;
		}
	}
}

void session_signals_catch(bool tty)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t blocked;

	sigemptyset(&blocked);
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		sigaction(known[i].number, NULL, &signals.before[i]);
		signals.came[i] = 0;
		signals.caught[i] =
			(tty || !known[i].tty_only) && signals.before[i].sa_handler != SIG_IGN;
		if (signals.caught[i]) {
			sigaddset(&blocked, known[i].number);
			sigaction(known[i].number, &action, NULL);
		}
	}
	sigaction(SIGPIPE, &ignore, &signals.pipe_before);
	sigprocmask(SIG_BLOCK, &blocked, &signals.mask_before);
}

const sigset_t *session_signals_mask(void)
{
	return &signals.mask_before;
}

int session_signals_next(const char **ret_name)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (signals.came[i]) {
			signals.came[i] = 0;
			*ret_name = known[i].name;
			return known[i].number;
		}
	}
	return 0;
}

void session_signals_release(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (signals.caught[i]) {
			sigaction(known[i].number, &signals.before[i], NULL);
		}
	}
	sigaction(SIGPIPE, &signals.pipe_before, NULL);
	sigprocmask(SIG_SETMASK, &signals.mask_before, NULL);
}
