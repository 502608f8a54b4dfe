/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "server/visitor.h"
#include "wire/message.h"

/*
 * Which tunnel a request is for.
 */

const char *tnl_route_mark(const tnl_tunnel *t, char out[TNL_LOOP_MARK])
{
    snprintf(out, TNL_LOOP_MARK, "t%llu.%s", (unsigned long long)t->number,
             t->peer->server->loop_id);
    return out;
}

/* Whether the request went through this tunnel before: its service is the tunnel itself. */
static bool loops(const tnl_visitor *v, const tnl_tunnel *t)
{
    char mark[TNL_LOOP_MARK];
    tnl_route_mark(t, mark);
    for (size_t i = 0; i < v->head->field_count; i++) {
        const tnl_http_field *f = &v->head->fields[i];
        if (tnl_http_is(f->name, "CDN-Loop") &&
            memmem(f->value.p, f->value.n, mark, strlen(mark)) != NULL)
            return true;
    }
    return false;
}

static void tell_loop(const tnl_tunnel *t)
{
    uint8_t map[64];
    tnl_mux *m = t->peer->session ? tnl_session_mux(t->peer->session) : NULL;
    tnl_event e = {.event = tnl_str_of("loop"), .tunnel = t->id};
    size_t n = tnl_event_encode(map, sizeof(map), &e);
    if (m && n)
        tnl_mux_event(m, map, n);
}

/* http://DOMAIN/ID/rest?x=1: the tunnel ID gets /rest?x=1. */
static tnl_name *route_path(tnl_visitor *v)
{
    tnl_http_span path = v->head->path;
    if (!path.n || path.p[0] != '/')
        return NULL;
    size_t n = 1;
    while (n < path.n && path.p[n] != '/' && path.p[n] != '?')
        n++;
    tnl_name *name = n > 1 ? tnl_registry_find_path(v->server, path.p + 1, n - 1) : NULL;
    if (name) {
        v->prefix = (tnl_http_span){path.p, n};
        v->path = (tnl_http_span){path.p + n, path.n - n};
    }
    return name;
}

static void answer_unknown(tnl_visitor *v, bool by_path)
{
    char text[700], host[160], path[200] = "";
    tnl_http_span h = v->head->host, p = v->head->path;
    size_t n = 0;
    while (by_path && n < p.n && p.p[n] != '?' && (n == 0 || p.p[n] != '/'))
        n++;
    tnl_log_escape(host, sizeof(host), h.p, h.n);
    if (n > 1)
        tnl_log_escape(path, sizeof(path), p.p, n);
    snprintf(text, sizeof(text),
             "No tunnel is published as %s%s.\n"
             "Start one with: tunnel-client http PORT --subdomain NAME",
             host, path);
    tnl_visitor_answer(v, 404, text);
}

static bool asks_by_path(const tnl_visitor *v)
{
    return v->server->config.path_routing && tnl_registry_is_root(v->server, v->head->host);
}

/* Somebody who was not tried yet. */
static tnl_tunnel *pick(tnl_visitor *v)
{
    v->target = 0;
    v->path = v->prefix = (tnl_http_span){NULL, 0};
    tnl_name *n = asks_by_path(v) ? route_path(v) : NULL;
    if (!n)
        n = tnl_registry_find(v->server, TNL_KIND_HTTP, v->head->host, &v->target);
    return n ? tnl_pool_pick(n, &v->tried) : NULL;
}

tnl_tunnel *tnl_route(tnl_visitor *v)
{
    memset(&v->tried, 0, sizeof(v->tried));
    tnl_tunnel *t = pick(v);
    if (!t) {
        if (!tnl_await(v, asks_by_path(v)))
            answer_unknown(v, asks_by_path(v));
    } else if (loops(v, t)) {
        tell_loop(t);
        tnl_visitor_answer(v, 508,
                           "This tunnel leads back to itself: its local service is its own public "
                           "address.\nGive tunnel-client the address of the service instead.");
        t = NULL;
    }
    return t;
}

tnl_tunnel *tnl_route_again(tnl_visitor *v)
{
    tnl_tunnel *t = pick(v);
    return t && !loops(v, t) ? t : NULL;
}
