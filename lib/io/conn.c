/* SPDX-License-Identifier: Apache-2.0 */
#include "io/conn.h"

#include "base/mem.h"
#include "tunnel/error.h"

enum {
    FINISH_READ_MS = 2000,
    FINISH_STALL_MS = 10000,
    FINISH_READ_MAX = 256 * 1024,
};

int tnl_conn_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    return c->ops->write(c, v, n);
}

size_t tnl_conn_pending(const tnl_conn *c)
{
    return c->ops->pending(c);
}

void tnl_conn_resume(tnl_conn *c)
{
    c->ops->resume(c);
}

void tnl_conn_pause(tnl_conn *c)
{
    c->ops->pause(c);
}

void tnl_conn_shutdown(tnl_conn *c)
{
    c->ops->shutdown(c);
}

void tnl_conn_close(tnl_conn *c)
{
    c->ops->close(c, false);
}

void tnl_conn_reset(tnl_conn *c)
{
    c->ops->close(c, true);
}

int tnl_conn_dup(tnl_conn *c)
{
    return c->ops->dup ? c->ops->dup(c) : TUNNEL_E_UNSUPPORTED;
}

tnl_address tnl_conn_peer(const tnl_conn *c)
{
    return c->ops->peer ? c->ops->peer(c) : (tnl_address){.host = ""};
}

tnl_address tnl_conn_local(const tnl_conn *c)
{
    return c->ops->local ? c->ops->local(c) : (tnl_address){.host = ""};
}

void tnl_conn_keep_little(tnl_conn *c)
{
    if (c->ops->keep_little)
        c->ops->keep_little(c);
}

static size_t no_space(void *user, uint8_t **p)
{
    (void)user;
    (void)p;
    return 0;
}

static void no_data(void *user, uint8_t *p, size_t n)
{
    (void)user;
    (void)p;
    (void)n;
}

const tnl_conn_events tnl_conn_no_events = {.space = no_space, .data = no_data};

/* The polite end: takes the place of the user as the receiver of events until closed(). */
typedef struct finish {
    tnl_conn *c;
    const tnl_conn_events *events;
    void *user;
    tnl_timer *timer;
    size_t pending; /* at the last look, while the queue is being sent */
    size_t dropped;
} finish;

static void linger(finish *f)
{
    if (f->c->ended)
        tnl_conn_close(f->c);
    else
        tnl_timer_start(f->timer, FINISH_READ_MS);
}

static void finish_timer(void *user)
{
    finish *f = user;
    size_t pending = tnl_conn_pending(f->c);
    if (pending == 0 || pending >= f->pending) {
        tnl_conn_close(f->c);
        return;
    }
    f->pending = pending;
    tnl_timer_start(f->timer, FINISH_STALL_MS);
}

static size_t finish_space(void *user, uint8_t **p)
{
    finish *f = user;
    /* Beyond the bound nothing is read: the peer is held by its own window until the time is up. */
    if (f->dropped >= FINISH_READ_MAX)
        return 0;
    *p = tnl_loop_scratch(f->c->loop);
    return TNL_LOOP_SCRATCH;
}

static void finish_data(void *user, uint8_t *p, size_t n)
{
    (void)p;
    finish *f = user;
    f->dropped += n;
}

static void finish_eof(void *user)
{
    finish *f = user;
    if (tnl_conn_pending(f->c) == 0)
        tnl_conn_close(f->c);
}

static void finish_drained(void *user)
{
    finish *f = user;
    f->pending = 0;
    linger(f);
}

static void finish_closed(void *user, int error, const char *detail)
{
    finish *f = user;
    tnl_conn_set_events(f->c, f->events, f->user);
    tnl_timer_free(f->timer);
    tnl_loop_release(f->c->loop);
    if (f->events->closed)
        f->events->closed(f->user, error, detail);
    tnl_free(f);
}

static const tnl_conn_events finish_events = {
    .space = finish_space,
    .data = finish_data,
    .eof = finish_eof,
    .drained = finish_drained,
    .closed = finish_closed,
};

void tnl_conn_finish(tnl_conn *c)
{
    if (c->events == &finish_events)
        return;
    finish *f = tnl_calloc(1, sizeof(*f));
    if (!f || tnl_timer_new(&f->timer, c->loop, finish_timer, f)) {
        tnl_free(f);
        tnl_conn_close(c);
        return;
    }
    f->c = c;
    f->events = c->events;
    f->user = c->user;
    tnl_conn_set_events(c, &finish_events, f);
    tnl_loop_hold(c->loop); /* also while only the timer is awaited */
    tnl_conn_shutdown(c);
    tnl_conn_resume(c);
    f->pending = tnl_conn_pending(c);
    if (f->pending)
        tnl_timer_start(f->timer, FINISH_STALL_MS);
    else
        linger(f);
}
