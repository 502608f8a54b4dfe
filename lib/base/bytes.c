/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <endian.h>
#include <string.h>

const uint8_t *tnl_read_bytes(tnl_reader *r, size_t n)
{
    if (r->failed || n > r->left) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}

uint64_t tnl_read_uint(tnl_reader *r, size_t size)
{
    const uint8_t *p = tnl_read_bytes(r, size);
    uint64_t value = 0;
    if (p)
        memcpy(&value, p, size);
    return be64toh(value) >> (64 - 8 * size);
}

void tnl_write_bytes(tnl_writer *w, const void *p, size_t n)
{
    if (w->failed || n > w->left) {
        w->failed = true;
        return;
    }
    if (n)
        memcpy(w->p, p, n);
    w->p += n;
    w->left -= n;
}

void tnl_write_uint(tnl_writer *w, uint64_t value, size_t size)
{
    value = htobe64(value << (64 - 8 * size));
    tnl_write_bytes(w, &value, size);
}
