/* A folder's entries, a bounded piece in a turn of the loop. What is gone between its listing and
 * the look at it is left out. */
#include "pool/sandbox/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TARGET_MAX 4096

struct entry_packet {
	struct init_file_info info;
	char names[256 + TARGET_MAX];
};

static void entry_send(const struct file_job *job, const char *name)
{
	struct entry_packet packet;
	size_t length = strlen(name);
	struct stat st;

	if (length > 255 || fstatat(job->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		return;
	}
	packet.info = (struct init_file_info){
		.mode = st.st_mode,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.size = (uint64_t)st.st_size,
		.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
	};
	memcpy(packet.names, name, length);
	if (S_ISLNK(st.st_mode)) {
		ssize_t target =
			readlinkat(job->fd, name, packet.names + length + 1, TARGET_MAX - 1);

		packet.names[length++] = '\0';
		length += target > 0 ? (size_t)target : 0;
	}
	wire_send(
		INIT_FILE_ENTRY, job->id, &packet.info, sizeof(packet.info), packet.names, length);
}

void file_list_run(struct file_job *job)
{
	int got = folder_read(job->fd);

	if (got < 0) {
		file_fail(job, errno, NULL);
		return;
	}
	if (got == 0) {
		file_done(job, job->bytes);
		return;
	}
	for (int at = 0; at < got;) {
		const struct dirent *entry = (const void *)(scratch + at);

		at += entry->d_reclen;
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			entry_send(job, entry->d_name);
			job->bytes++;
		}
	}
}
