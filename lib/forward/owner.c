/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "forward/internal.h"
#include "tunnel/error.h"

enum { WHY = 200 };

/* --- members ---------------------------------------------------------------------------------- */

int tnl_forward_member_init(tnl_forward_member *m, tnl_forwarder *f, const tnl_forward_options *o,
                            void (*end)(tnl_forward_member *m))
{
    static const tnl_forward_options none = {.head = NULL};
    if (!o)
        o = &none;
    if (o->head_n > TNL_FORWARD_HEAD)
        return TUNNEL_E_INVALID;
    if (o->head_n) {
        m->head = tnl_malloc(o->head_n);
        if (!m->head)
            return TUNNEL_E_NOMEM;
        memcpy(m->head, o->head, o->head_n);
        m->head_n = o->head_n;
    }
    tnl_list_init(&m->node);
    m->owner = f;
    m->events = o->events;
    m->user = o->user;
    m->patient = o->patient;
    m->end = end;
    m->started_us = tnl_loop_clock_us();
    return 0;
}

void tnl_forward_member_discard(tnl_forward_member *m)
{
    tnl_free(m->head);
    m->head = NULL;
    tnl_free(m->why);
    m->why = NULL;
}

void tnl_forward_member_add(tnl_forward_member *m)
{
    m->owner->count++;
    tnl_list_add_tail(&m->owner->members, &m->node);
}

void tnl_forward_member_begin(tnl_forward_member *m, tnl_conn *c)
{
    tnl_iov v = {m->head, m->head_n};
    if (m->head)
        (void)tnl_conn_write(c, &v, 1);
    tnl_free(m->head);
    m->head = NULL;
}

int tnl_forward_member_connected(const tnl_forward_member *m, int error, const char *detail,
                                 tnl_conn *c)
{
    return m->events && m->events->connected ? m->events->connected(m->user, error, detail, c) : 0;
}

void tnl_forward_member_note(tnl_forward_member *m, int error, const char *text, size_t n)
{
    char why[WHY];
    if (m->error || !error)
        return;
    m->error = error;
    if (n)
        m->why = tnl_strdup(tnl_log_escape(why, sizeof(why), text, n));
}

void tnl_forward_member_over(tnl_forward_member *m)
{
    tnl_forwarder *f = m->owner;
    tnl_forward_end end = {.to_conn = m->to_conn,
                           .to_stream = m->to_stream,
                           .duration_us = tnl_loop_clock_us() - m->started_us,
                           .error = m->error,
                           .text = m->why     ? m->why
                                   : m->error ? tunnel_strerror(m->error)
                                              : ""};
    tnl_list_remove(&m->node);
    f->count--;
    if (f->freed && f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    if (m->events && m->events->over)
        m->events->over(m->user, &end);
    tnl_forward_member_discard(m);
}

/* --- owner ------------------------------------------------------------------------------------ */

static void on_ending(void *user)
{
    tnl_forwarder *f = user;
    void (*gone)(void *) = f->gone;
    void *gone_user = f->gone_user;
    tnl_free(f);
    if (gone)
        gone(gone_user);
}

int tnl_forwarder_new(tnl_forwarder **out, tnl_loop *loop)
{
    tnl_forwarder *f = tnl_calloc(1, sizeof(*f));
    if (!f)
        return TUNNEL_E_NOMEM;
    f->loop = loop;
    tnl_list_init(&f->members);
    tnl_task_init(&f->ending, on_ending, f);
    *out = f;
    return 0;
}

size_t tnl_forwarder_count(const tnl_forwarder *f)
{
    return f->count;
}

void tnl_forwarder_free(tnl_forwarder *f, void (*gone)(void *user), void *user)
{
    tnl_list ending;
    tnl_list_init(&ending);
    f->freed = true;
    f->gone = gone;
    f->gone_user = user;
    if (f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    /* over() may be told from here, and may end others. */
    for (tnl_list *n; (n = tnl_list_first(&f->members));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&ending, n);
    }
    for (tnl_list *n; (n = tnl_list_first(&ending));) {
        tnl_forward_member *m = TNL_CONTAINER(n, tnl_forward_member, node);
        tnl_list_remove(n);
        m->end(m);
    }
}
