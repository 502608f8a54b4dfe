/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "tunnel/error.h"

/* --- finding ---------------------------------------------------------------------------------- */

/* Lower case, without the port and one trailing dot; 0 when it does not fit. */
static size_t normalize_host(char out[TNL_HOST_MAX], tnl_http_span host)
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

static tnl_tunnel *get(tnl_server *s, const char *key)
{
    tnl_map_node *node = tnl_map_get(&s->tunnels, key, strlen(key));
    return node ? TNL_CONTAINER(node, tnl_tunnel, by_key) : NULL;
}

static tnl_tunnel *get_host(tnl_server *s, tnl_kind kind, const char *prefix, const char *host)
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

tnl_tunnel *tnl_registry_find(tnl_server *s, tnl_kind kind, tnl_http_span asked, uint16_t *target)
{
    char name[TNL_HOST_MAX];
    const char *host = name;
    *target = 0;
    if (!normalize_host(name, asked))
        return NULL;
    tnl_tunnel *t = get_host(s, kind, "", host);
    uint16_t port = t ? 0 : take_port(&host);
    if (port) {
        t = get_host(s, kind, "p#.", host);
        *target = t ? port : 0;
    }
    enum { MAX_DEPTH = 8 };
    bool own = tnl_registry_is_own(s, name);
    host = name;
    for (int i = 0; !t && i < MAX_DEPTH && (host = strchr(host, '.')) != NULL; i++) {
        /* A client's own domain above the server's is not the server's. */
        if (own && !tnl_registry_is_own(s, host + 1))
            break;
        t = get_host(s, kind, "*.", ++host);
    }
    return t;
}

bool tnl_registry_is_root(const tnl_server *s, tnl_http_span asked)
{
    char name[TNL_HOST_MAX];
    return normalize_host(name, asked) &&
           (strcmp(name, s->config.domain) == 0 || strcmp(name, s->public_host) == 0);
}

tnl_tunnel *tnl_registry_find_path(tnl_server *s, const char *id, size_t n)
{
    char key[TNL_HOST_MAX + TNL_PATH_ID_MAX + 16];
    if (n > TNL_PATH_ID_MAX)
        return NULL;
    snprintf(key, sizeof(key), "path:%.*s", (int)n, id);
    tnl_tunnel *t = get(s, key);
    if (t || n > 63)
        return t;
    snprintf(key, sizeof(key), "%.*s.%s", (int)n, id, s->config.domain);
    t = get_host(s, TNL_KIND_HTTP, "", key);
    /* An id is compared as it is: no wildcard, and no name in other letters. */
    return t && strlen(t->label) == n && tnl_is_label(t->label) ? t : NULL;
}

tnl_tunnel *tnl_registry_holder(const tnl_tunnel *wanted)
{
    return wanted->key[0] ? get(wanted->peer->server, wanted->key) : NULL;
}

bool tnl_registry_foreign(const tnl_tunnel *wanted)
{
    static const char *const prefixes[] = {"", "*.", "p#."};
    static const tnl_kind kinds[] = {TNL_KIND_HTTP, TNL_KIND_TLS};
    tnl_server *s = wanted->peer->server;
    char key[TNL_HOST_MAX + TNL_PATH_ID_MAX + 16];
    const char *host = wanted->host;
    const tnl_tunnel *t = tnl_registry_holder(wanted);
    if (t && strcmp(t->peer->account, wanted->peer->account) != 0)
        return true;
    if (wanted->path_id[0]) {
        snprintf(key, sizeof(key), "%s.%s", wanted->path_id, s->config.domain);
        host = strlen(key) < TNL_HOST_MAX ? key : "";
    } else if (wanted->label[0]) {
        char path[TNL_HOST_MAX + 8];
        snprintf(path, sizeof(path), "path:%s", wanted->label + (wanted->label[0] == '*' ? 2 : 0));
        t = get(s, path);
        if (t && strcmp(t->peer->account, wanted->peer->account) != 0)
            return true;
    }
    if (host[0] == '*')
        host += 2;
    for (size_t i = 0; i < 6 && host[0]; i++) {
        t = get_host(s, kinds[i / 3], prefixes[i % 3], host);
        if (t && strcmp(t->peer->account, wanted->peer->account) != 0)
            return true;
    }
    return false;
}

/* --- tunnels ---------------------------------------------------------------------------------- */

int tnl_tunnel_new(tnl_tunnel **out, tnl_peer *peer, const tnl_publish *m, char *text, size_t size)
{
    tnl_kind kind = tnl_kind_of(m->kind);
    int rc;
    if (kind == TNL_KIND_COUNT) {
        snprintf(text, size, "this server publishes http, tls, tcp and udp only");
        return TUNNEL_E_UNSUPPORTED;
    }
    tnl_tunnel *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    tnl_list_init(&t->of_peer);
    tnl_list_init(&t->ups);
    tnl_list_init(&t->idle);
    t->peer = peer;
    t->id = m->tunnel;
    t->kind = kind;
    t->port = (uint16_t)m->port;
    t->ports = m->ports;
    t->fresh = m->fresh;
    t->idle_ms = m->idle_ms;
    snprintf(t->host_header, sizeof(t->host_header), "%.*s", (int)m->host_header.n,
             m->host_header.n ? m->host_header.p : "");
    if (kind == TNL_KIND_HTTP || kind == TNL_KIND_TLS) {
        t->port = 0;
        rc = tnl_name_tunnel(t, m, text, size);
        tnl_name_url(t);
    } else {
        if (t->port)
            snprintf(t->key, sizeof(t->key), "%s:%u", tnl_kind_name(kind), t->port);
        rc = tnl_port_check(t, text, size);
    }
    if (rc)
        tnl_free(t);
    else
        *out = t;
    return rc;
}

int tnl_registry_add(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    int rc = tnl_map_put(&p->server->tunnels, &t->by_key, t->key, strlen(t->key));
    if (rc)
        return rc;
    tnl_list_add_tail(&p->tunnels, &t->of_peer);
    p->tunnel_count++;
    t->number = ++p->server->publications;
    tunnel_event e = {.type = TUNNEL_EVENT_NAME_PUBLISHED, .account = p->account, .url = t->url};
    tnl_server_tell(p->server, &e);
    return 0;
}

void tnl_tunnel_free(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
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
    if (!tnl_list_empty(&t->of_peer)) {
        tnl_list_remove(&t->of_peer);
        tnl_map_remove(&p->server->tunnels, &t->by_key);
        p->tunnel_count--;
        tunnel_event e = {.type = TUNNEL_EVENT_NAME_GONE, .account = p->account, .url = t->url};
        tnl_server_tell(p->server, &e);
    }
    tnl_port_close(t);
    tnl_free(t);
}
