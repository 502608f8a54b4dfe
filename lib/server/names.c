/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/url.h"
#include "crypto/crypto.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * What clients may call what they publish.
 */

static int refuse(char *text, size_t size, int code, const char *why)
{
    snprintf(text, size, "%s", why);
    return code;
}

static int make_name(const tnl_tunnel *t, char *out, size_t size)
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
        char key[TNL_HOST_MAX + 80];
        int rc = tnl_random(r, sizeof(r));
        if (rc)
            return rc;
        snprintf(out, size, "%s-%s-%04u",
                 adjectives[r[0] % (sizeof(adjectives) / sizeof(*adjectives))],
                 nouns[r[1] % (sizeof(nouns) / sizeof(*nouns))], r[2] % 10000);
        snprintf(key, sizeof(key), "%s:%s.%s", tnl_kind_name(t->name->kind), out,
                 t->peer->server->config.domain);
        if (!tnl_map_get(&t->peer->server->names, key, strlen(key)))
            return 0;
    }
    return TUNNEL_E_LIMIT;
}

static void lower(char *text)
{
    for (; *text; text++)
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
}

static bool is_wildcard(const char *name)
{
    return name[0] == '*' && name[1] == '.';
}

bool tnl_registry_is_own(const tnl_server *s, const char *host)
{
    const char *const own[] = {s->config.domain, s->public_host};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(host), m = strlen(own[i]);
        if (m && n >= m && strcmp(host + n - m, own[i]) == 0 && (n == m || host[n - m - 1] == '.'))
            return true;
    }
    return false;
}

bool tnl_registry_is_front(const tnl_server *s, const char *host)
{
    return s->tls && (strcmp(host, s->config.domain) == 0 || strcmp(host, s->public_host) == 0);
}

static bool covers(const char *pattern, const char *domain)
{
    if (strcmp(pattern, "*") == 0 || strcmp(pattern, domain) == 0)
        return true;
    size_t n = strlen(domain), m = strlen(pattern);
    return is_wildcard(pattern) && n > m - 1 && strcmp(domain + n - (m - 1), pattern + 1) == 0;
}

static bool may_have(const tnl_peer *p, const char *domain)
{
    const tnl_server_config *c = &p->server->config;
    for (size_t i = 0; i < c->allowed_count; i++) {
        const tnl_server_allowed *a = &c->allowed[i];
        if ((a->account[0] == '\0' || strcmp(a->account, p->account) == 0) &&
            covers(a->pattern, domain))
            return true;
    }
    return false;
}

/* A domain of the client's own. */
static int name_domain(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    snprintf(t->name->host, sizeof(t->name->host), "%.*s", (int)m->domain.n, m->domain.p);
    lower(t->name->host);
    const char *base = t->name->host + (is_wildcard(t->name->host) ? 2 : 0);
    const char *last = strrchr(base, '.');
    if (!last || !tnl_is_domain(base) || last[1 + strspn(last + 1, "0123456789")] == '\0')
        return refuse(text, size, TUNNEL_E_NAME_INVALID,
                      "not a domain name: give one such as app.example.org or *.example.org");
    if (m->name.n || (t->name->ports && base != t->name->host))
        return refuse(text, size, TUNNEL_E_NAME_INVALID, "give a name or a domain, not both");
    if (tnl_registry_is_own(t->peer->server, base)) {
        snprintf(text, size,
                 "'%.100s' is under the server's own domain: ask for its first label with "
                 "--subdomain",
                 t->name->host);
        return TUNNEL_E_DENIED;
    }
    if (!may_have(t->peer, t->name->host)) {
        snprintf(text, size,
                 "this credential may not publish '%.100s': the server must allow the domain "
                 "(--allow-domain)",
                 t->name->host);
        return TUNNEL_E_DENIED;
    }
    return 0;
}

/* A label under the server's domain. */
static int name_label(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    static const char invalid[] =
        "not a DNS label: use 1 to 63 of a-z, 0-9 and '-', or '@' for the root domain";
    const char *domain = t->peer->server->config.domain;
    if (m->name.n > 65)
        return refuse(text, size, TUNNEL_E_NAME_INVALID, invalid);
    if (m->name.n)
        memcpy(t->name->label, m->name.p, m->name.n);
    lower(t->name->label);
    bool wildcard = is_wildcard(t->name->label), root = strcmp(t->name->label, "@") == 0;
    if (t->name->ports && (wildcard || root))
        return refuse(text, size, TUNNEL_E_NAME_INVALID,
                      "ports behind a client need a name of their own: a DNS label");
    if (m->name.n == 0) {
        int rc = make_name(t, t->name->label, sizeof(t->name->label));
        if (rc)
            return refuse(text, size, rc, "no name is free");
    } else if (!root && !tnl_is_label(t->name->label + (wildcard ? 2 : 0))) {
        return refuse(text, size, TUNNEL_E_NAME_INVALID, invalid);
    }
    if (root)
        snprintf(t->name->host, sizeof(t->name->host), "%s", domain);
    else if (snprintf(t->name->host, sizeof(t->name->host), "%s.%s", t->name->label, domain) > 253)
        return refuse(text, size, TUNNEL_E_NAME_INVALID, "the name is too long");
    if (t->name->kind == TNL_KIND_TLS && tnl_registry_is_front(t->peer->server, t->name->host))
        return refuse(
            text, size, TUNNEL_E_DENIED,
            "clients reach the server itself by that name, with TLS: publish another one");
    return 0;
}

static int name_path(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    snprintf(t->name->path_id, sizeof(t->name->path_id), "%.*s", (int)m->path_id.n, m->path_id.p);
    size_t n = strlen(t->name->path_id);
    if (!t->peer->server->config.path_routing)
        return refuse(text, size, TUNNEL_E_UNSUPPORTED,
                      "this server does not route by path: start it with --path-routing, or give "
                      "--subdomain instead of --path-id");
    if (n != m->path_id.n || strcmp(t->name->path_id, ".") == 0 ||
        strcmp(t->name->path_id, "..") == 0 || strcmp(t->name->path_id, "__tunnel__") == 0 ||
        strspn(t->name->path_id,
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_~.%-") != n)
        return refuse(text, size, TUNNEL_E_NAME_INVALID,
                      "not a path id: use 1 to 128 of a-z A-Z 0-9 _ ~ . % -, not '.' or '..'");
    if (t->name->kind != TNL_KIND_HTTP || t->name->ports || m->name.n || m->domain.n)
        return refuse(text, size, TUNNEL_E_NAME_INVALID,
                      "a path id is for a http tunnel without a name or domain");
    snprintf(t->name->key, sizeof(t->name->key), "path:%s", t->name->path_id);
    return 0;
}

int tnl_name_tunnel(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size)
{
    if (m->path_id.n)
        return name_path(t, m, text, size);
    int rc = m->domain.n ? name_domain(t, m, text, size) : name_label(t, m, text, size);
    if (rc)
        return rc;
    int n = snprintf(t->name->key, sizeof(t->name->key), "%s:%s%s", tnl_kind_name(t->name->kind),
                     t->name->ports ? "p#." : "", t->name->host);
    if (n < 0 || (size_t)n >= sizeof(t->name->key))
        return refuse(text, size, TUNNEL_E_NAME_INVALID, "the name is too long");
    return 0;
}

void tnl_name_url(tnl_tunnel *t)
{
    const tnl_server *s = t->peer->server;
    char port[8] = "";
    char host[TNL_HOST_MAX];
    bool tls = t->name->kind == TNL_KIND_TLS;
    /* Labels go before the public name of the server, which need not be the domain it routes by. */
    if (t->name->path_id[0] || strcmp(t->name->label, "@") == 0)
        snprintf(host, sizeof(host), "%s", s->public_host);
    else if (t->name->label[0])
        snprintf(host, sizeof(host), "%.65s.%.180s", t->name->label, s->public_host);
    else
        snprintf(host, sizeof(host), "%s", t->name->host);
    if (tls)
        snprintf(port, sizeof(port), ":%u", s->tls_port);
    else if (s->public_port)
        snprintf(port, sizeof(port), ":%u", s->public_port);
    bool by_path = t->name->path_id[0] ||
                   (s->config.path_routing && !tls && !t->name->ports && t->name->label[0] &&
                    t->name->label[0] != '@' && t->name->label[0] != '*');
    if (by_path)
        snprintf(t->name->url, sizeof(t->name->url), "%s://%s%s/%s/", s->public_scheme,
                 s->public_host, port, t->name->path_id[0] ? t->name->path_id : t->name->label);
    else
        snprintf(t->name->url, sizeof(t->name->url), "%s://%s%s%s", tls ? "tls" : s->public_scheme,
                 t->name->ports ? "pPORT." : "", host, port);
}
