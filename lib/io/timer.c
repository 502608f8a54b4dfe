/* SPDX-License-Identifier: Apache-2.0 */
#include <uv.h>

#include "base/mem.h"
#include "io/loop.h"
#include "io/loop_internal.h"
#include "tunnel/error.h"

struct tnl_timer {
    uv_timer_t uv;
    void (*fired)(void *user);
    void *user;
};

struct tnl_signal {
    uv_signal_t uv;
    void (*caught)(void *user, int signum);
    void *user;
};

static void on_closed(uv_handle_t *h)
{
    tnl_free(h->data);
}

static void on_timer(uv_timer_t *h)
{
    tnl_timer *t = h->data;
    t->fired(t->user);
}

int tnl_timer_new(tnl_timer **out, tnl_loop *l, void (*fired)(void *user), void *user)
{
    *out = NULL;
    tnl_timer *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    uv_timer_init(tnl_loop_handle(l), &t->uv);
    uv_unref((uv_handle_t *)&t->uv);
    t->uv.data = t;
    t->fired = fired;
    t->user = user;
    *out = t;
    return 0;
}

void tnl_timer_start(tnl_timer *t, uint64_t ms)
{
    uv_timer_start(&t->uv, on_timer, ms, 0);
}

void tnl_timer_stop(tnl_timer *t)
{
    uv_timer_stop(&t->uv);
}

int tnl_timer_active(const tnl_timer *t)
{
    return uv_is_active((const uv_handle_t *)&t->uv);
}

void tnl_timer_free(tnl_timer *t)
{
    if (t)
        uv_close((uv_handle_t *)&t->uv, on_closed);
}

static void on_signal(uv_signal_t *h, int signum)
{
    tnl_signal *s = h->data;
    s->caught(s->user, signum);
}

int tnl_signal_new(tnl_signal **out, tnl_loop *l, int signum,
                   void (*caught)(void *user, int signum), void *user)
{
    *out = NULL;
    tnl_signal *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->caught = caught;
    s->user = user;
    int rc = uv_signal_init(tnl_loop_handle(l), &s->uv);
    if (rc) {
        tnl_free(s);
        return tnl_io_error(rc);
    }
    s->uv.data = s;
    uv_unref((uv_handle_t *)&s->uv);
    rc = uv_signal_start(&s->uv, on_signal, signum);
    if (rc) {
        tnl_signal_free(s);
        return tnl_io_error(rc);
    }
    *out = s;
    return 0;
}

void tnl_signal_free(tnl_signal *s)
{
    if (s)
        uv_close((uv_handle_t *)&s->uv, on_closed);
}
