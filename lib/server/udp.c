/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "io/udp.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * The public sockets of udp tunnels. Each visitor's address is a flow, whose id the client knows;
 * what the client answers in a flow goes to that address and to no other.
 */

enum {
    IDLE_DEFAULT_MS = 60000,
    IDLE_LEAST_MS = 1000,
    IDLE_MOST_MS = 3600000,
    SWEEP_LEAST_MS = 100,
    SWEEP_MOST_MS = 5000,
    SWEEP_COUNT = 256, /* flows that are ended in one turn of the loop */
    STALE_PART = 6,    /* a flow that was idle for this part of its time makes room, */
    STALE_MS = 2000,   /* or for this, if that is less */
};

/* What a flow has come to: that decides who makes room for a newcomer. */
typedef enum life {
    DONE,  /* asked once and answered once, as lookups are */
    FRESH, /* never answered */
    TALKS,
    LIVES,
} life;

/* A host, or an IPv6 network of 64 bits, that flows come from. */
typedef struct source {
    tnl_map_node node;
    uint8_t key[9]; /* family, address */
    size_t count;
    tnl_list flows[LIVES]; /* the longest idle first */
} source;

typedef struct flow {
    tnl_map_node by_visitor;
    tnl_map_node by_id;
    tnl_list recent;    /* in a list of port->flows */
    tnl_list of_source; /* in a list of source->flows */
    source *source;
    tnl_udp_address visitor; /* .user: which socket */
    uint64_t born;
    uint64_t heard; /* last datagram, either way */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint8_t asked;    /* datagrams of the visitor, up to 2 */
    uint8_t answered; /* and of the service */
} flow;

typedef struct udp_port udp_port;

typedef struct udp_socket {
    udp_port *port;
    tnl_udp *udp;
    uint64_t dropped; /* of what it dropped, what was counted */
} udp_socket;

struct udp_port {
    tnl_name *name;
    tnl_map visitors;
    tnl_map ids;
    tnl_map sources;
    tnl_list flows[LIVES]; /* the longest idle first */
    size_t count;
    tnl_timer *sweep;
    size_t socket_count;
    udp_socket sockets[TNL_SERVER_MAX_LISTEN];
};

static udp_port *of(const tnl_name *n)
{
    return (udp_port *)(void *)n->bound;
}

static tnl_server *server_of(const udp_port *p)
{
    return p->name->server;
}

/* Its one member, if its client has not just left to come back. */
static tnl_tunnel *tunnel_of(const udp_port *p)
{
    return TNL_CONTAINER(p->name->members.next, tnl_tunnel, of_name);
}

static uint32_t idle_of(const udp_port *p)
{
    uint32_t asked = tunnel_of(p)->idle_ms;
    if (asked == 0)
        return IDLE_DEFAULT_MS;
    return asked < IDLE_LEAST_MS ? IDLE_LEAST_MS : asked > IDLE_MOST_MS ? IDLE_MOST_MS : asked;
}

/* --- the life of a flow ----------------------------------------------------------------------- */

static void source_key(uint8_t key[9], const tnl_udp_address *a)
{
    memset(key, 0, 9);
    key[0] = a->family;
    memcpy(key + 1, a->address, a->family == 4 ? 4 : 8);
}

static source *find_source(const udp_port *p, const tnl_udp_address *a)
{
    uint8_t key[9];
    source_key(key, a);
    tnl_map_node *n = tnl_map_get(&p->sources, key, sizeof(key));
    return n ? TNL_CONTAINER(n, source, node) : NULL;
}

static source *add_source(udp_port *p, const tnl_udp_address *a)
{
    source *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    source_key(s->key, a);
    for (size_t i = 0; i < LIVES; i++)
        tnl_list_init(&s->flows[i]);
    if (tnl_map_put(&p->sources, &s->node, s->key, sizeof(s->key))) {
        tnl_free(s);
        return NULL;
    }
    return s;
}

static void source_drop(udp_port *p, source *s)
{
    if (s->count)
        return;
    tnl_map_remove(&p->sources, &s->node);
    tnl_free(s);
}

static void tell(const udp_port *p, const flow *f)
{
    char host[8];
    tnl_server *s = server_of(p);
    tnl_address visitor = tnl_udp_text(&f->visitor);
    snprintf(host, sizeof(host), ":%u", p->name->port);
    tunnel_event e = {.type = TUNNEL_EVENT_ACCESS,
                      .method = "UDP",
                      .host = host,
                      .visitor = visitor.host,
                      .duration_us = (f->heard - f->born) * 1000,
                      .bytes_in = f->bytes_in,
                      .bytes_out = f->bytes_out};
    if (s->config.access_events)
        tnl_server_tell(s, &e);
}

static void end_flow(udp_port *p, flow *f)
{
    tnl_map_remove(&p->visitors, &f->by_visitor);
    tnl_map_remove(&p->ids, &f->by_id);
    tnl_list_remove(&f->recent);
    tnl_list_remove(&f->of_source);
    p->count--;
    f->source->count--;
    source_drop(p, f->source);
    tell(p, f);
    tnl_free(f);
}

static flow *longest_idle(const tnl_list *l)
{
    tnl_list *n = tnl_list_first(l);
    return n ? TNL_CONTAINER(n, flow, recent) : NULL;
}

/* The first one makes room, else the second, or who has been silent for a while; who talks with the
 * service stays. */
static bool end_one(udp_port *p, flow *first, flow *second, flow *silent)
{
    uint64_t now = tnl_loop_now(server_of(p)->loop);
    uint32_t idle = idle_of(p);
    uint32_t stale = idle / STALE_PART < STALE_MS ? idle / STALE_PART : STALE_MS;
    flow *f = first ? first : second;
    if (!f && silent && now - silent->heard >= stale)
        f = silent;
    if (f)
        end_flow(p, f);
    return f != NULL;
}

static flow *first_of_source(const tnl_list *l)
{
    tnl_list *n = tnl_list_first(l);
    return n ? TNL_CONTAINER(n, flow, of_source) : NULL;
}

static bool make_room(udp_port *p, const tnl_udp_address *who)
{
    const tnl_server_config *c = &server_of(p)->config;
    const source *s = find_source(p, who);
    if (s && s->count >= c->udp_flows_per_source &&
        !end_one(p, first_of_source(&s->flows[DONE]), first_of_source(&s->flows[FRESH]),
                 first_of_source(&s->flows[TALKS])))
        return false;
    /* Among those of all hosts the other way round: forged addresses, which are many and never
     * answered, must not drive out who has just shaken hands. */
    return p->count < c->udp_flows ||
           end_one(p, longest_idle(&p->flows[FRESH]), longest_idle(&p->flows[DONE]),
                   longest_idle(&p->flows[TALKS]));
}

static void begin_sweeping(udp_port *p)
{
    uint32_t ms = idle_of(p) / 8;
    ms = ms < SWEEP_LEAST_MS ? SWEEP_LEAST_MS : ms > SWEEP_MOST_MS ? SWEEP_MOST_MS : ms;
    if (!tnl_timer_active(p->sweep))
        tnl_timer_start(p->sweep, ms);
}

/* NULL: there is no room, or no memory. */
static flow *begin_flow(udp_port *p, const tnl_udp_address *who)
{
    if (!make_room(p, who))
        return NULL;
    source *s = find_source(p, who);
    if (!s)
        s = add_source(p, who);
    flow *f = s ? tnl_calloc(1, sizeof(*f)) : NULL;
    if (!f)
        goto fail;
    f->visitor = *who;
    f->source = s;
    if (tnl_map_put(&p->visitors, &f->by_visitor, &f->visitor, sizeof(f->visitor)))
        goto fail;
    if (tnl_map_put_id(&p->ids, &f->by_id, ++tunnel_of(p)->peer->flows)) {
        tnl_map_remove(&p->visitors, &f->by_visitor);
        goto fail;
    }
    s->count++;
    p->count++;
    f->born = tnl_loop_now(server_of(p)->loop);
    tnl_list_add_tail(&p->flows[FRESH], &f->recent);
    tnl_list_add_tail(&s->flows[FRESH], &f->of_source);
    server_of(p)->stats.flows++;
    begin_sweeping(p);
    return f;
fail:
    tnl_free(f);
    if (s)
        source_drop(p, s);
    return NULL;
}

static life life_of(const flow *f)
{
    return !f->answered ? FRESH : f->asked == 1 && f->answered == 1 ? DONE : TALKS;
}

/* Another datagram: *count is asked or answered. */
static void touch(udp_port *p, flow *f, uint8_t *count)
{
    if (*count < 2)
        ++*count;
    f->heard = tnl_loop_now(server_of(p)->loop);
    tnl_list_remove(&f->recent);
    tnl_list_add_tail(&p->flows[life_of(f)], &f->recent);
    tnl_list_remove(&f->of_source);
    tnl_list_add_tail(&f->source->flows[life_of(f)], &f->of_source);
}

/* --- idle ends -------------------------------------------------------------------------------- */

static void count_kernel_drops(udp_port *p)
{
    for (size_t i = 0; i < p->socket_count; i++) {
        udp_socket *s = &p->sockets[i];
        uint64_t dropped = tnl_udp_dropped(s->udp);
        server_of(p)->stats.datagrams_dropped += dropped - s->dropped;
        s->dropped = dropped;
    }
}

static size_t end_idle(udp_port *p, const tnl_list *l, size_t most)
{
    uint64_t now = tnl_loop_now(server_of(p)->loop);
    uint32_t idle = idle_of(p);
    size_t n = 0;
    for (flow *f; n < most && (f = longest_idle(l)) && now - f->heard >= idle; n++)
        end_flow(p, f);
    return n;
}

static void on_sweep(void *user)
{
    udp_port *p = user;
    size_t ended = 0;
    if (p->name->count == 0)
        return;
    count_kernel_drops(p);
    for (size_t i = 0; i < LIVES; i++)
        ended += end_idle(p, &p->flows[i], SWEEP_COUNT - ended);
    if (ended == SWEEP_COUNT)
        tnl_timer_start(p->sweep, 1);
    else if (p->count)
        begin_sweeping(p);
}

/* --- datagrams -------------------------------------------------------------------------------- */

static void on_visitor(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n)
{
    const udp_socket *s = user;
    udp_port *port = s->port;
    if (port->name->count == 0) {
        server_of(port)->stats.datagrams_dropped++;
        return;
    }
    const tnl_tunnel *t = tunnel_of(port);
    tnl_udp_address who = *from;
    who.user = (uint8_t)(s - port->sockets);
    tnl_map_node *node = tnl_map_get(&port->visitors, &who, sizeof(who));
    flow *f = node ? TNL_CONTAINER(node, flow, by_visitor) : NULL;
    if (!f && t->peer->session)
        f = begin_flow(port, &who);
    if (!f || !t->peer->session) {
        server_of(port)->stats.datagrams_dropped++;
        return;
    }
    touch(port, f, &f->asked);
    f->bytes_in += n;
    tnl_datagram d = {.tunnel = t->id, .flow = f->by_id.id, .p = p, .n = n};
    if (!f->answered) {
        d.family = who.family;
        d.port = who.port;
        memcpy(d.address, who.address, sizeof(d.address));
    }
    (void)tnl_session_datagram(t->peer->session, &d);
}

static const tnl_udp_events udp_events = {.datagram = on_visitor};

static udp_port *find_port(const tnl_peer *p, uint64_t tunnel)
{
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next) {
        const tnl_tunnel *t = TNL_CONTAINER(n, tnl_tunnel, of_peer);
        if (t->id == tunnel)
            return t->name->kind == TNL_KIND_UDP ? of(t->name) : NULL;
    }
    return NULL;
}

void tnl_udp_answer(tnl_peer *peer, const tnl_datagram *d)
{
    udp_port *p = find_port(peer, d->tunnel);
    tnl_map_node *n = p ? tnl_map_get_id(&p->ids, d->flow) : NULL;
    if (!n) {
        peer->server->stats.datagrams_dropped++;
        return;
    }
    flow *f = TNL_CONTAINER(n, flow, by_id);
    f->bytes_out += d->n;
    touch(p, f, &f->answered);
    tnl_udp_send(p->sockets[f->visitor.user].udp, &f->visitor, d->p, d->n);
}

/* --- ports ------------------------------------------------------------------------------------ */

static int explain(int error, uint16_t port, char *text, size_t size)
{
    if (error == TUNNEL_E_ADDR_IN_USE)
        snprintf(text, size, "the port %u is in use on the server by another program", port);
    else if (error == TUNNEL_E_ACCESS)
        snprintf(text, size, "the server lacks the right to open the port %u", port);
    else
        snprintf(text, size, "the server cannot open the port %u: %s", port,
                 tunnel_strerror(error));
    return error;
}

static int open_socket(udp_port *p, const char *host)
{
    char address[112];
    udp_socket *s = &p->sockets[p->socket_count];
    s->port = p;
    snprintf(address, sizeof(address), "%s:%u", host, p->name->port);
    int rc = tnl_udp_new(&s->udp, server_of(p)->loop, address, &udp_events, s, NULL, 0);
    if (rc == 0)
        p->socket_count++;
    return rc;
}

int tnl_udp_open(tnl_name *n, char *text, size_t size)
{
    char host[96];
    tnl_server *s = n->server;
    udp_port *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return explain(TUNNEL_E_NOMEM, n->port, text, size);
    p->name = n;
    tnl_map_init(&p->visitors, s->names.seed);
    tnl_map_init(&p->ids, 0);
    tnl_map_init(&p->sources, s->names.seed);
    for (size_t i = 0; i < LIVES; i++)
        tnl_list_init(&p->flows[i]);
    n->bound = (tnl_port *)(void *)p;
    int rc = tnl_timer_new(&p->sweep, s->loop, on_sweep, p);
    for (size_t i = 0; rc == 0 && tnl_port_host(s, i, host); i++) {
        rc = open_socket(p, host);
        if (rc == TUNNEL_E_ADDR_IN_USE && tnl_port_covered(s, i))
            rc = 0;
    }
    if (rc == 0)
        return 0;
    tnl_udp_close(n);
    return explain(rc, n->port, text, size);
}

void tnl_udp_forget(tnl_name *n)
{
    udp_port *p = of(n);
    for (size_t i = 0; p && i < LIVES; i++)
        for (flow *f; (f = longest_idle(&p->flows[i]));)
            end_flow(p, f);
}

void tnl_udp_close(tnl_name *n)
{
    udp_port *p = of(n);
    if (!p)
        return;
    count_kernel_drops(p);
    for (size_t i = 0; i < p->socket_count; i++)
        tnl_udp_free(p->sockets[i].udp);
    tnl_timer_free(p->sweep);
    tnl_udp_forget(n);
    n->bound = NULL;
    tnl_map_free(&p->visitors);
    tnl_map_free(&p->ids);
    tnl_map_free(&p->sources);
    tnl_free(p);
}
