/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * Publishing: what clients ask for on the control stream, and who gets a name or port that is held.
 */

enum { MAX_PROBES = 8, TEXT = 200 + TNL_HOST_MAX };

static void probe_free(tnl_probe *p)
{
    tnl_list_remove(&p->node);
    tnl_timer_free(p->timer);
    if (p->wanted)
        tnl_tunnel_free(p->wanted);
    tnl_free(p);
}

void tnl_publish_drop_all(tnl_peer *p)
{
    for (tnl_list *n; (n = tnl_list_first(&p->probes));)
        probe_free(TNL_CONTAINER(n, tnl_probe, node));
    for (tnl_list *n; (n = tnl_list_first(&p->tunnels));)
        tnl_tunnel_free(TNL_CONTAINER(n, tnl_tunnel, of_peer));
}

static void refuse(tnl_peer *p, uint64_t tunnel, int code, const char *message)
{
    uint8_t bytes[512];
    tnl_publish_failed m = {
        .tunnel = tunnel, .code = (uint32_t)-code, .message = tnl_str_of(message)};
    tnl_peer_control(p, TNL_CONTROL_PUBLISH_FAILED, bytes,
                     tnl_publish_failed_encode(bytes, sizeof(bytes), &m));
}

/* A member leaves its name for good, and is told why. */
static void dismiss(tnl_tunnel *t, int code, const char *message)
{
    tnl_peer *p = t->peer;
    uint64_t id = t->id;
    tnl_tunnel_free(t);
    refuse(p, id, code, message);
}

/* Everybody loses the name to another client of the same account, which takes it over at once. */
static void displace(tnl_name *held)
{
    held->kept = true;
    tnl_list_remove(
        &held->of_kept); /* take_over() alone ends it: whoever joins may be gone by then */
    while (held->count)
        dismiss(TNL_CONTAINER(held->members.next, tnl_tunnel, of_name), TUNNEL_E_REPLACED,
                "another client of the same account has taken the name");
}

/* The name is free, or t may join who has it. */
static void publish(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    uint64_t id = t->id;
    char text[TEXT] = "";
    uint8_t bytes[1024];
    tnl_name *n = t->name, *held = tnl_registry_holder(t);
    int rc = 0;
    if (held && held->count >= TNL_POOL_MAX)
        dismiss(TNL_CONTAINER(held->members.next, tnl_tunnel, of_name), TUNNEL_E_REPLACED,
                "a newer client has joined the pool, which has 100 members at most");
    if (!held && (n->kind == TNL_KIND_TCP || n->kind == TNL_KIND_UDP))
        rc = tnl_port_open(t, text, sizeof(text));
    if (rc == 0)
        rc = tnl_registry_add(t);
    if (rc) {
        tnl_tunnel_free(t);
        refuse(p, id, rc, text[0] ? text : tunnel_strerror(rc));
        return;
    }
    n = t->name;
    tnl_published m = {
        .tunnel = id, .name = tnl_str_of(n->label), .url = tnl_str_of(n->url), .port = n->port};
    tnl_peer_control(p, TNL_CONTROL_PUBLISHED, bytes,
                     tnl_published_encode(bytes, sizeof(bytes), &m));
}

/* held: who has the name; NULL: nobody. */
static void take_over(tnl_tunnel *wanted, tnl_name *held)
{
    if (held)
        displace(held);
    publish(wanted);
    if (held)
        tnl_name_release(held);
}

static void taken(tnl_tunnel *wanted, const char *by)
{
    char text[TEXT];
    tnl_peer *p = wanted->peer;
    const tnl_name *n = wanted->name;
    uint64_t id = wanted->id;
    if (n->port)
        snprintf(text, sizeof(text), "the port %u is held by %s", n->port, by);
    else
        snprintf(text, sizeof(text), "the name '%s' is held by %s",
                 n->label[0]  ? n->label
                 : n->host[0] ? n->host
                              : n->path_id,
                 by);
    tnl_tunnel_free(wanted);
    refuse(p, id, TUNNEL_E_NAME_TAKEN, text);
}

/* --- who holds it ----------------------------------------------------------------------------- */

static bool shares(const tnl_tunnel *wanted, const tnl_name *held)
{
    return held->balance && wanted->balance;
}

static bool has_member(const tnl_name *held, const tnl_peer *p)
{
    for (tnl_list *n = held->members.next; n != &held->members; n = n->next)
        if (TNL_CONTAINER(n, tnl_tunnel, of_name)->peer == p)
            return true;
    return false;
}

static bool all_away(const tnl_name *held)
{
    for (tnl_list *n = held->members.next; n != &held->members; n = n->next)
        if (!tnl_peer_away(TNL_CONTAINER(n, tnl_tunnel, of_name)->peer))
            return false;
    return true;
}

/* Whether one of them has been heard since it was asked, or was never asked. */
static bool any_alive(const tnl_name *held, const tnl_probe *probe)
{
    for (tnl_list *n = held->members.next; n != &held->members; n = n->next) {
        const tnl_tunnel *t = TNL_CONTAINER(n, tnl_tunnel, of_name);
        if (t->number > probe->asked ||
            (t->peer->session && tnl_session_last_heard(t->peer->session) >= probe->started))
            return true;
    }
    return false;
}

static const char *live_holder(const tnl_tunnel *wanted, const tnl_name *held)
{
    if (held->balance)
        return "a pool of this account: start this client with --pool as well to join it";
    return wanted->balance ? "another live client of this account that does not share it: start "
                             "that one with --pool as well"
                           : "another live client of this account";
}

/* The holder had its time to answer the ping. */
static void on_probe_over(void *user)
{
    tnl_probe *probe = user;
    tnl_tunnel *wanted = probe->wanted;
    tnl_name *held = tnl_registry_holder(wanted);
    probe->wanted = NULL;
    bool alive = held && any_alive(held, probe);
    probe_free(probe);
    /* The name may be free by now, and another account have it as one of another kind. */
    if (tnl_claim_foreign(wanted))
        taken(wanted, "another account");
    else if (held && has_member(held, wanted->peer))
        taken(wanted, "this client already");
    else if (held && shares(wanted, held))
        publish(wanted);
    else if (alive)
        taken(wanted, live_holder(wanted, held));
    else
        take_over(wanted, held);
}

static int start_probe(tnl_tunnel *wanted, const tnl_name *held)
{
    tnl_peer *p = wanted->peer;
    size_t running = 0;
    for (tnl_list *n = p->probes.next; n != &p->probes; n = n->next)
        running++;
    tnl_probe *probe = running < MAX_PROBES ? tnl_calloc(1, sizeof(*probe)) : NULL;
    if (!probe)
        return TUNNEL_E_NOMEM;
    if (tnl_timer_new(&probe->timer, p->server->loop, on_probe_over, probe)) {
        tnl_free(probe);
        return TUNNEL_E_NOMEM;
    }
    probe->peer = p;
    probe->wanted = wanted;
    probe->asked = p->server->publications;
    /* Heard in this very turn is alive as well: on a fast path the answer comes within the same
     * millisecond. */
    probe->started = tnl_loop_now(p->server->loop);
    tnl_list_add_tail(&p->probes, &probe->node);
    tnl_timer_start(probe->timer, TNL_PROBE_MS);
    for (tnl_list *n = held->members.next; n != &held->members; n = n->next) {
        const tnl_tunnel *t = TNL_CONTAINER(n, tnl_tunnel, of_name);
        if (t->peer->session)
            tnl_session_ping(t->peer->session);
    }
    return 0;
}

static bool id_in_use(const tnl_peer *p, uint64_t id)
{
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next)
        if (TNL_CONTAINER(n, tnl_tunnel, of_peer)->id == id)
            return true;
    for (tnl_list *n = p->probes.next; n != &p->probes; n = n->next)
        if (TNL_CONTAINER(n, tnl_probe, node)->wanted->id == id)
            return true;
    return false;
}

static void decide(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    tnl_name *held = tnl_registry_holder(t);
    if (tnl_claim_foreign(t))
        taken(t, "another account");
    else if (!held)
        publish(t);
    else if (has_member(held, p))
        taken(t, "this client already");
    else if (p->force)
        take_over(t, held);
    else if (shares(t, held))
        publish(t);
    else if (all_away(held))
        take_over(t, held);
    else if (start_probe(t, held))
        taken(t, "another client of this account");
}

static int on_publish(tnl_peer *p, const uint8_t *bytes, size_t n)
{
    char text[TEXT] = "";
    tnl_publish m;
    tnl_tunnel *t;
    if (tnl_publish_decode(&m, bytes, n) || id_in_use(p, m.tunnel))
        return TUNNEL_E_PROTOCOL;
    if (p->tunnel_count >= TNL_MAX_TUNNELS) {
        refuse(p, m.tunnel, TUNNEL_E_LIMIT_EXCEEDED, "a client may publish 64 tunnels");
        return 0;
    }
    int rc = tnl_tunnel_new(&t, p, &m, text, sizeof(text));
    if (rc)
        refuse(p, m.tunnel, rc, text[0] ? text : tunnel_strerror(rc));
    else
        decide(t);
    return 0;
}

static int on_unpublish(tnl_peer *p, const uint8_t *bytes, size_t n)
{
    tnl_unpublish m;
    if (tnl_unpublish_decode(&m, bytes, n))
        return TUNNEL_E_PROTOCOL;
    for (tnl_list *node = p->tunnels.next; node != &p->tunnels; node = node->next) {
        tnl_tunnel *t = TNL_CONTAINER(node, tnl_tunnel, of_peer);
        if (t->id == m.tunnel) {
            tnl_tunnel_free(t);
            return 0;
        }
    }
    for (tnl_list *node = p->probes.next; node != &p->probes; node = node->next) {
        tnl_probe *probe = TNL_CONTAINER(node, tnl_probe, node);
        if (probe->wanted->id == m.tunnel) {
            probe_free(probe);
            return 0;
        }
    }
    return 0;
}

int tnl_publish_control(tnl_peer *p, uint8_t type, const uint8_t *bytes, size_t n)
{
    return type == TNL_CONTROL_PUBLISH ? on_publish(p, bytes, n) : on_unpublish(p, bytes, n);
}

/* Something of a client's that others serve as well. */
static tnl_tunnel *find_shared(const tnl_peer *p)
{
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next) {
        tnl_tunnel *t = TNL_CONTAINER(n, tnl_tunnel, of_peer);
        if (t->name->balance && t->name->count > 1)
            return t;
    }
    return NULL;
}

void tnl_publish_sweep(tnl_server *s, uint64_t now)
{
    for (tnl_list *n = s->peers.next; n != &s->peers; n = n->next) {
        tnl_peer *p = TNL_CONTAINER(n, tnl_peer, node);
        if (!tnl_peer_away(p) || now - p->parked_at < TNL_POOL_AWAY_MS)
            continue;
        for (tnl_tunnel *t; (t = find_shared(p));)
            dismiss(t, TUNNEL_E_GONE,
                    "the client was away for too long, the pool went on without it");
    }
}
