/* SHA-1, by which git names content, in the plainest form: what it is run over is small. */
#include "pool/sandbox/init/apply.h"

#include <string.h>

static uint32_t rotate(uint32_t value, unsigned bits)
{
	return value << bits | value >> (32 - bits);
}

static void block_add(uint32_t state[5], const uint8_t block[64])
{
	uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

	for (unsigned i = 0; i < 16; i++) {
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
		       (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	}
	for (unsigned i = 16; i < 80; i++) {
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	}
	for (unsigned i = 0; i < 80; i++) {
		uint32_t mixed, next;

		if (i < 20) {
			mixed = ((b & c) | (~b & d)) + 0x5a827999u;
		} else if (i < 40) {
			mixed = (b ^ c ^ d) + 0x6ed9eba1u;
		} else if (i < 60) {
			mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu;
		} else {
			mixed = (b ^ c ^ d) + 0xca62c1d6u;
		}
		next = rotate(a, 5) + mixed + e + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = next;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
}

void apply_sha1_start(struct apply_sha1 *sha1)
{
	*sha1 = (struct apply_sha1){
		.state = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
}

void apply_sha1_add(struct apply_sha1 *sha1, const void *data, size_t length)
{
	const uint8_t *at = data;

	while (length > 0) {
		size_t filled = (size_t)(sha1->length % 64);
		size_t piece = 64 - filled < length ? 64 - filled : length;

		memcpy(sha1->block + filled, at, piece);
		sha1->length += piece;
		at += piece;
		length -= piece;
		if (filled + piece == 64) {
			block_add(sha1->state, sha1->block);
		}
	}
}

void apply_sha1_end(struct apply_sha1 *sha1, uint8_t id[APPLY_ID_SIZE])
{
	static const uint8_t padding[64] = {0x80};
	uint64_t bits = sha1->length * 8;
	uint8_t tail[8];

	apply_sha1_add(sha1, padding, 1 + (size_t)((119 - sha1->length % 64) % 64));
	for (unsigned i = 0; i < 8; i++) {
		tail[i] = (uint8_t)(bits >> (56 - 8 * i));
	}
	apply_sha1_add(sha1, tail, sizeof(tail));
	for (unsigned i = 0; i < APPLY_ID_SIZE; i++) {
		id[i] = (uint8_t)(sha1->state[i / 4] >> (24 - 8 * (i % 4)));
	}
}

void apply_hex(const uint8_t id[APPLY_ID_SIZE], char hex[APPLY_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < APPLY_ID_SIZE; i++) {
		hex[2 * i] = digits[id[i] >> 4];
		hex[2 * i + 1] = digits[id[i] & 15];
	}
	hex[APPLY_HEX_SIZE - 1] = '\0';
}
