/* Small things that commands and files have in common at hob's end: windows and refusals. */
#include "pool/sandbox/client/init_client_internal.h"

#include <assert.h>
#include <stdio.h>

/* Granting anew in pieces of this size keeps the stream going without a packet for each read. */
#define GRANT_AT (INIT_WINDOW_DEFAULT / 4)
#define TEXT_MAX 512
#define ERRNO_LAST 4095

bool inflow_take(struct inflow *in, size_t length)
{
	if (length == 0 || length > in->credit) {
		return false;
	}
	in->credit -= length;
	in->held += length;
	return true;
}

uint32_t inflow_give(struct inflow *in, size_t bytes)
{
	uint32_t grant;

	assert(bytes <= in->held);
	in->held -= bytes;
	in->consumed += bytes;
	if (in->consumed < GRANT_AT) {
		return 0;
	}
	grant = (uint32_t)in->consumed;
	in->credit += grant;
	in->consumed = 0;
	return grant;
}

bool u32_read(const void *body, size_t length, uint32_t lowest, uint32_t *ret_value)
{
	uint32_t value;

	if (length != sizeof(value)) {
		return false;
	}
	memcpy(&value, body, sizeof(value));
	if (value < lowest) {
		return false;
	}
	*ret_value = value;
	return true;
}

/* Length of the well-formed UTF-8 character at `text`, 0 if there is none. */
static size_t character_length(const unsigned char *text, size_t length)
{
	size_t size = text[0] < 0x80                      ? 1
		      : text[0] >= 0xc2 && text[0] < 0xe0 ? 2
		      : text[0] >= 0xe0 && text[0] < 0xf0 ? 3
		      : text[0] >= 0xf0 && text[0] < 0xf5 ? 4
							  : 0;

	if (size == 0 || size > length) {
		return 0;
	}
	for (size_t i = 1; i < size; i++) {
		if ((text[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	/* Overlong forms, surrogates, beyond U+10FFFF. */
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
		(text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f)) {
		return 0;
	}
	return size;
}

/* For logs and answers: well-formed, and without control characters. */
static void text_clean(char *text, size_t room, const unsigned char *from, size_t length)
{
	size_t used = 0;

	for (size_t i = 0; i < length;) {
		size_t size = character_length(from + i, length - i);

		if (used + (size > 0 ? size : 1) >= room) {
			break;
		}
		if (size == 0 || from[i] < 0x20 || from[i] == 0x7f) {
			text[used++] = '?';
			i++;
			continue;
		}
		memcpy(text + used, from + i, size);
		used += size;
		i += size;
	}
	text[used] = '\0';
}

/* A command: what its caller asked for is not there. */
static enum error_kind exec_kind(int sys)
{
	switch (sys) {
	case ENOENT:
	case ENOTDIR:
	case EACCES:
	case EPERM:
	case ENOEXEC:
	case EINVAL:
	case E2BIG:
	case ELOOP:
	case EISDIR:
	case ENAMETOOLONG:
	case ETXTBSY:
	case ELIBBAD:
		return ERROR_INVALID;
	case ESRCH:
		return ERROR_NOT_FOUND;
	case EEXIST:
		return ERROR_EXISTS;
	case EUSERS:
	case EAGAIN:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return ERROR_LIMIT;
	default:
		return ERROR_IO;
	}
}

static enum error_kind file_error_kind(int sys)
{
	switch (sys) {
	case ENOENT:
	case ENOTDIR:
		return ERROR_NOT_FOUND;
	case EACCES:
	case EPERM:
	case EROFS:
		return ERROR_DENIED;
	case EINVAL:
	case EISDIR:
	case ELOOP:
	case ENAMETOOLONG:
		return ERROR_INVALID;
	case ENOTEMPTY:
	case EEXIST:
	case EXDEV:
	case ESTALE:
	case ETXTBSY:
		return ERROR_CONFLICT;
	case EFBIG:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return ERROR_LIMIT;
	case ENOSPC:
	case EDQUOT:
		return ERROR_NO_SPACE;
	case EBUSY:
	case EAGAIN:
		return ERROR_BUSY;
	default:
		return ERROR_IO;
	}
}

bool refusal_read(
	const void *body, size_t length, bool is_file, enum init_step *ret_step, struct error *err)
{
	struct init_refused refused;
	char text[TEXT_MAX];

	if (length < sizeof(refused)) {
		return false;
	}
	memcpy(&refused, body, sizeof(refused));
	if (refused.sys == 0 || refused.sys > ERRNO_LAST || refused.step >= INIT_STEPS) {
		return false;
	}
	text_clean(text, sizeof(text), (const unsigned char *)body + sizeof(refused),
		length - sizeof(refused));
	error_set(err, is_file ? file_error_kind(refused.sys) : exec_kind(refused.sys), "%s",
		text[0] != '\0' ? text : strerror(refused.sys));
	err->sys = refused.sys;
	*ret_step = (enum init_step)refused.step;
	return true;
}
