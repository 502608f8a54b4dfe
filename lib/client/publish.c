/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "client/internal.h"
#include "tunnel/error.h"

tnl_client_tunnel *tnl_client_find(tnl_client *c, uint64_t id)
{
    for (tnl_list *n = c->tunnels.next; n != &c->tunnels; n = n->next) {
        tnl_client_tunnel *t = TNL_CONTAINER(n, tnl_client_tunnel, node);
        if (t->id == id)
            return t;
    }
    return NULL;
}

/* --- sending ---------------------------------------------------------------------------------- */

static void send_control(tnl_relation *r, uint8_t type, const uint8_t *bytes, size_t n)
{
    tnl_mux *m = tnl_relation_mux(r);
    int rc = m && n ? tnl_mux_control(m, type, bytes, n) : 0;
    if (rc)
        tnl_session_broken(r->session, rc);
}

void tnl_client_send_publish(tnl_client *c, const tnl_client_tunnel *t)
{
    uint8_t bytes[1536];
    const tnl_tunnel_spec *s = &t->spec;
    tnl_publish m = {.tunnel = t->id,
                     .kind = tnl_str_of(tnl_kind_name(s->kind)),
                     .name = tnl_str_of(s->name),
                     .domain = tnl_str_of(s->domain),
                     .path_id = tnl_str_of(s->path_id),
                     .port = s->port,
                     .ports = s->far_end == TNL_FAR_PORTS,
                     .fresh = s->kind == TNL_KIND_HTTP && s->proxy_protocol,
                     .idle_ms = s->idle_ms,
                     .host_header = tnl_str_of(s->host_header),
                     .pool = tnl_str_of(s->pool)};
    if (c->current)
        send_control(c->current, TNL_CONTROL_PUBLISH, bytes,
                     tnl_publish_encode(bytes, sizeof(bytes), &m));
}

void tnl_client_send_unpublish(tnl_client *c, const tnl_client_tunnel *t)
{
    uint8_t bytes[32];
    tnl_unpublish m = {.tunnel = t->id};
    size_t size = tnl_unpublish_encode(bytes, sizeof(bytes), &m);
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next)
        send_control(TNL_CONTAINER(n, tnl_relation, node), TNL_CONTROL_UNPUBLISH, bytes, size);
}

void tnl_client_publish_all(tnl_client *c)
{
    for (tnl_list *n = c->tunnels.next; n != &c->tunnels; n = n->next) {
        const tnl_client_tunnel *t = TNL_CONTAINER(n, tnl_client_tunnel, node);
        tnl_client_send_publish(c, t);
    }
}

/* --- receiving -------------------------------------------------------------------------------- */

static int on_published(tnl_relation *r, const uint8_t *p, size_t n)
{
    char url[512];
    tnl_client *c = r->client;
    tnl_published m;
    if (tnl_published_decode(&m, p, n))
        return TUNNEL_E_PROTOCOL;
    tnl_client_tunnel *t = tnl_client_find(c, m.tunnel);
    /* What one says that we are leaving counts no more. */
    if (!t || r != c->current || c->state == TNL_CLIENT_DRAINING)
        return 0;
    if (m.name.n >= sizeof(t->spec.name))
        return TUNNEL_E_PROTOCOL;
    /* A name or port of the server's choice is asked for again after a reconnect. What was asked
     * for stays, whatever this server makes of it: the next one is asked for the same. */
    if (t->any) {
        snprintf(t->spec.name, sizeof(t->spec.name), "%.*s", (int)m.name.n,
                 m.name.n ? m.name.p : "");
        t->spec.port = (uint16_t)m.port;
    }
    t->published = r->number;
    t->was_published = true;
    t->home = r->server;
    if (!tnl_client_published_at(t, m.url)) {
        tnl_client_fail_cycle(c, t);
        return 0;
    }
    tnl_log_escape(url, sizeof(url), m.url.p, m.url.n);
    tunnel_event e = {.type = TUNNEL_EVENT_PUBLISHED, .tunnel = t->id, .url = url};
    tnl_client_tell(c, &e);
    return 0;
}

/* Away from its pool for so long that it was taken out, a tunnel is back now. Whoever is leaving
 * takes none any more: the next session will have it. False: it has failed. */
static bool publish_again(const tnl_relation *r, tnl_client_tunnel *t)
{
    bool was = t->spec.pool[0] && t->published == r->number;
    t->published = 0;
    if (was)
        tnl_client_send_publish(r->client, t);
    return was || r->goaway;
}

/* What one server had chosen another one may not have to give: it shall choose as well. */
static bool ask_for_any(const tnl_relation *r, tnl_client_tunnel *t, int error)
{
    bool taken = error == TUNNEL_E_NAME_TAKEN || error == TUNNEL_E_ADDR_IN_USE ||
                 error == TUNNEL_E_NAME_INVALID || error == TUNNEL_E_ACCESS ||
                 error == TUNNEL_E_DENIED;
    if (!t->any || !taken || t->published == r->number || (!t->spec.name[0] && !t->spec.port))
        return false;
    t->spec.name[0] = '\0';
    t->spec.port = 0;
    tnl_client_send_publish(r->client, t);
    return true;
}

static bool serves_any(const tnl_relation *r)
{
    const tnl_client *c = r->client;
    for (const tnl_list *n = c->tunnels.next; n != &c->tunnels; n = n->next)
        if (TNL_CONTAINER(n, const tnl_client_tunnel, node)->published == r->number)
            return true;
    return false;
}

/* One server had it, another one does not take it: whoever has the name there must not end it for
 * good. It waits for the session with the next one, which is looked for if this one has nothing. */
static bool wait_for_home(tnl_relation *r, tnl_client_tunnel *t, int error, const char *text)
{
    tnl_client *c = r->client;
    if (!t->was_published || t->home == r->server || error == TUNNEL_E_REPLACED)
        return false;
    t->published = 0;
    if (!serves_any(r) && !r->goaway) {
        r->goaway = r->final = true;
        tnl_servers_move(c);
    }
    tunnel_event e = {.type = TUNNEL_EVENT_WARNING, .tunnel = t->id, .error = error, .text = text};
    tnl_client_tell(c, &e);
    return true;
}

static int on_publish_failed(tnl_relation *r, const uint8_t *p, size_t n)
{
    char text[512];
    tnl_client *c = r->client;
    tnl_publish_failed m;
    if (tnl_publish_failed_decode(&m, p, n))
        return TUNNEL_E_PROTOCOL;
    tnl_client_tunnel *t = tnl_client_find(c, m.tunnel);
    if (!t || r != c->current || c->state == TNL_CLIENT_DRAINING)
        return 0;
    int error = m.code && m.code < 1000 ? -(int)m.code : TUNNEL_E_PROTOCOL;
    if ((error == TUNNEL_E_GONE && publish_again(r, t)) || ask_for_any(r, t, error))
        return 0;
    tnl_log_escape(text, sizeof(text), m.message.p, m.message.n);
    if (wait_for_home(r, t, error, text[0] ? text : tunnel_strerror(error)))
        return 0;
    tnl_client_drop_tunnel(c, t);
    tunnel_event e = {.type = TUNNEL_EVENT_FAILED,
                      .tunnel = m.tunnel,
                      .error = error,
                      .text = text[0] ? text : tunnel_strerror(error)};
    tnl_client_tell(c, &e);
    return 0;
}

/* The server wants us to go, now or soon: the same here, as there is nothing to wait for. What it
 * still brings is served to its end. */
static int on_goaway(tnl_relation *r, const uint8_t *p, size_t n)
{
    char text[512];
    tnl_client *c = r->client;
    tnl_goaway m;
    bool told = r->goaway;
    if (tnl_goaway_decode(&m, p, n))
        return TUNNEL_E_PROTOCOL;
    r->goaway = true;
    r->final |= m.final;
    if (told)
        return 0;
    tnl_log_escape(text, sizeof(text), m.message.p, m.message.n);
    tunnel_event e = {
        .type = TUNNEL_EVENT_DRAINING, .text = text, .host = c->servers[r->server].address};
    tnl_client_tell(c, &e);
    if (r == c->current && c->state == TNL_CLIENT_RUNNING)
        tnl_servers_move(c);
    return 0;
}

int tnl_client_on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    switch (type) {
    case TNL_CONTROL_PUBLISHED:
        return on_published(user, p, n);
    case TNL_CONTROL_PUBLISH_FAILED:
        return on_publish_failed(user, p, n);
    case TNL_CONTROL_GOAWAY:
        return on_goaway(user, p, n);
    case TNL_CONTROL_REAUTH_RESULT:
        return 0;
    default:
        return type & TNL_FRAME_CRITICAL ? TUNNEL_E_UNSUPPORTED : 0;
    }
}

/* A visitor's request came back to the server through the service: told once. */
static void tell_loop(tnl_client *c, tnl_client_tunnel *t)
{
    tunnel_event e = {.type = TUNNEL_EVENT_WARNING,
                      .tunnel = t->id,
                      .error = TUNNEL_E_LOOP,
                      .text = "the service that is forwarded to is the tunnel itself: visitors get "
                              "508; give the address of the service instead"};
    bool told = t->loop_told;
    t->loop_told = true;
    if (!told)
        tnl_client_tell(c, &e);
}

void tnl_client_on_event_frame(void *user, const uint8_t *p, size_t n)
{
    const tnl_relation *r = user;
    tnl_client *c = r->client;
    char method[64], path[1100], visitor[80];
    tnl_event m;
    tnl_client_tunnel *t = tnl_event_decode(&m, p, n) ? NULL : tnl_client_find(c, m.tunnel);
    if (t && tnl_str_eq(m.event, "loop"))
        tell_loop(c, t);
    if (!t || !tnl_str_eq(m.event, "request"))
        return;
    tunnel_event e = {.type = TUNNEL_EVENT_REQUEST,
                      .tunnel = m.tunnel,
                      .method = tnl_log_escape(method, sizeof(method), m.method.p, m.method.n),
                      .path = tnl_log_escape(path, sizeof(path), m.path.p, m.path.n),
                      .visitor = tnl_log_escape(visitor, sizeof(visitor), m.visitor.p, m.visitor.n),
                      .status = (int)m.status,
                      .duration_us = m.duration_us,
                      .bytes_in = m.received,
                      .bytes_out = m.sent};
    tnl_client_tell(c, &e);
}
