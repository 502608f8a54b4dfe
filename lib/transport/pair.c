/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "base/mem.h"
#include "transport/transport.h"
#include "tunnel/error.h"

/* Both ends live in one block, freed with the second of them. */
typedef struct end {
    tnl_transport base;
    struct pair *pair;
    struct end *other;
    tnl_task task;
    bool opened;
    bool user_closed;
    bool peer_closed;
    bool gone;
} end;

typedef struct pair {
    tnl_loop *loop;
    end ends[2];
    uint8_t batch[TNL_TRANSPORT_BATCH];
} pair;

static void finish(end *e)
{
    const tnl_transport_events *events = e->base.events;
    void *user = e->base.user;
    int error = e->user_closed ? 0 : TUNNEL_E_EOF;
    e->gone = true;
    tnl_task_cancel(&e->task);
    if (e->other->gone) {
        tnl_free(e->pair);
    } else {
        e->other->peer_closed = true;
        tnl_loop_defer(e->pair->loop, &e->other->task);
    }
    events->closed(user, error, 0, error ? tunnel_strerror(error) : "");
}

static bool send_batch(end *e)
{
    end *o = e->other;
    uint8_t *p = e->pair->batch;
    size_t n = e->base.events->pull(e->base.user, p, TNL_TRANSPORT_BATCH);
    if (n && !o->user_closed && !o->gone)
        o->base.events->data(o->base.user, p, n);
    return n > 0;
}

static void run(void *user)
{
    end *e = user;
    if (e->peer_closed || (e->user_closed && !e->opened)) {
        finish(e);
        return;
    }
    if (!e->opened) {
        e->opened = true;
        e->base.events->opened(e->base.user);
    }
    /* Data comes after opened() on either side. */
    bool more = e->other->opened ? send_batch(e) : true;
    if (e->user_closed)
        finish(e);
    else if (more)
        tnl_loop_defer(e->pair->loop, &e->task);
}

static void pair_wake(tnl_transport *t)
{
    end *e = TNL_CONTAINER(t, end, base);
    tnl_loop_defer(e->pair->loop, &e->task);
}

static void pair_close(tnl_transport *t)
{
    end *e = TNL_CONTAINER(t, end, base);
    if (e->peer_closed)
        return;
    e->user_closed = true;
    tnl_loop_defer(e->pair->loop, &e->task);
}

/* There is nothing here that could be waited for. */
static const tnl_transport_ops pair_ops = {
    .wake = pair_wake, .close = pair_close, .abort = pair_close};

static void init(pair *p, int i, const tnl_transport_events *ev, void *user)
{
    end *e = &p->ends[i];
    e->base = (tnl_transport){.ops = &pair_ops, .events = ev, .user = user};
    e->pair = p;
    e->other = &p->ends[!i];
    tnl_task_init(&e->task, run, e);
    tnl_loop_defer(p->loop, &e->task);
}

int tnl_pair_new(tnl_transport **a, const tnl_transport_events *ev_a, void *user_a,
                 tnl_transport **b, const tnl_transport_events *ev_b, void *user_b, tnl_loop *l)
{
    *a = *b = NULL;
    pair *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return TUNNEL_E_NOMEM;
    p->loop = l;
    init(p, 0, ev_a, user_a);
    init(p, 1, ev_b, user_b);
    *a = &p->ends[0].base;
    *b = &p->ends[1].base;
    return 0;
}
