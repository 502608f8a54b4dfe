/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_RING_H
#define TNL_BASE_RING_H

#include <stddef.h>
#include <stdint.h>

/*
 * A byte ring addressed by absolute stream offsets: it holds the bytes [start, end) of a byte
 * stream. It grows by doubling up to a maximum and gives its memory back when emptied. Writing
 * beyond end is allowed up to start + max (out-of-order bytes); the caller keeps track of what was
 * written there.
 */
typedef struct tnl_ring {
    uint8_t *data;
    size_t cap; /* 0 or a power of two */
    size_t max; /* a power of two */
    uint64_t start;
    uint64_t end;
} tnl_ring;

/* max: greatest number of bytes ever held, 1 KiB to 1 GiB; rounded up to a power of two. */
void tnl_ring_init(tnl_ring *r, size_t max);
void tnl_ring_free(tnl_ring *r);

static inline size_t tnl_ring_len(const tnl_ring *r)
{
    return (size_t)(r->end - r->start);
}

/*
 * The longest contiguous free piece at end, at least min(want, free) bytes where that can be had
 * without wrapping; grows the ring as needed. Returns its length (0: full or out of memory) and
 * sets *p. tnl_ring_commit() then moves end over what was written.
 */
size_t tnl_ring_space(tnl_ring *r, size_t want, uint8_t **p);
void tnl_ring_commit(tnl_ring *r, size_t n);

/* Copies n bytes to offset (start <= offset, offset + n <= start + max); does not move end. 0 or
 * TUNNEL_E_NOMEM. */
int tnl_ring_put(tnl_ring *r, uint64_t offset, const uint8_t *p, size_t n);

/* The contiguous bytes held at offset (start <= offset <= end); returns how many, at most up to
 * end. */
size_t tnl_ring_peek(const tnl_ring *r, uint64_t offset, const uint8_t **p);

/* Drops the bytes before offset (start <= offset <= end). */
void tnl_ring_drop(tnl_ring *r, uint64_t offset);

/* Frees the memory of a ring that holds nothing. For callers that put bytes beyond end: only when
 * none are there. */
void tnl_ring_trim(tnl_ring *r);

#endif
