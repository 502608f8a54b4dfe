/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "crypto/crypto.h"
#include "files/files.h"
#include "tunnel/error.h"

enum {
    WAKE_APART_MS = 1000,
    WAKE_MS = 1500, /* for a sign of life after the machine was asleep; and for slow paths */
    WAKE_MOST_MS = 5000,
};

void tnl_client_set_state(tnl_client *c, tnl_client_state state)
{
    if (c->state != TNL_CLIENT_CLOSED)
        c->state = state;
}

void tnl_client_tell(tnl_client *c, const tunnel_event *e)
{
    if (c->event && c->state != TNL_CLIENT_CLOSED)
        c->event(c->event_user, e);
}

tnl_loop *tnl_client_loop(const tnl_client *c)
{
    return c->loop;
}

void tnl_client_on_event(tnl_client *c, tnl_client_event_cb cb, void *user)
{
    c->event = cb;
    c->event_user = user;
}

bool tnl_client_active(const tnl_client *c)
{
    return c->state == TNL_CLIENT_RUNNING || c->state == TNL_CLIENT_DRAINING;
}

void tnl_client_give_up(tnl_client *c, size_t server, int error, const char *text)
{
    tunnel_event e = {.type = TUNNEL_EVENT_FAILED,
                      .error = error,
                      .text = text && text[0] ? text : tunnel_strerror(error),
                      .host = c->servers[server].address};
    tnl_client_set_state(c, TNL_CLIENT_FAILED);
    tnl_attempt_stop(c);
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next)
        tnl_relation_end(TNL_CONTAINER(n, tnl_relation, node), error, NULL);
    tnl_client_tell(c, &e);
}

void tnl_client_woke(void *user)
{
    tnl_client *c = user;
    uint64_t now = tnl_loop_now(c->loop);
    tnl_attempt *a = &c->attempt;
    if (!tnl_client_active(c) || (c->woke_at && now - c->woke_at < WAKE_APART_MS))
        return;
    c->woke_at = now;
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next) {
        const tnl_relation *r = TNL_CONTAINER(n, tnl_relation, node);
        uint32_t rtt = r->link ? tnl_link_rtt(r->link) : UINT32_MAX;
        if (r->session)
            tnl_session_check(r->session,
                              rtt < WAKE_MOST_MS / 4 ? WAKE_MS + 2 * rtt : WAKE_MOST_MS);
    }
    tnl_backoff_reset(&a->backoff);
    if (a->dial) {
        /* It was begun in another network, maybe. */
        tnl_dial_cancel(a->dial);
        a->dial = NULL;
        tnl_attempt_now(c);
    } else if (a->state == TNL_ATTEMPT_WAITING && c->servers[a->server].not_before <= now) {
        tnl_timer_stop(a->timer);
        tnl_attempt_now(c);
    }
}

/* --- tunnels ---------------------------------------------------------------------------------- */

int tnl_client_publish(tnl_client *c, const tnl_tunnel_spec *spec, uint64_t *tunnel)
{
    if (c->state != TNL_CLIENT_IDLE && c->state != TNL_CLIENT_RUNNING)
        return TUNNEL_E_STATE;
    if (c->tunnel_count == TNL_CLIENT_MAX_TUNNELS)
        return TUNNEL_E_LIMIT;
    tnl_client_tunnel *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    t->id = ++c->next_tunnel;
    t->spec = *spec;
    t->any = !spec->name[0] && !spec->domain[0] && !spec->path_id[0] && !spec->port;
    tnl_list_add_tail(&c->tunnels, &t->node);
    c->tunnel_count++;
    if (tunnel)
        *tunnel = t->id;
    tnl_client_send_publish(c, t);
    return 0;
}

void tnl_tunnel_spec_clear(tnl_tunnel_spec *spec)
{
    tnl_upstream_clear(&spec->upstream);
    if (spec->tls)
        tnl_tls_server_unref(spec->tls);
    spec->tls = NULL;
    if (spec->files)
        tnl_files_free(spec->files, NULL, NULL);
    spec->files = NULL;
}

static void on_files_gone(void *user)
{
    tnl_client_release(user);
}

void tnl_client_drop_tunnel(tnl_client *c, tnl_client_tunnel *t)
{
    tnl_list_remove(&t->node);
    tnl_client_flows_free(c, t->id);
    if (t->spec.files) {
        /* What is being sent of the folder goes on. */
        tnl_client_hold(c);
        tnl_files_leave(t->spec.files, on_files_gone, c);
        t->spec.files = NULL;
    }
    tnl_tunnel_spec_clear(&t->spec);
    tnl_free(t);
    c->tunnel_count--;
}

int tnl_client_unpublish(tnl_client *c, uint64_t tunnel)
{
    tnl_client_tunnel *t = tnl_client_find(c, tunnel);
    if (!t)
        return TUNNEL_E_NOT_FOUND;
    tnl_client_send_unpublish(c, t);
    tnl_client_drop_tunnel(c, t);
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

static void client_free(tnl_client *c)
{
    if (c->ws)
        tnl_ws_free(c->ws);
    if (c->tls)
        tnl_tls_client_unref(c->tls);
    tnl_timer_free(c->attempt.timer);
    tnl_timer_free(c->lane_timer);
    tnl_timer_free(c->leave_timer);
    tnl_wake_free(c->wake);
    tnl_map_free(&c->handles);
    tnl_wipe(&c->config, sizeof(c->config));
    tnl_free(c);
}

void tnl_client_hold(tnl_client *c)
{
    c->users++;
}

void tnl_client_release(tnl_client *c)
{
    if (--c->users == 0)
        tnl_loop_defer(c->loop, &c->finish);
}

static void on_forwarder_gone(void *user)
{
    tnl_client_release(user);
}

static void on_finish(void *user)
{
    tnl_client *c = user;
    void (*closed)(void *) = c->closed;
    void *closed_user = c->closed_user;
    if (c->held)
        tnl_loop_release(c->loop);
    client_free(c);
    if (closed)
        closed(closed_user);
}

static bool wants_tls(const tnl_client *c)
{
    for (size_t i = 0; i < c->server_count; i++)
        if (strcmp(c->config.servers[i].scheme, "wss") == 0)
            return true;
    return false;
}

static int make_parts(tnl_client *c, char *detail, size_t size)
{
    const char *ca_file = c->config.ca_file[0] ? c->config.ca_file : NULL;
    int rc = wants_tls(c) ? tnl_tls_client_new(&c->tls, ca_file, true, detail, size) : 0;
    if (rc == 0)
        rc = tnl_timer_new(&c->attempt.timer, c->loop, tnl_attempt_timer_fired, c);
    if (rc == 0)
        rc = tnl_timer_new(&c->lane_timer, c->loop, tnl_lanes_look, c);
    if (rc == 0)
        rc = tnl_timer_new(&c->leave_timer, c->loop, tnl_leave_look, c);
    if (rc == 0)
        rc = tnl_ws_new(&c->ws, c->loop, NULL, NULL);
    if (rc == 0)
        rc = tnl_forwarder_new(&c->forwarder, c->loop);
    return rc;
}

int tnl_client_new(tnl_client **out, tnl_loop *loop, const tnl_client_config *config, char *detail,
                   size_t size)
{
    tnl_client *c = tnl_calloc(1, sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    c->loop = loop;
    c->config = *config;
    tnl_list_init(&c->relations);
    tnl_list_init(&c->tunnels);
    tnl_list_init(&c->visits);
    tnl_list_init(&c->handle_list);
    tnl_map_init(&c->handles, 0);
    tnl_task_init(&c->finish, on_finish, c);
    tnl_servers_init(c);
    tnl_client_hold(c); /* the forwarder */
    int rc = make_parts(c, detail, size);
    if (rc) {
        client_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

int tnl_client_start(tnl_client *c)
{
    if (c->state != TNL_CLIENT_IDLE)
        return TUNNEL_E_STATE;
    /* While it waits for its next attempt there is nothing else that keeps the loop running. */
    c->held = true;
    tnl_loop_hold(c->loop);
    c->wake = tnl_wake_new(c->loop, tnl_client_woke, c);
    tnl_client_set_state(c, TNL_CLIENT_RUNNING);
    tnl_attempt_now(c);
    return 0;
}

void tnl_client_maybe_closed(tnl_client *c)
{
    tnl_forwarder *f = c->forwarder;
    if (c->state != TNL_CLIENT_CLOSED || !tnl_list_empty(&c->relations) || !f)
        return;
    c->forwarder = NULL;
    for (tnl_list *n; (n = tnl_list_first(&c->tunnels));)
        tnl_client_drop_tunnel(c, TNL_CONTAINER(n, tnl_client_tunnel, node));
    tnl_forwarder_free(f, on_forwarder_gone, c);
}

void tnl_client_close(tnl_client *c, void (*closed)(void *user), void *user)
{
    bool draining = c->state == TNL_CLIENT_DRAINING;
    if (c->state == TNL_CLIENT_CLOSED)
        return;
    tnl_client_set_state(c, TNL_CLIENT_CLOSED);
    if (!draining) {
        c->closed = closed;
        c->closed_user = user;
    }
    tnl_attempt_stop(c);
    tnl_timer_stop(c->leave_timer);
    tnl_handle_close_all(c);
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next)
        tnl_relation_end(TNL_CONTAINER(n, tnl_relation, node), TUNNEL_E_GONE,
                         "the client is leaving");
    tnl_client_maybe_closed(c);
}
