/* Pseudo terminals of the sandbox's own devpts. */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#define PTMX_MAJOR 5
#define PTMX_MINOR 2
#define END_OF_INPUT 4 /* ^D, where the terminal's settings cannot be read */

int terminal_open(const struct init_size *size, uid_t owner, int *ret_master, int *ret_slave)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	int unlocked = 0;
	struct stat st;
	int slave;
	int sys;

	if (master < 0) {
		return errno;
	}
	/* A name that the sandbox could have replaced by something that is no terminal. */
	if (fstat(master, &st) < 0 || !S_ISCHR(st.st_mode) ||
		st.st_rdev != makedev(PTMX_MAJOR, PTMX_MINOR)) {
		close(master);
		return ENODEV;
	}
	(void)ioctl(master, TIOCSPTLCK, &unlocked);
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0) {
		sys = errno;
		close(master);
		return sys;
	}
	if (owner != 0) {
		(void)fchown(slave, owner, (gid_t)-1);
	}
	terminal_resize(master, size);
	*ret_master = master;
	*ret_slave = slave;
	return 0;
}

void terminal_resize(int master, const struct init_size *size)
{
	struct winsize window = {.ws_row = size->rows, .ws_col = size->cols};

	if (size->rows > 0 && size->cols > 0) {
		(void)ioctl(master, TIOCSWINSZ, &window);
	}
}

size_t terminal_end_text(int master, char text[2], bool line_is_open)
{
	struct termios settings;
	cc_t end = END_OF_INPUT;

	if (tcgetattr(master, &settings) == 0) {
		if ((settings.c_lflag & ICANON) == 0) {
			return 0;
		}
		end = settings.c_cc[VEOF];
	}
	/* The first one only hands over a line that has begun. */
	text[0] = (char)end;
	text[1] = (char)end;
	return line_is_open ? 2 : 1;
}
