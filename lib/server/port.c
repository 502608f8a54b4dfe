/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "crypto/crypto.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * The public ports of tcp and udp tunnels: which may be had, and which are free.
 */

enum { TRIES = 64 };

static const tnl_ports *range_of(const tnl_tunnel *t)
{
    const tnl_server_config *c = &t->peer->server->config;
    return t->name->kind == TNL_KIND_TCP ? &c->tcp_ports : &c->udp_ports;
}

/* The host part of a listener's address; "" for one that has none. */
static void host_of(const tnl_server *s, size_t i, char out[96])
{
    const char *address = s->config.listen[i].address;
    const char *colon = strrchr(address, ':');
    bool none = strncmp(address, "unix:", 5) == 0 || !colon;
    snprintf(out, 96, "%.*s", none ? 0 : (int)(colon - address), address);
}

static int rank_of(const char *host)
{
    return strcmp(host, "[::]") == 0 ? 0 : strcmp(host, "0.0.0.0") == 0 ? 1 : 2;
}

bool tnl_port_host(const tnl_server *s, size_t index, char out[96])
{
    char other[96];
    for (int rank = 0; rank < 3; rank++) {
        for (size_t i = 0; i < s->config.listen_count; i++) {
            host_of(s, i, out);
            bool seen = !out[0] || rank_of(out) != rank;
            for (size_t k = 0; k < i && !seen; k++) {
                host_of(s, k, other);
                seen = strcmp(other, out) == 0;
            }
            if (!seen && index-- == 0)
                return true;
        }
    }
    return false;
}

bool tnl_port_covered(const tnl_server *s, size_t index)
{
    char host[96], wide[96];
    if (!tnl_port_host(s, index, host))
        return false;
    for (size_t i = 0; i < index && tnl_port_host(s, i, wide); i++)
        if (rank_of(wide) == 0 || (rank_of(wide) == 1 && host[0] != '['))
            return true;
    return false;
}

int tnl_port_check(const tnl_tunnel *t, char *text, size_t size)
{
    char host[96], ports[TNL_PORTS_TEXT];
    const tnl_ports *range = range_of(t);
    const char *kind = tnl_kind_name(t->name->kind);
    if (range->count == 0) {
        snprintf(text, size, "this server gives out no %s ports (its --%s-ports is none)", kind,
                 kind);
        return TUNNEL_E_DENIED;
    }
    if (!tnl_port_host(t->peer->server, 0, host)) {
        snprintf(text, size, "this server listens on no address that %s ports could be opened on",
                 kind);
        return TUNNEL_E_UNSUPPORTED;
    }
    if (t->name->port && !tnl_ports_has(range, t->name->port)) {
        snprintf(text, size, "the port %u is not one of those this server gives out: %.200s",
                 t->name->port, tnl_ports_print(range, ports, sizeof(ports)));
        return TUNNEL_E_DENIED;
    }
    return 0;
}

static int open_at(tnl_tunnel *t, char *text, size_t size)
{
    return t->name->kind == TNL_KIND_TCP ? tnl_tcp_open(t->name, text, size)
                                         : tnl_udp_open(t->name, text, size);
}

static void set_key(tnl_tunnel *t)
{
    snprintf(t->name->key, sizeof(t->name->key), "%s:%u", tnl_kind_name(t->name->kind),
             t->name->port);
}

/* One of the range, tried from a random place on. */
static int open_any(tnl_tunnel *t, char *text, size_t size)
{
    const tnl_ports *range = range_of(t);
    size_t total = tnl_ports_total(range);
    uint32_t start;
    int rc = tnl_random(&start, sizeof(start));
    if (rc)
        return rc;
    rc = TUNNEL_E_LIMIT;
    for (size_t i = 0, tried = 0; i < total && tried < TRIES; i++) {
        t->name->port = tnl_ports_at(range, (start + i) % total);
        set_key(t);
        if (tnl_registry_holder(t) || tnl_claim_foreign(t))
            continue;
        tried++;
        rc = open_at(t, text, size);
        if (rc != TUNNEL_E_ADDR_IN_USE && rc != TUNNEL_E_ACCESS)
            break;
    }
    if (rc == TUNNEL_E_LIMIT || rc == TUNNEL_E_ADDR_IN_USE)
        snprintf(text, size, "no %s port is free on the server now", tnl_kind_name(t->name->kind));
    return rc;
}

int tnl_port_open(tnl_tunnel *t, char *text, size_t size)
{
    const tnl_server *s = t->peer->server;
    if (tnl_descriptors_scarce()) {
        snprintf(text, size, "the server has no room for more ports now");
        return TUNNEL_E_LIMIT;
    }
    int rc = t->name->port ? open_at(t, text, size) : open_any(t, text, size);
    if (rc)
        return rc;
    set_key(t);
    snprintf(t->name->url, sizeof(t->name->url), "%s://%s:%u", tnl_kind_name(t->name->kind),
             s->public_host, t->name->port);
    return 0;
}

void tnl_port_close(tnl_name *n)
{
    if (n->kind == TNL_KIND_TCP)
        tnl_tcp_close(n);
    else if (n->kind == TNL_KIND_UDP)
        tnl_udp_close(n);
}
