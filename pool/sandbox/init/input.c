/*
 * Standard input of an exec: what hob sent and the command has not taken yet, at most
 * INIT_STDIN_WINDOW_DEFAULT bytes. Credit goes back when bytes are taken, in pieces worth a packet.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REPORT_AT (INIT_STDIN_WINDOW_DEFAULT / 4)

void input_close(struct exec *exec)
{
	struct input *input = &exec->in;

	if (!exec->tty) {
		watch_close(&input->fd);
	}
	input->fd = -1;
	free(input->data);
	input->data = NULL;
	input->room = 0;
}

/* Credit for bytes that were taken, or that nobody will take any more. */
static void credit(struct exec *exec, size_t bytes)
{
	exec->in.unreported += (uint32_t)bytes;
	if (exec->in.unreported >= REPORT_AT || (exec->in.length == 0 && exec->in.unreported > 0)) {
		if (exec->attached && !exec->exited) {
			wire_send_u32(INIT_STDIN_WINDOW, exec->id, exec->in.unreported);
		}
		exec->in.unreported = 0;
	}
}

static void give_up(struct exec *exec)
{
	size_t rest = exec->in.length;

	exec->in.length = 0;
	input_close(exec);
	credit(exec, rest);
}

/* The count of bytes that the command's pipe or terminal took; moves *data on. */
static void take(struct exec *exec, const char **data, size_t *length)
{
	while (*length > 0 && exec->in.fd >= 0 && exec->in.ready) {
		ssize_t put = write(exec->in.fd, *data, *length);

		if (put < 0 && errno == EINTR) {
			continue;
		}
		if (put < 0 && errno == EAGAIN) {
			exec->in.ready = false;
		} else if (put < 0) {
			give_up(exec);
		} else if (put > 0) {
			exec->in.line_is_open = (*data)[put - 1] != '\n';
			*data += put;
			*length -= (size_t)put;
		} else {
			exec->in.ready = false;
		}
	}
}

static bool store(struct input *input, const char *data, size_t length)
{
	if (input->start > 0 && input->data != NULL) {
		memmove(input->data, input->data + input->start, input->length);
		input->start = 0;
	}
	if (input->length + length > input->room) {
		char *grown = realloc(input->data, input->length + length);

		if (grown == NULL) {
			return false;
		}
		input->data = grown;
		input->room = input->length + length;
	}
	memcpy(input->data + input->length, data, length);
	input->length += length;
	return true;
}

bool input_add(struct exec *exec, const char *data, size_t length)
{
	size_t before = length;

	if (exec->in.length + exec->in.unreported + length > INIT_STDIN_WINDOW_DEFAULT) {
		return false;
	}
	if (exec->in.length == 0) {
		take(exec, &data, &length);
	}
	if (exec->in.fd < 0 || exec->in.end) {
		credit(exec, before);
		return true;
	}
	if (length > 0 && !store(&exec->in, data, length)) {
		give_up(exec);
		return true;
	}
	if (before > length) {
		credit(exec, before - length);
	}
	return true;
}

static void finish(struct exec *exec)
{
	char text[2];
	size_t length = exec->tty ? terminal_end_text(exec->in.fd, text, exec->in.line_is_open) : 0;

	if (length > 0 && write(exec->in.fd, text, length) < 0 && errno == EAGAIN) {
		exec->in.ready = false;
		return;
	}
	input_close(exec);
}

void input_pump(struct exec *exec)
{
	struct input *input = &exec->in;

	if (input->fd >= 0 && input->length > 0 && input->ready) {
		const char *data = input->data + input->start;
		size_t before = input->length;
		size_t length = before;

		take(exec, &data, &length);
		if (input->fd < 0) {
			return;
		}
		input->start += before - length;
		input->length = length;
		if (length == 0) {
			free(input->data);
			input->data = NULL;
			input->start = 0;
			input->room = 0;
		}
		if (before > length) {
			credit(exec, before - length);
		}
	}
	if (input->fd >= 0 && input->length == 0 && input->end && input->ready) {
		finish(exec);
	}
}
