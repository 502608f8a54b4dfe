/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/url.h"
#include "crypto/crypto.h"
#include "server/internal.h"
#include "tunnel/error.h"

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

tnl_tunnel *tnl_registry_find(tnl_server *s, tnl_http_span host)
{
    char name[TNL_HOST_MAX];
    size_t n = normalize_host(name, host);
    tnl_map_node *node = n ? tnl_map_get(&s->tunnels, name, n) : NULL;
    return node ? TNL_CONTAINER(node, tnl_tunnel, by_host) : NULL;
}

static void write_url(tnl_tunnel *t, const tnl_server *s)
{
    const char *dot = t->label[0] == '@' ? "" : ".";
    const char *label = t->label[0] == '@' ? "" : t->label;
    char port[8] = "";
    if (s->public_port)
        snprintf(port, sizeof(port), ":%u", s->public_port);
    snprintf(t->url, sizeof(t->url), "%s://%.63s%s%.200s%s", s->public_scheme, label, dot,
             s->public_host, port);
}

int tnl_tunnel_new(tnl_tunnel **out, tnl_peer *peer, uint64_t id, tnl_str label,
                   tnl_str host_header)
{
    tnl_server *s = peer->server;
    tnl_tunnel *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    int rc = TUNNEL_E_NAME_INVALID;
    tnl_list_init(&t->of_peer);
    tnl_list_init(&t->ups);
    tnl_list_init(&t->idle);
    t->peer = peer;
    t->id = id;
    if (label.n > 63 || host_header.n >= sizeof(t->host_header))
        goto fail;
    if (host_header.n)
        memcpy(t->host_header, host_header.p, host_header.n);
    if (label.n)
        memcpy(t->label, label.p, label.n);
    if (label.n == 0) {
        rc = tnl_registry_make_name(s, t->label, sizeof(t->label));
        if (rc)
            goto fail;
    } else if (strcmp(t->label, "@") != 0 && !tnl_is_label(t->label)) {
        goto fail;
    }
    if (t->label[0] == '@')
        snprintf(t->host, sizeof(t->host), "%s", s->config.domain);
    else if (snprintf(t->host, sizeof(t->host), "%s.%s", t->label, s->config.domain) > 253)
        goto fail;
    write_url(t, s);
    *out = t;
    return 0;
fail:
    tnl_free(t);
    return rc;
}

int tnl_registry_add(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    int rc = tnl_map_put(&p->server->tunnels, &t->by_host, t->host, strlen(t->host));
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
        tnl_map_remove(&p->server->tunnels, &t->by_host);
        p->tunnel_count--;
        tunnel_event e = {.type = TUNNEL_EVENT_NAME_GONE, .account = p->account, .url = t->url};
        tnl_server_tell(p->server, &e);
    }
    tnl_free(t);
}

int tnl_registry_make_name(tnl_server *s, char *out, size_t size)
{
    static const char *const adjectives[] = {
        "amber",  "bold",  "brave",  "bright", "brisk", "calm",   "clear",  "clever", "cosy",
        "crisp",  "eager", "early",  "fair",   "fleet", "fond",   "fresh",  "gentle", "glad",
        "golden", "grand", "happy",  "keen",   "kind",  "light",  "lively", "lucky",  "merry",
        "mild",   "neat",  "noble",  "proud",  "quick", "quiet",  "rapid",  "ready",  "royal",
        "sharp",  "shiny", "silent", "silver", "smart", "smooth", "snowy",  "solid",  "sunny",
        "sweet",  "swift", "tidy",   "vivid",  "warm",  "wise",   "young"};
    static const char *const nouns[] = {
        "badger", "beaver",  "bison",  "canyon",  "cedar",  "cloud",  "comet",  "coral",  "crane",
        "creek",  "dawn",    "delta",  "dune",    "eagle",  "falcon", "fern",   "finch",  "forest",
        "fox",    "glacier", "grove",  "harbor",  "hawk",   "heron",  "island", "lagoon", "lake",
        "lark",   "lynx",    "maple",  "meadow",  "moon",   "moss",   "oak",    "ocean",  "otter",
        "owl",    "panda",   "pearl",  "pine",    "planet", "puma",   "raven",  "reef",   "ridge",
        "river",  "robin",   "seal",   "sparrow", "star",   "stone",  "summit", "swan",   "tiger",
        "valley", "walrus",  "willow", "wolf",    "wren",   "zebra"};
    enum { TRIES = 16 };
    for (int i = 0; i < TRIES; i++) {
        uint32_t r[3];
        char host[TNL_HOST_MAX];
        int rc = tnl_random(r, sizeof(r));
        if (rc)
            return rc;
        snprintf(out, size, "%s-%s-%04u",
                 adjectives[r[0] % (sizeof(adjectives) / sizeof(*adjectives))],
                 nouns[r[1] % (sizeof(nouns) / sizeof(*nouns))], r[2] % 10000);
        int n = snprintf(host, sizeof(host), "%s.%s", out, s->config.domain);
        if (n > 0 && (size_t)n < sizeof(host) && !tnl_map_get(&s->tunnels, host, (size_t)n))
            return 0;
    }
    return TUNNEL_E_LIMIT;
}
