/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/datagram.h"

#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "tunnel/error.h"

enum { FIXED = 8 + 4 + 2 + 2 + 1, PORT = 2 };

static bool address_size(uint8_t family, size_t *size)
{
    *size = family == 4 ? 4 : family == 6 ? 16 : 0;
    return family == 0 || *size;
}

size_t tnl_datagram_head_size(uint8_t family)
{
    size_t n;
    return address_size(family, &n) && n ? FIXED + n + PORT : FIXED;
}

/* An empty datagram has one empty piece, any other one none. */
static bool fits(const tnl_datagram_piece *m)
{
    size_t n;
    if (m->d.tunnel == 0 || m->d.flow == 0 || m->total > TNL_DATAGRAM_MAX ||
        !address_size(m->d.family, &n) || (m->d.n == 0) != (m->total == 0))
        return false;
    return m->offset <= m->total && m->d.n <= (size_t)(m->total - m->offset);
}

size_t tnl_datagram_encode_head(uint8_t *out, size_t cap, const tnl_datagram_piece *m)
{
    size_t n;
    if (!fits(m))
        return 0;
    tnl_writer w = tnl_writer_of(out, cap);
    tnl_write_uint(&w, m->d.tunnel, 8);
    tnl_write_uint(&w, m->number, 4);
    tnl_write_uint(&w, m->total, 2);
    tnl_write_uint(&w, m->offset, 2);
    tnl_write_uint(&w, m->d.family, 1);
    if (address_size(m->d.family, &n) && n) {
        tnl_write_bytes(&w, m->d.address, n);
        tnl_write_uint(&w, m->d.port, PORT);
    }
    return w.failed ? 0 : cap - w.left;
}

int tnl_datagram_decode(tnl_datagram_piece *m, uint64_t stream, const uint8_t *p, size_t n)
{
    size_t size;
    tnl_reader r = tnl_reader_of(p, n);
    memset(m, 0, sizeof(*m));
    m->d.flow = stream;
    m->d.tunnel = tnl_read_uint(&r, 8);
    m->number = (uint32_t)tnl_read_uint(&r, 4);
    m->total = (uint16_t)tnl_read_uint(&r, 2);
    m->offset = (uint16_t)tnl_read_uint(&r, 2);
    m->d.family = (uint8_t)tnl_read_uint(&r, 1);
    if (address_size(m->d.family, &size) && size) {
        const uint8_t *address = tnl_read_bytes(&r, size);
        if (address)
            memcpy(m->d.address, address, size);
        m->d.port = (uint16_t)tnl_read_uint(&r, PORT);
    }
    m->d.p = r.p;
    m->d.n = r.left;
    if (!r.failed && fits(m))
        return 0;
    memset(m, 0, sizeof(*m));
    return TUNNEL_E_PROTOCOL;
}

/* --- joining ---------------------------------------------------------------------------------- */

void tnl_joiner_free(tnl_joiner *j)
{
    tnl_free(j->bytes);
    *j = (tnl_joiner){.bytes = NULL};
}

static bool continues(const tnl_joiner *j, const tnl_datagram_piece *m)
{
    return j->bytes && j->number == m->number && j->d.flow == m->d.flow &&
           j->d.tunnel == m->d.tunnel && j->total == m->total && j->d.n == m->offset;
}

/* The datagram that the piece belongs to is given up. */
static void skip(tnl_joiner *j, const tnl_datagram_piece *m, uint64_t *lost)
{
    if (!j->skipping || j->number != m->number)
        ++*lost;
    j->skipping = true;
    j->number = m->number;
}

static void begin(tnl_joiner *j, const tnl_datagram_piece *m, uint64_t *lost)
{
    j->bytes = tnl_malloc(m->total);
    if (!j->bytes) {
        skip(j, m, lost);
        return;
    }
    j->d = m->d;
    j->d.p = NULL;
    j->d.n = 0;
    j->number = m->number;
    j->total = m->total;
    j->skipping = false;
}

bool tnl_joiner_feed(tnl_joiner *j, const tnl_datagram_piece *m, tnl_datagram *out, uint8_t **owned,
                     uint64_t *lost)
{
    *owned = NULL;
    if (!continues(j, m)) {
        if (j->bytes) {
            tnl_free(j->bytes);
            j->bytes = NULL;
            j->skipping = true;
            ++*lost;
        }
        if (m->offset) {
            skip(j, m, lost);
            return false;
        }
        if (m->d.n == m->total) {
            *out = m->d;
            j->skipping = false;
            return true;
        }
        begin(j, m, lost);
    }
    if (!j->bytes)
        return false;
    memcpy(j->bytes + j->d.n, m->d.p, m->d.n);
    j->d.n += m->d.n;
    if (j->d.n < j->total)
        return false;
    *out = j->d;
    *owned = j->bytes;
    out->p = j->bytes;
    *j = (tnl_joiner){.bytes = NULL};
    return true;
}
