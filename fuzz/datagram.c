/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of DATAGRAM frames and their joining. Input: pieces, each behind its length in two bytes.
 * What is accepted encodes to the bytes it came from, and what is joined is what the last pieces
 * say.
 */
#include "wire/datagram.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct model {
    uint8_t bytes[65536];
    size_t n;
} model;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void follow(model *m, tnl_joiner *j, const tnl_datagram_piece *p, uint64_t *lost)
{
    tnl_datagram d;
    uint8_t *owned;
    if (p->offset == 0)
        m->n = 0;
    bool gap = m->n != p->offset;
    if (!gap && p->d.n)
        memcpy(m->bytes + m->n, p->d.p, p->d.n);
    m->n = gap ? sizeof(m->bytes) : m->n + p->d.n;
    if (!tnl_joiner_feed(j, p, &d, &owned, lost)) {
        must(!owned);
        return;
    }
    must(!gap && d.n == p->total && d.tunnel == p->d.tunnel && d.flow == p->d.flow);
    must(d.n == 0 || memcmp(d.p, m->bytes, d.n) == 0);
    tnl_free(owned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static model m;
    tnl_joiner j = {.bytes = NULL};
    uint64_t lost = 0, pieces = 0;
    m.n = sizeof(m.bytes);
    while (size >= 2) {
        size_t n = (size_t)data[0] << 8 | data[1];
        n = n < size - 2 ? n : size - 2;
        const uint8_t *p = data + 2;
        uint8_t head[TNL_DATAGRAM_HEAD_MAX];
        tnl_datagram_piece piece;
        int rc = tnl_datagram_decode(&piece, 1 + n % 3, p, n);
        data += 2 + n;
        size -= 2 + n;
        must(rc == 0 || rc == TUNNEL_E_PROTOCOL);
        if (rc)
            continue;
        size_t len = tnl_datagram_encode_head(head, sizeof(head), &piece);
        must(len == tnl_datagram_head_size(piece.d.family) && len + piece.d.n == n);
        must(memcmp(head, p, len) == 0 && piece.d.p == p + len);
        must(tnl_datagram_encode_head(head, len - 1, &piece) == 0);
        follow(&m, &j, &piece, &lost);
        pieces++;
        must(lost <= 2 * pieces);
    }
    tnl_joiner_free(&j);
    return 0;
}
