/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_BUF_H
#define TNL_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

/*
 * A growable byte buffer with a maximum fixed when it is made: bytes are appended at the tail and
 * consumed at the head. The bytes are contiguous: [data + head, data + tail). Appending never goes
 * beyond max.
 */
typedef struct tnl_buf {
    uint8_t *data;
    size_t head;
    size_t tail;
    size_t cap;
    size_t max;
} tnl_buf;

/* Makes an empty buffer that will hold at most max bytes. Allocates nothing. */
void tnl_buf_init(tnl_buf *b, size_t max);

/* Frees the memory; the buffer is empty and usable again afterwards. */
void tnl_buf_free(tnl_buf *b);

/* Number of bytes held, and where they are (valid until the next call that changes the buffer). */
size_t tnl_buf_len(const tnl_buf *b);
uint8_t *tnl_buf_bytes(const tnl_buf *b);

/* Appends n bytes. TUNNEL_E_LIMIT when they do not fit under max, TUNNEL_E_NOMEM; then nothing was
 * appended. */
int tnl_buf_add(tnl_buf *b, const void *p, size_t n);
int tnl_buf_adds(tnl_buf *b, const char *s);

/* Appends formatted text (printf rules), same errors; TUNNEL_E_INVALID for a bad format. */
int tnl_buf_addf(tnl_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Makes room for n more bytes at the tail and returns where; NULL when they do not fit or memory is
 * short. Then tnl_buf_commit() says how many of them were written.
 */
uint8_t *tnl_buf_reserve(tnl_buf *b, size_t n);
void tnl_buf_commit(tnl_buf *b, size_t n);

/* Drops n bytes at the head (n <= length). An emptied buffer starts over at its beginning; memory
 * is kept. */
void tnl_buf_consume(tnl_buf *b, size_t n);
void tnl_buf_clear(tnl_buf *b);

#endif
