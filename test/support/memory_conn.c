/* SPDX-License-Identifier: Apache-2.0 */
#include "support/memory_conn.h"

#include <stdlib.h>

#include "support/check.h"
#include "tunnel/error.h"

enum { MAX_IN_FLIGHT = 4 << 20 };

static memory_conn *of(tnl_conn *c)
{
    return TNL_CONTAINER(c, memory_conn, base);
}

static void kick(memory_conn *m)
{
    if (m->reading && !m->closing)
        tnl_loop_defer(m->base.loop, &m->deliver);
}

static void on_deliver(void *user)
{
    memory_conn *m = user;
    uint8_t *p;
    size_t n = tnl_buf_len(&m->in);
    if (!m->reading || m->closing)
        return;
    if (n == 0) {
        if (m->in_ended && !m->base.ended) {
            m->base.ended = true;
            m->base.events->eof(m->base.user);
        }
        return;
    }
    size_t room = m->base.events->space(m->base.user, &p);
    if (m->closing || !m->reading)
        return;
    if (room == 0) {
        m->reading = false;
        return;
    }
    n = n < room ? n : room;
    n = n < m->piece ? n : m->piece;
    for (size_t i = 0; i < n; i++)
        p[i] = tnl_buf_bytes(&m->in)[i];
    tnl_buf_consume(&m->in, n);
    m->base.events->data(m->base.user, p, n);
    kick(m);
}

static void on_end(void *user)
{
    memory_conn *m = user;
    if (m->base.events->closed)
        m->base.events->closed(m->base.user, m->error, "");
    if (m->other) {
        m->other->other = NULL;
        m->other->in_ended = true;
        kick(m->other);
    }
    tnl_task_cancel(&m->deliver);
    tnl_buf_free(&m->in);
    free(m);
}

static void memory_close(tnl_conn *c, bool reset)
{
    (void)reset;
    memory_conn *m = of(c);
    m->closing = true;
    tnl_loop_defer(c->loop, &m->end);
}

static int memory_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    memory_conn *m = of(c);
    if (m->closing || m->shut)
        return TUNNEL_E_STATE;
    m->writes++;
    for (size_t i = 0; i < n; i++) {
        size_t left = m->limit - m->sent, cut = v[i].n < left ? v[i].n : left;
        m->sent += cut;
        if (!m->other)
            continue;
        assert_int_equal(tnl_buf_add(&m->other->in, v[i].p, cut), 0);
        if (cut < v[i].n)
            m->other->in_ended = true;
        kick(m->other);
    }
    return 0;
}

static size_t memory_pending(const tnl_conn *c)
{
    (void)c;
    return 0;
}

static void memory_resume(tnl_conn *c)
{
    of(c)->reading = !c->ended;
    kick(of(c));
}

static void memory_pause(tnl_conn *c)
{
    of(c)->reading = false;
}

static void memory_shutdown(tnl_conn *c)
{
    memory_conn *m = of(c);
    m->shut = true;
    if (m->other) {
        m->other->in_ended = true;
        kick(m->other);
    }
}

static const tnl_conn_ops ops = {
    .write = memory_write,
    .pending = memory_pending,
    .resume = memory_resume,
    .pause = memory_pause,
    .shutdown = memory_shutdown,
    .close = memory_close,
};

static memory_conn *make(tnl_loop *l, size_t piece)
{
    memory_conn *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->base.ops = &ops;
    m->base.loop = l;
    m->piece = piece;
    m->limit = SIZE_MAX;
    tnl_buf_init(&m->in, MAX_IN_FLIGHT);
    tnl_task_init(&m->deliver, on_deliver, m);
    tnl_task_init(&m->end, on_end, m);
    return m;
}

void test_memory_pair(tnl_loop *l, memory_conn **a, memory_conn **b, size_t piece)
{
    *a = make(l, piece);
    *b = make(l, piece);
    (*a)->other = *b;
    (*b)->other = *a;
}
