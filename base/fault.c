/* Reads the two variables once, at the first point passed. */
#include "base/fault.h"

#include "base/memory.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

static struct {
	bool ready, armed;
	char *name;
	long countdown;
	int sys; /* 0: a signal */
	int signal;
	const char *list;
} state;

static void read_variables(void)
{
	const char *wanted = getenv("HOB_FAULT");
	char *rest, *count, *action;

	state.ready = true;
	state.list = getenv("HOB_FAULT_LIST");
	state.armed = wanted != NULL || state.list != NULL;
	if (wanted == NULL) {
		return;
	}
	rest = xstrdup(wanted);
	state.signal = SIGKILL;
	state.name = strsep(&rest, ":");
	count = strsep(&rest, ":");
	action = strsep(&rest, ":");
	state.countdown = count != NULL ? strtol(count, NULL, 10) : 1;
	if (action != NULL && streq(action, "ENOSPC")) {
		state.sys = ENOSPC;
	} else if (action != NULL && streq(action, "EIO")) {
		state.sys = EIO;
	} else if (action != NULL && streq(action, "stop")) {
		state.signal = SIGSTOP;
	}
}

static void list_point(const char *name)
{
	int fd = open(state.list, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	if (fd >= 0) {
		dprintf(fd, "%s\n", name);
		close(fd);
	}
}

int fault_point(const char *name)
{
	if (!state.ready) {
		read_variables();
	}
	if (!state.armed) {
		return 0;
	}
	if (state.list != NULL) {
		list_point(name);
	}
	if (state.name == NULL || !streq(state.name, name) || --state.countdown != 0) {
		return 0;
	}
	if (state.sys == 0) {
		raise(state.signal);
	}
	return state.sys;
}
