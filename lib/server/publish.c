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

static void publish(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    uint64_t id = t->id;
    char text[TEXT] = "";
    uint8_t bytes[1024];
    int rc = t->kind == TNL_KIND_TCP || t->kind == TNL_KIND_UDP
                 ? tnl_port_open(t, text, sizeof(text))
                 : 0;
    if (rc == 0)
        rc = tnl_registry_add(t);
    if (rc) {
        tnl_tunnel_free(t);
        refuse(p, id, rc, text[0] ? text : tunnel_strerror(rc));
        return;
    }
    tnl_published m = {
        .tunnel = id, .name = tnl_str_of(t->label), .url = tnl_str_of(t->url), .port = t->port};
    tnl_peer_control(p, TNL_CONTROL_PUBLISHED, bytes,
                     tnl_published_encode(bytes, sizeof(bytes), &m));
}

/* The holder loses the name to another client of the same account, and is told for good. */
static void displace(tnl_tunnel *holder)
{
    tnl_peer *p = holder->peer;
    uint64_t id = holder->id;
    tnl_tunnel_free(holder);
    refuse(p, id, TUNNEL_E_REPLACED, "another client of the same account has taken the name");
}

static void taken(tnl_tunnel *wanted, const char *by)
{
    char text[TEXT];
    tnl_peer *p = wanted->peer;
    uint64_t id = wanted->id;
    if (wanted->port)
        snprintf(text, sizeof(text), "the port %u is held by %s", wanted->port, by);
    else
        snprintf(text, sizeof(text), "the name '%s' is held by %s",
                 wanted->label[0]  ? wanted->label
                 : wanted->host[0] ? wanted->host
                                   : wanted->path_id,
                 by);
    tnl_tunnel_free(wanted);
    refuse(p, id, TUNNEL_E_NAME_TAKEN, text);
}

/* The holder had its time to answer the ping. */
static void on_probe_over(void *user)
{
    tnl_probe *probe = user;
    tnl_tunnel *wanted = probe->wanted;
    tnl_tunnel *holder = tnl_registry_holder(wanted);
    probe->wanted = NULL;
    /* Who has got the name meanwhile was never asked. */
    bool asked = holder && holder->number == probe->asked;
    bool alive = holder &&
                 (!asked || (holder->peer->session &&
                             tnl_session_last_heard(holder->peer->session) >= probe->started));
    probe_free(probe);
    /* The name may be free by now, and another account have it as one of another kind. */
    bool foreign = tnl_registry_foreign(wanted);
    if (alive || foreign) {
        taken(wanted, foreign ? "another account" : "another live client of this account");
        return;
    }
    if (holder)
        displace(holder);
    publish(wanted);
}

static int start_probe(tnl_tunnel *wanted, tnl_tunnel *holder)
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
    probe->asked = holder->number;
    /* Heard in this very turn is alive as well: on a fast path the answer comes within the same
     * millisecond. */
    probe->started = tnl_loop_now(p->server->loop);
    tnl_list_add_tail(&p->probes, &probe->node);
    tnl_timer_start(probe->timer, TNL_PROBE_MS);
    if (holder->peer->session)
        tnl_session_ping(holder->peer->session);
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
    tnl_tunnel *holder = tnl_registry_holder(t);
    if (tnl_registry_foreign(t)) {
        taken(t, "another account");
    } else if (!holder) {
        publish(t);
    } else if (holder->peer == p) {
        taken(t, "this client already");
    } else if (p->force || tnl_peer_away(holder->peer)) {
        displace(holder);
        publish(t);
    } else if (start_probe(t, holder)) {
        taken(t, "another client of this account");
    }
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
