/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/server.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "api/loop.h"
#include "base/mem.h"
#include "server/server.h"
#include "tunnel/error.h"

enum { LINE = 512 };

/* --- configuration ---------------------------------------------------------------------------- */

typedef struct token {
    tnl_list node;
    char *text;
} token;

struct tunnel_server_config {
    tnl_server_config c; /* its tokens stay NULL: they are hashed when a server is made */
    tnl_list tokens;
    char line[LINE];
};

int tunnel_server_config_new(tunnel_server_config **out)
{
    tunnel_server_config *config = tnl_calloc(1, sizeof(*config));
    if (!config)
        return TUNNEL_E_NOMEM;
    tnl_list_init(&config->tokens);
    config->c.silence_ms = 5000;
    config->c.answer_timeout_ms = 60000;
    *out = config;
    return 0;
}

void tunnel_server_config_free(tunnel_server_config *config)
{
    if (!config)
        return;
    for (tnl_list *n; (n = tnl_list_first(&config->tokens));) {
        token *t = TNL_CONTAINER(n, token, node);
        tnl_list_remove(n);
        tnl_wipe(t->text, strlen(t->text));
        tnl_free(t->text);
        tnl_free(t);
    }
    for (size_t i = 0; i < config->c.cert_count; i++) {
        tnl_free(config->c.certs[i].cert_file);
        tnl_free(config->c.certs[i].key_file);
    }
    tnl_free(config);
}

const char *tunnel_server_config_error(const tunnel_server_config *config)
{
    return config->line;
}

/* "127.0.0.1:8080", "[fe80::1%eth0]:8080", "localhost:8080" */
static bool is_listen_address(const char *address)
{
    char host[64];
    uint16_t port;
    struct in6_addr bytes;
    if (tnl_address_split(address, host, sizeof(host), &port))
        return false;
    if (strcmp(host, "localhost") == 0 || inet_pton(AF_INET, host, &bytes) == 1)
        return true;
    host[strcspn(host, "%")] = '\0';
    return inet_pton(AF_INET6, host, &bytes) == 1;
}

static int add_listen(tunnel_server_config *config, const char *address, bool tls)
{
    config->line[0] = '\0';
    if (config->c.listen_count == TNL_SERVER_MAX_LISTEN) {
        snprintf(config->line, LINE, "a server has at most %d listeners", TNL_SERVER_MAX_LISTEN);
        return TUNNEL_E_LIMIT;
    }
    tnl_server_listen *l = &config->c.listen[config->c.listen_count];
    bool unix_path = strncmp(address, "unix:/", 6) == 0;
    if (strlen(address) >= sizeof(l->address) || (!unix_path && !is_listen_address(address))) {
        snprintf(
            config->line, LINE,
            "'%.100s' is not an address to listen on: give ADDRESS:PORT, e.g. 127.0.0.1:8080 or [::]:443",
            address);
        return TUNNEL_E_INVALID;
    }
    snprintf(l->address, sizeof(l->address), "%s", address);
    l->tls = tls;
    config->c.listen_count++;
    return 0;
}

int tunnel_server_config_add_listen(tunnel_server_config *config, const char *address)
{
    return add_listen(config, address, false);
}

int tunnel_server_config_add_tls_listen(tunnel_server_config *config, const char *address)
{
    return add_listen(config, address, true);
}

int tunnel_server_config_add_certificate(tunnel_server_config *config, const char *cert_file,
                                         const char *key_file)
{
    config->line[0] = '\0';
    if (config->c.cert_count == TNL_SERVER_MAX_CERTS) {
        snprintf(config->line, LINE, "a server has at most %d certificates", TNL_SERVER_MAX_CERTS);
        return TUNNEL_E_LIMIT;
    }
    tnl_server_cert *c = &config->c.certs[config->c.cert_count];
    c->cert_file = tnl_strdup(cert_file);
    c->key_file = tnl_strdup(key_file);
    if (!c->cert_file || !c->key_file) {
        tnl_free(c->cert_file);
        tnl_free(c->key_file);
        return TUNNEL_E_NOMEM;
    }
    config->c.cert_count++;
    return 0;
}

/* A name under which others can stand: not a numeric address. */
static bool is_name(const char *host)
{
    const char *dot = strrchr(host, '.');
    const char *last = dot ? dot + 1 : host;
    return tnl_is_domain(host) && last[strspn(last, "0123456789")] != '\0';
}

int tunnel_server_config_set_domain(tunnel_server_config *config, const char *domain)
{
    char lower[sizeof(config->c.domain)] = "";
    size_t n = strlen(domain);
    config->line[0] = '\0';
    for (size_t i = 0; i < n && n < sizeof(lower); i++)
        lower[i] = domain[i] >= 'A' && domain[i] <= 'Z' ? (char)(domain[i] - 'A' + 'a') : domain[i];
    if (!is_name(lower)) {
        snprintf(config->line, LINE,
                 "'%.100s' is not a domain name: give one such as tunnel.example.com or localhost",
                 domain);
        return TUNNEL_E_INVALID;
    }
    memcpy(config->c.domain, lower, sizeof(lower));
    return 0;
}

int tunnel_server_config_add_token(tunnel_server_config *config, const char *text)
{
    size_t n = strlen(text), count = 0;
    config->line[0] = '\0';
    bool ok = n > 0 && n <= TNL_TOKEN_MAX;
    for (size_t i = 0; ok && i < n; i++)
        ok = text[i] > ' ' && text[i] <= '~';
    if (!ok) {
        snprintf(config->line, LINE, "a token must be 1 to %d printable characters without spaces",
                 TNL_TOKEN_MAX);
        return TUNNEL_E_INVALID;
    }
    for (tnl_list *l = config->tokens.next; l != &config->tokens; l = l->next)
        count++;
    if (count == TNL_TOKENS_MAX) {
        snprintf(config->line, LINE, "a server has at most %d tokens", TNL_TOKENS_MAX);
        return TUNNEL_E_LIMIT;
    }
    token *t = tnl_calloc(1, sizeof(*t));
    if (t)
        t->text = tnl_strdup(text);
    if (!t || !t->text) {
        tnl_free(t);
        return TUNNEL_E_NOMEM;
    }
    tnl_list_add_tail(&config->tokens, &t->node);
    return 0;
}

int tunnel_server_config_set_public_url(tunnel_server_config *config, const char *url)
{
    tnl_url u;
    config->line[0] = '\0';
    if (tnl_url_parse(&u, url) ||
        (strcmp(u.scheme, "http") != 0 && strcmp(u.scheme, "https") != 0) || u.userinfo[0] ||
        u.ipv6 || !is_name(u.host) || (u.path[0] && strcmp(u.path, "/") != 0)) {
        snprintf(config->line, LINE,
                 "'%.100s' is not a public URL: give https://NAME[:PORT] or http://NAME[:PORT]",
                 url);
        return TUNNEL_E_INVALID;
    }
    if (u.port == (strcmp(u.scheme, "https") == 0 ? 443 : 80))
        u.port = 0;
    config->c.public_url = u;
    config->c.has_public_url = true;
    return 0;
}

int tunnel_server_config_set_silence(tunnel_server_config *config, uint32_t ms)
{
    config->line[0] = '\0';
    if (ms < 1000 || ms > 600000) {
        snprintf(config->line, LINE,
                 "the silence after which a link is dead must be 1000 to 600000 ms");
        return TUNNEL_E_INVALID;
    }
    config->c.silence_ms = ms;
    return 0;
}

int tunnel_server_config_set_answer_timeout(tunnel_server_config *config, uint32_t ms)
{
    config->line[0] = '\0';
    if (ms < 100 || ms > 86400000) {
        snprintf(config->line, LINE, "the answer timeout must be 100 to 86400000 ms");
        return TUNNEL_E_INVALID;
    }
    config->c.answer_timeout_ms = ms;
    return 0;
}

int tunnel_server_config_set_access_events(tunnel_server_config *config, int on)
{
    config->c.access_events = on != 0;
    return 0;
}

int tunnel_make_token(char out[33])
{
    return tnl_token_make(out);
}

/* --- server ----------------------------------------------------------------------------------- */

static tnl_server *inner(tunnel_server *server)
{
    return (tnl_server *)(void *)server;
}

static const char *what_is_missing(const tunnel_server_config *config)
{
    bool tls = false;
    for (size_t i = 0; i < config->c.listen_count; i++)
        tls |= config->c.listen[i].tls;
    if (config->c.listen_count == 0)
        return "nothing to listen on: give --listen ADDRESS:PORT or --tls-listen ADDRESS:PORT";
    if (!config->c.domain[0])
        return "no domain: give --domain NAME, under which the tunnels get their names";
    if (tnl_list_empty(&config->tokens))
        return "no token: give --token SECRET, which clients must present";
    if (tls && config->c.cert_count == 0)
        return "a TLS listener needs a certificate: give --tls-cert FILE and --tls-key FILE";
    if (!tls && config->c.cert_count)
        return "a certificate needs a TLS listener: give --tls-listen ADDRESS:PORT";
    return NULL;
}

static int hash_tokens(tnl_tokens **out, const tunnel_server_config *config)
{
    int rc = tnl_tokens_new(out);
    for (tnl_list *n = config->tokens.next; rc == 0 && n != &config->tokens; n = n->next)
        rc = tnl_tokens_add(*out, TNL_CONTAINER(n, token, node)->text);
    return rc;
}

int tunnel_server_new(tunnel_server **out, tunnel_loop *loop, const tunnel_server_config *config,
                      char *detail, size_t detail_size)
{
    char ignored[LINE];
    tnl_server *server = NULL;
    tnl_tokens *tokens = NULL;
    *out = NULL;
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    const char *missing = what_is_missing(config);
    if (missing) {
        snprintf(detail, detail_size, "%s", missing);
        return TUNNEL_E_INVALID;
    }
    tnl_server_config *c = tnl_malloc(sizeof(*c));
    int rc = c ? hash_tokens(&tokens, config) : TUNNEL_E_NOMEM;
    if (rc == 0) {
        *c = config->c;
        c->tokens = tokens;
        rc = tnl_server_new(&server, loop->loop, c, detail, detail_size);
    }
    if (rc)
        tnl_tokens_free(tokens);
    if (rc && !detail[0])
        snprintf(detail, detail_size, "%s", tunnel_strerror(rc));
    tnl_free(c);
    *out = (tunnel_server *)(void *)server;
    return rc;
}

void tunnel_server_on_event(tunnel_server *server,
                            void (*event)(void *user, const tunnel_event *event), void *user)
{
    tnl_server_on_event(inner(server), event, user);
}

int tunnel_server_start(tunnel_server *server, char *detail, size_t detail_size)
{
    char ignored[LINE];
    return tnl_server_start(inner(server), detail ? detail : ignored,
                            detail ? detail_size : sizeof(ignored));
}

int tunnel_server_reload_certificates(tunnel_server *server, char *detail, size_t detail_size)
{
    char ignored[LINE];
    return tnl_server_reload_certificates(inner(server), detail ? detail : ignored,
                                          detail ? detail_size : sizeof(ignored));
}

uint64_t tunnel_server_counter(const tunnel_server *server, tunnel_counter which)
{
    const tnl_server_stats *s = tnl_server_get_stats((const tnl_server *)(const void *)server);
    switch (which) {
    case TUNNEL_COUNTER_VISITORS:
        return s->visitors;
    case TUNNEL_COUNTER_BAD_HANDSHAKES:
        return s->bad_handshakes;
    case TUNNEL_COUNTER_REQUESTS:
        return s->requests;
    case TUNNEL_COUNTER_BAD_REQUESTS:
        return s->bad_requests;
    case TUNNEL_COUNTER_REFUSED_LINKS:
        return s->refused_links;
    case TUNNEL_COUNTER_BROKEN_LINKS:
        return s->broken_links;
    case TUNNEL_COUNTER_SESSIONS:
        return s->sessions;
    }
    return 0;
}

void tunnel_server_close(tunnel_server *server, void (*closed)(void *user), void *user)
{
    if (server)
        tnl_server_close(inner(server), closed, user);
}
