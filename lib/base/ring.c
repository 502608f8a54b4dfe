/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ring.h"

#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { FIRST_CAP = 1024 };

static size_t at(const tnl_ring *r, uint64_t offset)
{
    return (size_t)(offset & (r->cap - 1));
}

void tnl_ring_init(tnl_ring *r, size_t max)
{
    size_t m = FIRST_CAP;
    while (m < max)
        m *= 2;
    *r = (tnl_ring){.max = m};
}

void tnl_ring_free(tnl_ring *r)
{
    tnl_free(r->data);
    r->data = NULL;
    r->cap = 0;
}

/* Makes the ring able to hold need bytes from start on. Bytes beyond end are kept as well. */
static int grow(tnl_ring *r, size_t need)
{
    if (need <= r->cap)
        return 0;
    if (need > r->max)
        return TUNNEL_E_LIMIT;
    size_t cap = r->cap ? r->cap : FIRST_CAP;
    while (cap < need)
        cap *= 2;
    uint8_t *data = tnl_malloc(cap);
    if (!data)
        return TUNNEL_E_NOMEM;
    for (size_t done = 0; done < r->cap;) {
        uint64_t offset = r->start + done;
        size_t from = at(r, offset);
        size_t to = (size_t)(offset & (cap - 1));
        size_t n = r->cap - done;
        if (n > r->cap - from)
            n = r->cap - from;
        if (n > cap - to)
            n = cap - to;
        memcpy(data + to, r->data + from, n);
        done += n;
    }
    tnl_free(r->data);
    r->data = data;
    r->cap = cap;
    return 0;
}

size_t tnl_ring_space(tnl_ring *r, size_t want, uint8_t **p)
{
    size_t len = tnl_ring_len(r);
    size_t target = len + want < r->max ? len + want : r->max;
    if (target > r->cap && grow(r, target) != 0 && len >= r->cap)
        return 0;
    size_t room = r->cap - len;
    if (room == 0)
        return 0;
    size_t from = at(r, r->end);
    *p = r->data + from;
    return room < r->cap - from ? room : r->cap - from;
}

void tnl_ring_commit(tnl_ring *r, size_t n)
{
    r->end += n;
}

int tnl_ring_put(tnl_ring *r, uint64_t offset, const uint8_t *p, size_t n)
{
    if (n == 0)
        return 0;
    int rc = grow(r, (size_t)(offset + n - r->start));
    if (rc)
        return rc;
    size_t from = at(r, offset);
    size_t first = n < r->cap - from ? n : r->cap - from;
    memcpy(r->data + from, p, first);
    memcpy(r->data, p + first, n - first);
    return 0;
}

size_t tnl_ring_peek(const tnl_ring *r, uint64_t offset, const uint8_t **p)
{
    size_t n = (size_t)(r->end - offset);
    if (n == 0)
        return 0;
    size_t from = at(r, offset);
    *p = r->data + from;
    return n < r->cap - from ? n : r->cap - from;
}

void tnl_ring_drop(tnl_ring *r, uint64_t offset)
{
    r->start = offset;
}

void tnl_ring_trim(tnl_ring *r)
{
    if (r->start == r->end)
        tnl_ring_free(r);
}
