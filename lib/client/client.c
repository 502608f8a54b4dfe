/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "crypto/crypto.h"
#include "files/files.h"
#include "tunnel/error.h"

enum { BACKOFF_BASE_MS = 250, BACKOFF_CAP_MS = 30000, BACKOFF_FLOOR_MS = 50, STABLE_MS = 10000 };

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

/* --- trying again ----------------------------------------------------------------------------- */

static void on_backoff_over(void *user)
{
    tnl_client *c = user;
    /* The old link may take its time to close; when it has, it goes on from there. */
    if (c->state == TNL_CLIENT_BACKOFF && !c->link)
        tnl_client_connect(c);
}

static bool final(int error)
{
    switch (error) {
    case TUNNEL_E_AUTH_FAILED:
    case TUNNEL_E_VERSION:
    case TUNNEL_E_REPLACED:
    case TUNNEL_E_DENIED:
    case TUNNEL_E_LIMIT_EXCEEDED:
    case TUNNEL_E_CERTIFICATE:
        return true;
    default:
        return false;
    }
}

void tnl_client_lost(tnl_client *c, int error, const char *detail)
{
    if (c->state == TNL_CLIENT_CLOSED || c->state == TNL_CLIENT_FAILED ||
        c->state == TNL_CLIENT_BACKOFF)
        return;
    tunnel_event e = {.error = error,
                      .text = detail && detail[0] ? detail : tunnel_strerror(error)};
    if (final(error)) {
        tnl_client_set_state(c, TNL_CLIENT_FAILED);
        if (c->session)
            tnl_session_close(c->session, error, NULL);
        e.type = TUNNEL_EVENT_FAILED;
        tnl_client_tell(c, &e);
        return;
    }
    uint32_t random = 0;
    uint64_t now = tnl_loop_now(c->loop);
    if (c->state == TNL_CLIENT_LIVE && now - c->live_since >= STABLE_MS)
        tnl_backoff_reset(&c->backoff);
    if (tnl_random(&random, sizeof(random)))
        random = UINT32_MAX;
    e.type = TUNNEL_EVENT_RETRYING;
    e.delay_ms = tnl_backoff_next(&c->backoff, random);
    tnl_client_set_state(c, TNL_CLIENT_BACKOFF);
    tnl_timer_start(c->timer, e.delay_ms);
    tnl_client_tell(c, &e);
}

/* --- tunnels ---------------------------------------------------------------------------------- */

int tnl_client_publish(tnl_client *c, const tnl_tunnel_spec *spec, uint64_t *tunnel)
{
    if (c->state == TNL_CLIENT_CLOSED || c->state == TNL_CLIENT_FAILED)
        return TUNNEL_E_STATE;
    if (c->tunnel_count == TNL_CLIENT_MAX_TUNNELS)
        return TUNNEL_E_LIMIT;
    tnl_client_tunnel *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    t->id = ++c->next_tunnel;
    t->spec = *spec;
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
    tnl_client_flows_free(t);
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
    tnl_timer_free(c->timer);
    tnl_timer_free(c->lane_timer);
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

int tnl_client_new(tnl_client **out, tnl_loop *loop, const tnl_client_config *config, char *detail,
                   size_t size)
{
    tnl_client *c = tnl_calloc(1, sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    c->loop = loop;
    c->config = *config;
    c->backoff = (tnl_backoff){
        .base_ms = BACKOFF_BASE_MS, .cap_ms = BACKOFF_CAP_MS, .floor_ms = BACKOFF_FLOOR_MS};
    tnl_list_init(&c->tunnels);
    tnl_list_init(&c->visits);
    tnl_list_init(&c->lanes);
    tnl_list_init(&c->handle_list);
    tnl_map_init(&c->handles, 0);
    tnl_task_init(&c->finish, on_finish, c);
    snprintf(c->address, sizeof(c->address),
             config->servers[0].ipv6 ? "%s://[%s]:%u" : "%s://%s:%u", config->servers[0].scheme,
             config->servers[0].host, config->servers[0].port);
    int rc = 0;
    if (strcmp(config->servers[0].scheme, "wss") == 0)
        rc = tnl_tls_client_new(&c->tls, config->ca_file[0] ? config->ca_file : NULL, true, detail,
                                size);
    if (rc == 0)
        rc = tnl_timer_new(&c->timer, loop, on_backoff_over, c);
    if (rc == 0)
        rc = tnl_timer_new(&c->lane_timer, loop, tnl_lanes_look, c);
    if (rc == 0)
        rc = tnl_ws_new(&c->ws, loop, NULL, NULL);
    if (rc == 0)
        rc = tnl_forwarder_new(&c->forwarder, loop);
    tnl_client_hold(c); /* the forwarder */
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
    tnl_client_connect(c);
    return 0;
}

void tnl_client_maybe_closed(tnl_client *c)
{
    tnl_forwarder *f = c->forwarder;
    if (c->state != TNL_CLIENT_CLOSED || c->dial || c->link || c->session || !f)
        return;
    c->forwarder = NULL;
    for (tnl_list *n; (n = tnl_list_first(&c->tunnels));)
        tnl_client_drop_tunnel(c, TNL_CONTAINER(n, tnl_client_tunnel, node));
    tnl_forwarder_free(f, on_forwarder_gone, c);
}

void tnl_client_drain(tnl_client *c, uint32_t timeout_ms, void (*closed)(void *user), void *user)
{
    (void)timeout_ms;
    tnl_client_close(c, closed, user);
}

void tnl_client_close(tnl_client *c, void (*closed)(void *user), void *user)
{
    if (c->state == TNL_CLIENT_CLOSED)
        return;
    tnl_client_set_state(c, TNL_CLIENT_CLOSED);
    c->closed = closed;
    c->closed_user = user;
    tnl_timer_stop(c->timer);
    if (c->dial)
        tnl_dial_cancel(c->dial);
    c->dial = NULL;
    tnl_handle_close_all(c);
    if (c->session)
        tnl_session_close(c->session, TUNNEL_E_GONE, "the client is leaving");
    if (c->link) /* not yet the session's */
        tnl_link_close(c->link, TUNNEL_E_GONE, "the client is leaving");
    tnl_lanes_cancel(c);
    tnl_client_maybe_closed(c);
}
