/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_BYTES_H
#define TNL_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The bounds-checked reader and writer for bytes of the wire, big-endian. An access beyond the end
 * sets `failed` and from then on reads give 0 and writes do nothing, so that a parser can check
 * once at its end.
 */
typedef struct tnl_reader {
    const uint8_t *p;
    size_t left;
    bool failed;
} tnl_reader;

typedef struct tnl_writer {
    uint8_t *p;
    size_t left;
    bool failed;
} tnl_writer;

static inline tnl_reader tnl_reader_of(const void *p, size_t n)
{
    return (tnl_reader){.p = p, .left = n};
}

static inline tnl_writer tnl_writer_of(void *p, size_t n)
{
    return (tnl_writer){.p = p, .left = n};
}

/* The next n bytes, or NULL when there are fewer. */
const uint8_t *tnl_read_bytes(tnl_reader *r, size_t n);
/* An unsigned integer of size bytes (1 to 8). */
uint64_t tnl_read_uint(tnl_reader *r, size_t size);

void tnl_write_bytes(tnl_writer *w, const void *p, size_t n);
void tnl_write_uint(tnl_writer *w, uint64_t value, size_t size);

#endif
