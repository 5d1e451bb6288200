/* The terminal that hob runs in: raw while a session owns it, and as it was whatever happens. */
#ifndef HOB_POOL_CLI_TERMINAL_H
#define HOB_POOL_CLI_TERMINAL_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* Puts the terminal at `fd` into raw mode. It is restored by terminal_restore, at exit, and when a
 * signal kills this process. One terminal at a time. */
MUSTCHECK int terminal_raw(int fd, struct error *err);
/* Does nothing when it is not raw. Safe in a signal handler. */
void terminal_restore(void);
/* Raw again, after a stop in which the shell has put in its own settings. */
void terminal_resume(void);

/* Rows and columns of whichever of standard input and output is a terminal; false if none is. */
bool terminal_size(uint16_t *ret_rows, uint16_t *ret_cols);

#endif
