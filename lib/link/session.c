/* SPDX-License-Identifier: Apache-2.0 */
#include "link/session.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "link/link.h"
#include "tunnel/error.h"

enum { DETAIL_SIZE = 256 };

struct tnl_session {
    tnl_loop *loop;
    tnl_mux *mux;
    tnl_list links;
    tnl_timer *timer;
    uint64_t due;     /* when it fires, while it is active */
    tnl_timer *grace; /* runs while it is parked */
    uint32_t grace_ms;
    bool parked;
    int parked_error; /* why the last link was lost */
    tnl_task ending;
    bool over;
    int error;
    char *detail; /* of its end, allocated; NULL: none */
    const tnl_session_events *events;
    void *user;
};

static void on_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    tnl_session *s = user;
    if (!s->over)
        s->events->open(s->user, stream, map, n);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    tnl_session *s = user;
    return s->over ? 0 : s->events->control(s->user, type, p, n);
}

static void on_event(void *user, const uint8_t *map, size_t n)
{
    tnl_session *s = user;
    if (s->events->event && !s->over)
        s->events->event(s->user, map, n);
}

static void on_datagram(void *user, const tnl_datagram *d)
{
    tnl_session *s = user;
    if (s->events->datagram && !s->over)
        s->events->datagram(s->user, d);
}

static void on_dropped(void *user, uint64_t count)
{
    tnl_session *s = user;
    if (s->events->dropped && !s->over)
        s->events->dropped(s->user, count);
}

static void on_retired(void *user)
{
    tnl_session *s = user;
    if (s->events->retired && !s->over)
        s->events->retired(s->user);
}

static void on_wake(void *user, void *link_user)
{
    (void)user;
    tnl_link_wake(link_user);
}

static const tnl_mux_events mux_events = {.open = on_open,
                                          .control = on_control,
                                          .event = on_event,
                                          .datagram = on_datagram,
                                          .dropped = on_dropped,
                                          .wake = on_wake,
                                          .retired = on_retired};

static void rearm(tnl_session *s)
{
    uint64_t expiry = s->over ? UINT64_MAX : tnl_mux_expiry(s->mux);
    if (expiry == UINT64_MAX || (tnl_timer_active(s->timer) && s->due <= expiry))
        return;
    uint64_t now = tnl_loop_now(s->loop);
    s->due = expiry;
    tnl_timer_start(s->timer, expiry > now ? expiry - now : 0);
}

static void on_timer(void *user)
{
    tnl_session *s = user;
    if (s->over)
        return;
    tnl_mux_tick(s->mux, tnl_loop_now(s->loop));
    rearm(s);
}

/* At the end of the loop turn, when nothing of the session is on the stack. */
static void on_ending(void *user)
{
    tnl_session *s = user;
    tnl_mux_abort(s->mux, s->error ? s->error : TUNNEL_E_GONE);
    if (s->events->closed)
        s->events->closed(s->user, s->error, s->detail ? s->detail : "");
    for (tnl_list *n; (n = tnl_list_first(&s->links));) {
        tnl_session_link *l = TNL_CONTAINER(n, tnl_session_link, node);
        tnl_list_remove(n);
        l->mux_link = NULL;
        tnl_link_unbind(l->link);
    }
    tnl_timer_free(s->timer);
    tnl_timer_free(s->grace);
    tnl_mux_free(s->mux);
    tnl_free(s->detail);
    tnl_free(s);
}

static void on_grace_over(void *user);

int tnl_session_new(tnl_session **out, tnl_loop *loop, const tnl_mux_config *config,
                    const tnl_session_events *ev, void *user)
{
    tnl_session *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->loop = loop;
    s->events = ev;
    s->user = user;
    tnl_list_init(&s->links);
    tnl_task_init(&s->ending, on_ending, s);
    int rc = tnl_timer_new(&s->timer, loop, on_timer, s);
    if (rc == 0)
        rc = tnl_timer_new(&s->grace, loop, on_grace_over, s);
    if (rc == 0)
        rc = tnl_mux_new(&s->mux, config, &mux_events, s);
    if (rc) {
        tnl_timer_free(s->timer);
        tnl_timer_free(s->grace);
        tnl_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

tnl_mux *tnl_session_mux(tnl_session *s)
{
    return s->over ? NULL : s->mux;
}

int tnl_session_datagram(tnl_session *s, const tnl_datagram *d)
{
    if (s->over)
        return TUNNEL_E_GONE;
    int rc = tnl_mux_datagram(s->mux, d, tnl_loop_now(s->loop));
    rearm(s);
    return rc;
}

static void end(tnl_session *s, int error, const char *detail)
{
    if (s->over)
        return;
    s->over = true;
    s->error = error;
    s->detail = detail ? tnl_strndup(detail, strnlen(detail, DETAIL_SIZE)) : NULL;
    tnl_timer_stop(s->timer);
    tnl_timer_stop(s->grace);
    s->parked = false;
    tnl_loop_defer(s->loop, &s->ending);
}

static void on_grace_over(void *user)
{
    tnl_session *s = user;
    char detail[DETAIL_SIZE];
    snprintf(detail, sizeof(detail), "no connection for %.9g s", s->grace_ms / 1000.0);
    end(s, s->parked_error, detail);
}

static void park(tnl_session *s, int error, const char *detail)
{
    s->parked = true;
    s->parked_error = error;
    tnl_timer_start(s->grace, s->grace_ms);
    if (s->events->parked)
        s->events->parked(s->user, error, detail);
}

void tnl_session_set_grace(tnl_session *s, uint32_t ms)
{
    s->grace_ms = ms;
}

bool tnl_session_parked(const tnl_session *s)
{
    return s->parked;
}

static void close_links(tnl_session *s, int code, const char *text)
{
    for (tnl_list *n = s->links.next; n != &s->links; n = n->next)
        tnl_link_close(TNL_CONTAINER(n, tnl_session_link, node)->link, code, text);
}

void tnl_session_close(tnl_session *s, int code, const char *text)
{
    if (s->over)
        return;
    end(s, 0, text);
    close_links(s, code, text);
}

void tnl_session_ping(tnl_session *s)
{
    for (tnl_list *n = s->links.next; n != &s->links; n = n->next)
        tnl_link_ping(TNL_CONTAINER(n, tnl_session_link, node)->link);
}

void tnl_session_check(tnl_session *s, uint32_t patience_ms)
{
    for (tnl_list *n = s->links.next; n != &s->links; n = n->next)
        tnl_link_check(TNL_CONTAINER(n, tnl_session_link, node)->link, patience_ms);
}

uint64_t tnl_session_last_heard(const tnl_session *s)
{
    uint64_t last = 0;
    for (tnl_list *n = s->links.next; n != &s->links; n = n->next) {
        uint64_t heard = tnl_link_last_heard(TNL_CONTAINER(n, tnl_session_link, node)->link);
        if (heard > last)
            last = heard;
    }
    return last;
}

int tnl_session_attach(tnl_session *s, tnl_session_link *l, tnl_link *link, size_t inflight,
                       bool fallback, bool unproven)
{
    if (s->over)
        return TUNNEL_E_GONE;
    l->link = link;
    tnl_list_add_tail(&s->links, &l->node);
    l->mux_link = tnl_mux_link_add(s->mux, inflight, unproven, link);
    if (!l->mux_link) {
        tnl_list_remove(&l->node);
        return TUNNEL_E_NOMEM;
    }
    if (fallback)
        tnl_mux_link_drain(s->mux, l->mux_link);
    s->parked = false;
    tnl_timer_stop(s->grace);
    rearm(s);
    return 0;
}

void tnl_session_proven(tnl_session *s, tnl_session_link *l)
{
    if (s->over)
        return;
    tnl_mux_link_proven(s->mux, l->mux_link);
    rearm(s);
}

void tnl_session_frame(tnl_session *s, tnl_session_link *l, const tnl_frame *f)
{
    if (s->over)
        return;
    int rc = tnl_mux_frame(s->mux, l->mux_link, f, tnl_loop_now(s->loop));
    if (rc)
        tnl_session_broken(s, rc);
    else
        rearm(s);
}

void tnl_session_rtt(tnl_session *s, tnl_session_link *l, uint32_t ms)
{
    if (!s->over)
        tnl_mux_set_rtt(s->mux, l->mux_link, ms, tnl_loop_now(s->loop));
}

void tnl_session_broken(tnl_session *s, int error)
{
    if (s->over)
        return;
    end(s, error, tunnel_strerror(error));
    close_links(s, error, tunnel_strerror(error));
}

size_t tnl_session_pull(tnl_session *s, tnl_session_link *l, uint8_t *out, size_t cap)
{
    if (s->over)
        return 0;
    size_t n = tnl_mux_pull(s->mux, l->mux_link, out, cap, tnl_loop_now(s->loop));
    rearm(s);
    return n;
}

void tnl_session_detach(tnl_session *s, tnl_session_link *l, int error, const char *detail)
{
    if (l->mux_link)
        tnl_mux_link_lost(s->mux, l->mux_link);
    l->mux_link = NULL;
    tnl_list_remove(&l->node);
    if (s->over || !tnl_list_empty(&s->links))
        return;
    if (s->grace_ms)
        park(s, error ? error : TUNNEL_E_EOF, detail);
    else
        end(s, error ? error : TUNNEL_E_EOF, detail);
}

void tnl_session_peer_closed(tnl_session *s, int error, const char *detail)
{
    end(s, error, detail);
    close_links(s, 0, NULL);
}
