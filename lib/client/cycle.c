/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/internal.h"
#include "tunnel/error.h"

/*
 * Tunnels whose upstream is their own public address: a visitor would go round and round, each time
 * as one more visitor. Three signs, each of which the other ones can miss: the address as it was
 * given, the address that was reached, and a visitor who comes from a connection of our own.
 */

/* Bytes that pass as they are come back as they were; HTTP requests are the server's to recognise.
 */
static bool passes_bytes(const tnl_tunnel_spec *s)
{
    return s->kind == TNL_KIND_TCP || (s->kind == TNL_KIND_TLS && !s->tls);
}

bool tnl_client_published_at(tnl_client_tunnel *t, tnl_str text)
{
    char copy[TNL_URL_HOST + TNL_URL_PATH];
    tnl_url url;
    const tnl_upstream *u = &t->spec.upstream;
    t->public_port = 0;
    snprintf(copy, sizeof(copy), "%.*s", (int)(text.n < sizeof(copy) ? text.n : 0),
             text.n ? text.p : "");
    if (tnl_url_parse(&url, copy))
        return true;
    t->public_port = url.port                                                             ? url.port
                     : strcmp(url.scheme, "https") == 0 || strcmp(url.scheme, "tls") == 0 ? 443
                                                                                          : 80;
    bool same = t->spec.far_end == TNL_FAR_ADDRESS && u->port == t->public_port &&
                strcasecmp(u->host, url.host) == 0;
    return !same || (url.path[0] && strcmp(url.path, "/") != 0);
}

bool tnl_client_is_server(const tnl_client *c, const char *host)
{
    for (const tnl_list *n = c->relations.next; n != &c->relations; n = n->next)
        if (strcmp(TNL_CONTAINER(n, const tnl_relation, node)->reached.host, host) == 0)
            return true;
    return false;
}

bool tnl_client_reached_itself(const tnl_client *c, const tnl_client_tunnel *t,
                               const tnl_conn *upstream)
{
    tnl_address a = tnl_conn_peer(upstream);
    return passes_bytes(&t->spec) && a.host[0] && a.port == t->public_port &&
           tnl_client_is_server(c, a.host);
}

/* Both ends must be the same: a host's connections to different places share its ports. */
static bool is_that_visitor(const tnl_client_visit *v, const tnl_open *o)
{
    return v->local.port == o->port && v->remote.port == o->server_port &&
           tnl_str_eq(o->visitor, v->local.host) && tnl_str_eq(o->server, v->remote.host);
}

bool tnl_client_visits_itself(const tnl_client *c, const tnl_client_tunnel *t, const tnl_open *o,
                              unsigned *hops)
{
    *hops = 0;
    if (!passes_bytes(&t->spec) || !o->port)
        return false;
    for (const tnl_list *n = c->visits.next; n != &c->visits; n = n->next) {
        const tnl_client_visit *v = TNL_CONTAINER(n, const tnl_client_visit, node);
        if (!is_that_visitor(v, o))
            continue;
        /* One tunnel behind another is fine, but who has come through more of them than there are
         * has come through one of them twice. */
        *hops = v->hops + 1;
        return v->tunnel == t->id || *hops > c->tunnel_count;
    }
    return false;
}

void tnl_client_fail_cycle(tnl_client *c, tnl_client_tunnel *t)
{
    char text[TNL_URL_HOST + 128];
    const tnl_upstream *u = &t->spec.upstream;
    snprintf(text, sizeof(text),
             strchr(u->host, ':')
                 ? "[%s]:%u is the tunnel's own public address; give that of the local service"
                 : "%s:%u is the tunnel's own public address; give that of the local service",
             u->host, u->port);
    tunnel_event e = {
        .type = TUNNEL_EVENT_FAILED, .tunnel = t->id, .error = TUNNEL_E_LOOP, .text = text};
    tnl_client_send_unpublish(c, t);
    tnl_client_drop_tunnel(c, t);
    tnl_client_tell(c, &e);
}
