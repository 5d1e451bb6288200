/* A pipe that polls writable takes PIPE_BUF bytes at once without O_NONBLOCK, which must not be set
 * here: the open file may be shared with other processes. */
#include "pool/cli/output_queue.h"

#include "base/memory.h"

#include <limits.h>
#include <sys/stat.h>

/* For files, which do not make anybody wait. */
#define FILE_WRITE_MAX (256 * 1024)

struct output_piece {
	int fd;
	char *data;
	size_t at, length;
};

void output_queue_add(struct output_queue *queue, int fd, const void *data, size_t length)
{
	struct output_piece *piece;

	if (length == 0) {
		return;
	}
	if (queue->first == queue->count) {
		queue->first = queue->count = 0;
	}
	piece = array_add(&queue->pieces, &queue->count, &queue->room);
	piece->fd = fd;
	piece->data = xmalloc(length);
	memcpy(piece->data, data, length);
	piece->length = length;
	queue->bytes += length;
}

int output_queue_fd(const struct output_queue *queue)
{
	return queue->first < queue->count ? queue->pieces[queue->first].fd : -1;
}

static size_t write_max(int fd)
{
	struct stat stat;

	return fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) ? FILE_WRITE_MAX : PIPE_BUF;
}

int output_queue_write(struct output_queue *queue, struct error *err)
{
	struct output_piece *piece = &queue->pieces[queue->first];
	size_t length = piece->length - piece->at;
	size_t most = write_max(piece->fd);
	ssize_t written = write(piece->fd, piece->data + piece->at, length < most ? length : most);

	if (written < 0) {
		if (errno == EINTR || errno == EAGAIN) {
			return 0;
		}
		return error_sys(err, errno, "write to standard %s",
			piece->fd == STDERR_FILENO ? "error" : "output");
	}
	piece->at += (size_t)written;
	queue->bytes -= (size_t)written;
	if (piece->at == piece->length) {
		free(piece->data);
		queue->first++;
	}
	return 0;
}

void output_queue_done(struct output_queue *queue)
{
	for (; queue->first < queue->count; queue->first++) {
		free(queue->pieces[queue->first].data);
	}
	free(queue->pieces);
	*queue = (struct output_queue){0};
}
