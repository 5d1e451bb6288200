/*
 * Ends a command with all that it started, as far as it can be told: the members of its session and
 * the descendants that are still linked to it. What left the session and lost its parents lives on
 * until the sandbox ends.
 */
#include "pool/sandbox/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Looks again for what was forked while it looked. */
#define PASSES_MAX 4
#define PROCESSES_MAX 16384

struct process {
	pid_t pid, parent, session;
	bool hit;
};

/* A chain of children whose numbers fall needs one round a link: an attack, not a command. */
#define ROUNDS_MAX 16

struct process_list {
	struct process *processes;
	size_t count, room;
};

/* In a pid namespace with another one's /proc the numbers would mean other processes. */
static bool proc_is_ours(void)
{
	char text[32];
	ssize_t length = readlink("/proc/self", text, sizeof(text) - 1);

	if (length <= 0) {
		return false;
	}
	text[length] = '\0';
	return strtol(text, NULL, 10) == getpid();
}

/* False for what is gone or dead. */
static bool stat_read(int proc_fd, const char *name, struct process *process)
{
	char path[64];
	char text[512];
	ssize_t length;
	char state = 'Z';
	char *end;
	int fd;

	text_format(path, sizeof(path), "%.32s/stat", name);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0) {
		return false;
	}
	text[length] = '\0';
	/* The name of the program, in parentheses, may hold anything. */
	end = strrchr(text, ')');
	process->pid = (pid_t)strtol(name, NULL, 10);
	process->hit = false;
	return end != NULL &&
	       sscanf(end + 1, " %c %d %*d %d", &state, &process->parent, &process->session) == 3 &&
	       state != 'Z' && state != 'X';
}

static bool list_add(struct process_list *list, const struct process *process)
{
	if (list->count == list->room) {
		size_t room = list->room > 0 ? 2 * list->room : 64;
		struct process *grown = realloc(list->processes, room * sizeof(*grown));

		if (grown == NULL || room > PROCESSES_MAX) {
			list->processes = grown != NULL ? grown : list->processes;
			return false;
		}
		list->processes = grown;
		list->room = room;
	}
	list->processes[list->count++] = *process;
	return true;
}

static void list_read(struct process_list *list)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc != NULL && (entry = readdir(proc)) != NULL) {
		struct process process;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
			!stat_read(dirfd(proc), entry->d_name, &process)) {
			continue;
		}
		if (!list_add(list, &process)) {
			break;
		}
	}
	if (proc != NULL) {
		closedir(proc);
	}
}

/* /proc lists by number, so the list is sorted. */
static bool is_hit(const struct process_list *list, pid_t pid)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list->processes[middle].pid == pid) {
			return list->processes[middle].hit;
		}
		if (list->processes[middle].pid < pid) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return false;
}

/* Marks the session of `leader` and the children of what is marked, until nothing is added. */
static void list_mark(struct process_list *list, pid_t leader)
{
	bool changed = true;

	for (int round = 0; changed && round < ROUNDS_MAX; round++) {
		changed = false;
		for (size_t i = 0; i < list->count; i++) {
			struct process *process = &list->processes[i];

			if (!process->hit &&
				(process->pid == leader || process->session == leader ||
					is_hit(list, process->parent))) {
				process->hit = true;
				changed = true;
			}
		}
	}
}

static size_t list_kill(const struct process_list *list, pid_t leader)
{
	size_t killed = 0;

	for (size_t i = 0; i < list->count; i++) {
		const struct process *process = &list->processes[i];

		if (process->hit && process->pid > 1 && process->pid != getpid() &&
			process->pid != leader) {
			(void)kill(process->pid, SIGKILL);
			killed++;
		}
	}
	return killed;
}

void spawn_kill(pid_t pid)
{
	bool listed = proc_is_ours();

	for (int pass = 0; listed && pass < PASSES_MAX; pass++) {
		struct process_list list = {.processes = NULL};
		size_t killed;

		list_read(&list);
		list_mark(&list, pid);
		killed = list_kill(&list, pid);
		free(list.processes);
		/* The leader only now: until then its children can be told by it. */
		(void)kill(-pid, SIGKILL);
		(void)kill(pid, SIGKILL);
		if (killed == 0) {
			return;
		}
	}
	if (!listed) {
		(void)kill(-pid, SIGKILL);
		(void)kill(pid, SIGKILL);
	}
}
