/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/list.h"
#include "io/conn.h"
#include "io/loop.h"

/*
 * A connection without a socket: what its other end says is the input, in pieces of a size, then
 * that ends its direction; what it is told is kept.
 */
static inline void must(bool ok)
{
    if (!ok)
        abort();
}

typedef struct wire {
    tnl_conn base;
    const uint8_t *in;
    size_t left, piece;
    tnl_buf out;
    tnl_task deliver, end;
    bool reading, closing, gone;
} wire;

static inline wire *wire_of(tnl_conn *c)
{
    return TNL_CONTAINER(c, wire, base);
}

static inline void wire_deliver(void *user)
{
    wire *w = user;
    uint8_t *p = NULL;
    if (!w->reading || w->closing || w->base.ended)
        return;
    if (!w->left) {
        w->base.ended = true;
        if (w->base.events->eof)
            w->base.events->eof(w->base.user);
        return;
    }
    size_t n = w->base.events->space(w->base.user, &p);
    n = n < w->left ? n : w->left;
    n = n < w->piece ? n : w->piece;
    if (!n) {
        w->reading = false;
        return;
    }
    memcpy(p, w->in, n);
    w->in += n;
    w->left -= n;
    w->base.events->data(w->base.user, p, n);
    tnl_loop_defer(w->base.loop, &w->deliver);
}

static inline void wire_end(void *user)
{
    wire *w = user;
    w->gone = true;
    w->base.events->closed(w->base.user, 0, "");
}

static inline int wire_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    must(!wire_of(c)->closing);
    for (size_t i = 0; i < n; i++)
        must(tnl_buf_add(&wire_of(c)->out, v[i].p, v[i].n) == 0);
    return 0;
}

static inline size_t wire_pending(const tnl_conn *c)
{
    (void)c;
    return 0;
}

static inline void wire_resume(tnl_conn *c)
{
    wire_of(c)->reading = true;
    tnl_loop_defer(c->loop, &wire_of(c)->deliver);
}

static inline void wire_pause(tnl_conn *c)
{
    wire_of(c)->reading = false;
}

static inline void wire_shutdown(tnl_conn *c)
{
    (void)c;
}

static inline void wire_close(tnl_conn *c, bool reset)
{
    (void)reset;
    wire_of(c)->closing = true;
    tnl_loop_defer(c->loop, &wire_of(c)->end);
}

static const tnl_conn_ops wire_ops = {.write = wire_write,
                                      .pending = wire_pending,
                                      .resume = wire_resume,
                                      .pause = wire_pause,
                                      .shutdown = wire_shutdown,
                                      .close = wire_close};

static inline void wire_init(wire *w, tnl_loop *l, const uint8_t *p, size_t n, size_t piece,
                             size_t max_out)
{
    *w = (wire){.base = {.ops = &wire_ops, .loop = l, .events = &tnl_conn_no_events},
                .in = p,
                .left = n,
                .piece = piece};
    tnl_buf_init(&w->out, max_out);
    tnl_task_init(&w->deliver, wire_deliver, w);
    tnl_task_init(&w->end, wire_end, w);
}

#endif
