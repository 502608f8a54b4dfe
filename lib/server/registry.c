/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "server/raw.h"
#include "tunnel/error.h"

/* --- finding ---------------------------------------------------------------------------------- */

size_t tnl_registry_host(char out[TNL_HOST_MAX], tnl_http_span host)
{
    size_t n = host.n;
    const char *colon = n ? memrchr(host.p, ':', n) : NULL;
    const char *bracket = n ? memrchr(host.p, ']', n) : NULL;
    if (colon && (!bracket || colon > bracket))
        n = (size_t)(colon - host.p);
    if (n && host.p[n - 1] == '.')
        n--;
    if (n >= TNL_HOST_MAX)
        return 0;
    for (size_t i = 0; i < n; i++) {
        char c = host.p[i];
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    out[n] = '\0';
    return n;
}

static tnl_name *get(tnl_server *s, const char *key)
{
    tnl_map_node *node = tnl_map_get(&s->names, key, strlen(key));
    return node ? TNL_CONTAINER(node, tnl_name, by_key) : NULL;
}

static tnl_name *get_host(tnl_server *s, tnl_kind kind, const char *prefix, const char *host)
{
    char key[TNL_HOST_MAX + 16];
    snprintf(key, sizeof(key), "%s:%s%s", tnl_kind_name(kind), prefix, host);
    return get(s, key);
}

/* The port of "p8080.demo.localhost", and what comes behind it; 0: it is not such a name. */
static uint16_t take_port(const char **host)
{
    uint32_t port = 0;
    const char *p = *host;
    if (*p++ != 'p' || *p == '0')
        return 0;
    for (; *p >= '0' && *p <= '9' && port <= 65535; p++)
        port = port * 10 + (uint32_t)(*p - '0');
    if (*p != '.' || port > 65535)
        return 0;
    *host = p + 1;
    return (uint16_t)port;
}

tnl_name *tnl_registry_find(tnl_server *s, tnl_kind kind, tnl_http_span asked, uint16_t *target)
{
    char name[TNL_HOST_MAX];
    const char *host = name;
    *target = 0;
    if (!tnl_registry_host(name, asked))
        return NULL;
    tnl_name *n = get_host(s, kind, "", host);
    uint16_t port = n ? 0 : take_port(&host);
    if (port) {
        n = get_host(s, kind, "p#.", host);
        *target = n ? port : 0;
    }
    enum { MAX_DEPTH = 8 };
    bool own = tnl_registry_is_own(s, name);
    host = name;
    for (int i = 0; !n && i < MAX_DEPTH && (host = strchr(host, '.')) != NULL; i++) {
        /* A client's own domain above the server's is not the server's. */
        if (own && !tnl_registry_is_own(s, host + 1))
            break;
        n = get_host(s, kind, "*.", ++host);
    }
    return n;
}

bool tnl_registry_is_root(const tnl_server *s, tnl_http_span asked)
{
    char name[TNL_HOST_MAX];
    return tnl_registry_host(name, asked) &&
           (strcmp(name, s->config.domain) == 0 || strcmp(name, s->public_host) == 0);
}

tnl_name *tnl_registry_find_path(tnl_server *s, const char *id, size_t n)
{
    char key[TNL_HOST_MAX + TNL_PATH_ID_MAX + 16];
    if (n > TNL_PATH_ID_MAX)
        return NULL;
    snprintf(key, sizeof(key), "path:%.*s", (int)n, id);
    tnl_name *found = get(s, key);
    if (found || n > 63)
        return found;
    snprintf(key, sizeof(key), "%.*s.%s", (int)n, id, s->config.domain);
    found = get_host(s, TNL_KIND_HTTP, "", key);
    /* An id is compared as it is: no wildcard, and no name in other letters. */
    return found && strlen(found->label) == n && tnl_is_label(found->label) ? found : NULL;
}

tnl_name *tnl_registry_holder(const tnl_tunnel *wanted)
{
    return wanted->name->key[0] ? get(wanted->name->server, wanted->name->key) : NULL;
}

/* --- tunnels ---------------------------------------------------------------------------------- */

static int set_balance(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    if (!m->pool.n)
        return 0;
    if (t->name->kind == TNL_KIND_UDP) {
        snprintf(text, size, "a udp port is served by one client: leave the pool out");
        return TUNNEL_E_INVALID;
    }
    if (tnl_str_eq(m->pool, "round-robin"))
        t->balance = TNL_BALANCE_ROUND_ROBIN;
    else if (tnl_str_eq(m->pool, "least-loaded"))
        t->balance = TNL_BALANCE_LEAST_LOADED;
    else
        snprintf(text, size, "this server balances a pool by round-robin or least-loaded only");
    return t->balance ? 0 : TUNNEL_E_UNSUPPORTED;
}

/* What it is to be called. */
static int set_name(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    tnl_name *n = t->name;
    if (n->kind == TNL_KIND_HTTP || n->kind == TNL_KIND_TLS) {
        int rc = tnl_name_tunnel(t, m, text, size);
        tnl_name_url(t);
        return rc;
    }
    n->port = (uint16_t)m->port;
    if (n->port)
        snprintf(n->key, sizeof(n->key), "%s:%u", tnl_kind_name(n->kind), n->port);
    return tnl_port_check(t, text, size);
}

static tnl_name *name_new(tnl_server *s, tnl_kind kind, bool ports)
{
    tnl_name *n = tnl_calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->server = s;
    n->kind = kind;
    n->ports = ports;
    tnl_list_init(&n->members);
    tnl_list_init(&n->of_kept);
    tnl_list_init(&n->waiting);
    n->turn = &n->members;
    return n;
}

int tnl_tunnel_new(tnl_tunnel **out, tnl_peer *peer, const tnl_publish *m, char *text, size_t size)
{
    tnl_kind kind = tnl_kind_of(m->kind);
    if (kind == TNL_KIND_COUNT) {
        snprintf(text, size, "this server publishes http, tls, tcp and udp only");
        return TUNNEL_E_UNSUPPORTED;
    }
    tnl_tunnel *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    t->name = name_new(peer->server, kind, m->ports);
    if (!t->name) {
        tnl_free(t);
        return TUNNEL_E_NOMEM;
    }
    tnl_list_init(&t->of_name);
    tnl_list_init(&t->of_peer);
    tnl_list_init(&t->ups);
    tnl_list_init(&t->idle);
    tnl_list_init(&t->raws);
    t->peer = peer;
    t->id = m->tunnel;
    t->fresh = m->fresh;
    t->idle_ms = m->idle_ms;
    snprintf(t->host_header, sizeof(t->host_header), "%.*s", (int)m->host_header.n,
             m->host_header.n ? m->host_header.p : "");
    int rc = set_balance(t, m, text, size);
    if (rc == 0)
        rc = set_name(t, m, text, size);
    if (rc)
        tnl_tunnel_free(t);
    else
        *out = t;
    return rc;
}

static void tell(const tnl_tunnel *t, tunnel_event_type type)
{
    tunnel_event e = {.type = type, .account = t->peer->account, .url = t->name->url};
    tnl_server_tell(t->name->server, &e);
}

int tnl_registry_add(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    tnl_name *own = t->name, *there = tnl_registry_holder(t);
    int rc = tnl_claim_take(t);
    if (rc == 0 && !there)
        rc = tnl_map_put(&own->server->names, &own->by_key, own->key, strlen(own->key));
    if (rc)
        return rc;
    if (there) {
        tnl_free(own);
        t->name = there;
    }
    tnl_list_add_tail(&t->name->members, &t->of_name);
    t->name->count++;
    t->name->balance = t->balance;
    tnl_list_add_tail(&p->tunnels, &t->of_peer);
    p->tunnel_count++;
    t->number = ++p->server->publications;
    if (!tnl_list_empty(&t->name->of_kept)) {
        tnl_list_remove(&t->name->of_kept);
        t->name->kept = false;
    }
    tnl_raw_admit(t->name);
    tell(t, TUNNEL_EVENT_NAME_PUBLISHED);
    return 0;
}

void tnl_names_keep(tnl_peer *p)
{
    tnl_server *s = p->server;
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next) {
        tnl_tunnel *t = TNL_CONTAINER(n, tnl_tunnel, of_peer);
        tnl_name *name = t->name;
        if (name->count > 1)
            continue;
        name->kept = true;
        name->kept_until = tnl_loop_now(s->loop) + TNL_GAP_MS;
        tnl_claim_await(t, name->kept_until);
        tnl_list_remove(&name->of_kept);
        tnl_list_add_tail(&s->kept_names, &name->of_kept);
    }
}

void tnl_names_look(tnl_server *s, uint64_t now)
{
    for (tnl_list *n; (n = tnl_list_first(&s->kept_names));) {
        tnl_name *name = TNL_CONTAINER(n, tnl_name, of_kept);
        if (name->kept_until > now)
            return;
        tnl_list_remove(n);
        tnl_name_release(name);
    }
}

void tnl_name_release(tnl_name *n)
{
    n->kept = false;
    if (n->count)
        return;
    tnl_list_remove(&n->of_kept);
    tnl_raw_turn_away(n);
    tnl_map_remove(&n->server->names, &n->by_key);
    tnl_port_close(n);
    tnl_free(n);
}

/* Takes it off its name; without a member the name goes. */
static void leave(tnl_tunnel *t)
{
    tnl_name *n = t->name;
    if (n->turn == &t->of_name)
        n->turn = t->of_name.prev;
    if (n->kind == TNL_KIND_UDP)
        tnl_udp_forget(n);
    tnl_list_remove(&t->of_name);
    n->count--;
    tnl_list_remove(&t->of_peer);
    t->peer->tunnel_count--;
    tell(t, TUNNEL_EVENT_NAME_GONE);
    if (!n->kept)
        tnl_name_release(n);
}

void tnl_tunnel_free(tnl_tunnel *t)
{
    for (tnl_list *n; (n = tnl_list_first(&t->ups));) {
        tnl_up *u = TNL_CONTAINER(n, tnl_up, of_tunnel);
        if (u->visitor) {
            /* Exchanges under way finish without it. */
            u->tunnel = NULL;
            tnl_list_remove(n);
        } else {
            tnl_up_drop(u);
        }
    }
    tnl_raw_forget(t);
    if (tnl_list_empty(&t->of_name)) {
        tnl_port_close(t->name);
        tnl_free(t->name);
    } else {
        leave(t);
    }
    tnl_claim_leave(t);
    tnl_free(t);
}
