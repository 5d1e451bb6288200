/* Signals for a session: caught, blocked outside of ppoll, and taken one after the other. */
#ifndef HOB_POOL_CLI_SESSION_SIGNALS_H
#define HOB_POOL_CLI_SESSION_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* INT, TERM, HUP, QUIT, USR1, USR2; with `tty` also WINCH, TSTP and CONT. A signal that is ignored
 * (by nohup, or in a script's background) stays ignored. SIGPIPE is ignored meanwhile. */
void session_signals_catch(bool tty);
/* The mask to wait with, in which they are let in. */
const sigset_t *session_signals_mask(void);
/* The next one that came, and its name without "SIG"; 0 when there is none. */
int session_signals_next(const char **ret_name);
/* As before session_signals_catch. */
void session_signals_release(void);

#endif
