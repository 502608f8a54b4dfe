/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "server/arrival.h"
#include "server/internal.h"
#include "server/visitor.h"
#include "tunnel/error.h"

/*
 * Stopping politely. First the clients are told to move, and whoever balances load that this server
 * is not ready; all goes on. Then nothing new is taken, and what is under way comes to its end.
 */

static void say_goaway(tnl_peer *p, bool final)
{
    uint8_t bytes[128];
    tnl_goaway m = {.final = final, .message = tnl_str_of("the server is about to stop")};
    tnl_peer_control(p, TNL_CONTROL_GOAWAY, bytes, tnl_goaway_encode(bytes, sizeof(bytes), &m));
}

static void tell_clients(tnl_server *s, bool final)
{
    for (tnl_list *n = s->peers.next, *next; n != &s->peers; n = next) {
        tnl_peer *p = TNL_CONTAINER(n, tnl_peer, node);
        next = n->next;
        if (final && tnl_peer_away(p))
            tnl_peer_close(p, TUNNEL_E_GONE, "the server is stopping"); /* it cannot come back */
        else if (p->session)
            say_goaway(p, final);
    }
}

static void close_ports(tnl_server *s)
{
    for (tnl_map_node *n = tnl_map_next(&s->names, NULL); n; n = tnl_map_next(&s->names, n)) {
        tnl_name *name = TNL_CONTAINER(n, tnl_name, by_key);
        if (name->kind == TNL_KIND_TCP)
            tnl_port_close(name);
    }
}

/* Nothing new from here on. */
static void begin_finish(tnl_server *s)
{
    s->drain = TNL_DRAIN_FINISH;
    tnl_server_stop_listening(s);
    close_ports(s);
    tell_clients(s, true);
    tnl_arrival_close_silent(s);
    for (tnl_list *n = s->visitors.next, *next; n != &s->visitors; n = next) {
        next = n->next;
        tnl_visitor_leave_idle(n);
    }
    tnl_timer_start(s->drain_timer, s->drain_timeout_ms);
    tnl_loop_defer(s->loop, &s->drain_look);
}

static void over(tnl_server *s)
{
    s->drain = TNL_DRAIN_OVER;
    tnl_server_close(s, NULL, NULL);
}

/* Who is cut is told of, so that the time can be made longer. */
static void out_of_time(tnl_server *s)
{
    char text[120];
    bool one = s->visitor_count == 1;
    snprintf(text, sizeof(text), "the time to finish is over: %zu visitor%s %s cut",
             s->visitor_count, one ? "" : "s", one ? "is" : "are");
    tunnel_event e = {.type = TUNNEL_EVENT_WARNING, .error = TUNNEL_E_TIMEOUT, .text = text};
    tnl_server_tell(s, &e);
    if (!s->closing) /* by whoever was told */
        over(s);
}

static void on_timer(void *user)
{
    tnl_server *s = user;
    if (s->closing)
        return;
    if (s->drain == TNL_DRAIN_MOVE)
        begin_finish(s);
    else if (s->visitor_count)
        out_of_time(s);
    else
        over(s);
}

/* Nobody could answer the visitors that may come, and none of those that are here has asked. */
static bool is_deserted(const tnl_server *s)
{
    size_t idle = 0;
    for (tnl_list *n = s->visitors.next; n != &s->visitors; n = n->next)
        idle += !tnl_visitor_is_busy(n);
    return tnl_list_empty(&s->peers) && idle == s->visitor_count;
}

/* Whether what is left needs any more time. */
static void on_look(void *user)
{
    tnl_server *s = user;
    if (s->closing)
        return;
    if (s->visitor_count == 0 ? s->drain == TNL_DRAIN_FINISH || tnl_list_empty(&s->peers)
                              : s->drain == TNL_DRAIN_MOVE && is_deserted(s))
        over(s);
}

void tnl_drain_changed(tnl_server *s)
{
    if (s->drain && !s->closing)
        tnl_loop_defer(s->loop, &s->drain_look);
}

int tnl_drain_init(tnl_server *s)
{
    tnl_task_init(&s->drain_look, on_look, s);
    return tnl_timer_new(&s->drain_timer, s->loop, on_timer, s);
}

void tnl_server_drain(tnl_server *s, uint32_t delay_ms, uint32_t timeout_ms,
                      void (*closed)(void *user), void *user)
{
    if (s->closing || s->drain)
        return;
    s->ready = false;
    s->closed = closed;
    s->closed_user = user;
    s->drain = TNL_DRAIN_MOVE;
    s->drain_timeout_ms = timeout_ms;
    tunnel_event e = {.type = TUNNEL_EVENT_DRAINING,
                      .text = "the server is about to stop",
                      .delay_ms = (uint64_t)delay_ms + timeout_ms};
    tnl_server_tell(s, &e);
    if (s->closing) /* by whoever was told */
        return;
    tell_clients(s, false);
    tnl_timer_start(s->drain_timer, delay_ms);
    tnl_loop_defer(s->loop, &s->drain_look);
}
