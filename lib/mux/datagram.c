/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "mux/internal.h"
#include "tunnel/error.h"

/* A piece that is not the last has at least so many bytes. */
enum { LEAST_PIECE = 512 };

static void count_dropped(tnl_mux *m, uint64_t count)
{
    m->stats.datagrams_dropped += count;
    if (count && m->events->dropped && !m->aborted)
        m->events->dropped(m->user, count);
}

static size_t cost(const outgoing *o)
{
    return sizeof(*o) + o->piece.total;
}

/* Its bytes count no more, whether it was sent or dropped. */
static void outgoing_free(tnl_mux *m, outgoing *o)
{
    tnl_list_remove(&o->node);
    m->datagram_bytes -= cost(o);
    tnl_free(o);
}

static outgoing *oldest(const tnl_mux *m)
{
    tnl_list *n = tnl_list_first(&m->datagrams);
    return n ? TNL_CONTAINER(n, outgoing, node) : NULL;
}

static void drop(tnl_mux *m, outgoing *o)
{
    outgoing_free(m, o);
    count_dropped(m, 1);
}

/* --- waiting ---------------------------------------------------------------------------------- */

uint64_t tnl_mux_datagram_expiry(const tnl_mux *m)
{
    const outgoing *o = oldest(m);
    return o ? o->since + TNL_MUX_DATAGRAM_AGE_MS : UINT64_MAX;
}

void tnl_mux_expire_datagrams(tnl_mux *m)
{
    for (outgoing *o; (o = oldest(m)) && o->since + TNL_MUX_DATAGRAM_AGE_MS <= m->now;)
        drop(m, o);
}

void tnl_mux_redate_datagrams(tnl_mux *m)
{
    for (tnl_list *n = m->datagrams.next; n != &m->datagrams; n = n->next) {
        outgoing *o = TNL_CONTAINER(n, outgoing, node);
        if (o->since > m->now)
            o->since = m->now;
    }
}

void tnl_mux_free_datagrams(tnl_mux *m)
{
    for (outgoing *o; (o = oldest(m));)
        outgoing_free(m, o);
}

void tnl_mux_datagrams_leave(tnl_mux *m, tnl_mux_link *l)
{
    tnl_mux_link *other = tnl_mux_best_link(m);
    outgoing *cut = l->cut;
    l->cut = NULL;
    if (cut)
        drop(m, cut);
    if (other && oldest(m))
        tnl_mux_wake(other);
    for (outgoing *o; !other && (o = oldest(m));)
        drop(m, o);
}

int tnl_mux_datagram(tnl_mux *m, const tnl_datagram *d, uint64_t now_ms)
{
    tnl_mux_set_now(m, now_ms);
    if (d->tunnel == 0 || d->flow == 0 || d->n > TNL_DATAGRAM_MAX)
        return TUNNEL_E_INVALID;
    tnl_mux_link *l = m->aborted ? NULL : tnl_mux_best_link(m);
    outgoing *o = l ? tnl_malloc(sizeof(*o) + d->n) : NULL;
    if (!o) {
        count_dropped(m, 1);
        return l ? TUNNEL_E_NOMEM : TUNNEL_E_GONE;
    }
    *o = (outgoing){.since = m->now,
                    .piece = {.d = *d, .number = m->datagram_number++, .total = (uint16_t)d->n}};
    o->piece.d.p = o->bytes;
    if (d->n)
        memcpy(o->bytes, d->p, d->n);
    tnl_list_init(&o->node);
    m->datagram_bytes += cost(o);
    tnl_mux_expire_datagrams(m);
    for (outgoing *first; m->datagram_bytes > TNL_MUX_MAX_DATAGRAMS && (first = oldest(m));)
        drop(m, first);
    tnl_list_add_tail(&m->datagrams, &o->node);
    tnl_mux_wake(l);
    return 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

/* The next piece of o; how many bytes of out it took, 0: there is no room for it. */
static size_t put_piece(outgoing *o, uint8_t *out, size_t cap)
{
    tnl_datagram_piece *m = &o->piece;
    /* Whose datagram it is need be said but once. */
    if (m->offset)
        m->d.family = 0;
    size_t head = tnl_datagram_head_size(m->d.family);
    size_t left = (size_t)(m->total - m->offset);
    size_t most = TNL_FRAME_MAX_OTHER - head;
    if (cap < TNL_FRAME_HEADER + head + (left < LEAST_PIECE ? left : LEAST_PIECE))
        return 0;
    if (most > cap - TNL_FRAME_HEADER - head)
        most = cap - TNL_FRAME_HEADER - head;
    m->d.n = left < most ? left : most;
    uint8_t *body = out + TNL_FRAME_HEADER;
    if (!tnl_datagram_encode_head(body, head, m))
        return 0;
    if (m->d.n)
        memcpy(body + head, o->bytes + m->offset, m->d.n);
    tnl_frame f = {.type = TNL_FRAME_DATAGRAM, .stream = m->d.flow, .rest_len = head + m->d.n};
    tnl_frame_encode_head(out, TNL_FRAME_HEADER, &f);
    m->offset = (uint16_t)(m->offset + m->d.n);
    return TNL_FRAME_HEADER + f.rest_len;
}

size_t tnl_mux_put_datagrams(tnl_mux *m, tnl_mux_link *l, uint8_t *out, size_t cap)
{
    size_t done = 0;
    bool aside = tnl_mux_link_aside(l);
    /* A callback of this very pull may have lost the link. */
    while (!l->lost) {
        outgoing *o = l->cut ? l->cut : aside ? NULL : oldest(m);
        size_t n = o ? put_piece(o, out + done, cap - done) : 0;
        if (n == 0)
            return done;
        done += n;
        m->stats.frames_out++;
        tnl_list_remove(&o->node);
        l->cut = o;
        if (o->piece.offset == o->piece.total) {
            l->cut = NULL;
            m->stats.datagrams_out++;
            outgoing_free(m, o);
        }
    }
    return done;
}

/* --- receiving -------------------------------------------------------------------------------- */

void tnl_mux_on_datagram(tnl_mux *m, tnl_mux_link *l, const tnl_frame *f)
{
    tnl_datagram_piece piece;
    tnl_datagram d;
    uint8_t *owned = NULL;
    uint64_t lost = 0;
    bool whole = false;
    if (tnl_datagram_decode(&piece, f->stream, f->rest, f->rest_len))
        lost = 1;
    else
        whole = tnl_joiner_feed(&l->joiner, &piece, &d, &owned, &lost);
    count_dropped(m, lost);
    if (whole) {
        m->stats.datagrams_in++;
        if (m->events->datagram && !m->aborted)
            m->events->datagram(m->user, &d);
    }
    tnl_free(owned);
}
