/* SPDX-License-Identifier: Apache-2.0 */
#include "api/server_config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { LINE = TNL_SERVER_CONFIG_LINE, MAX_DOMAINS = 1024 };

static void free_item(tnl_config_item *item)
{
    if (item->token)
        tnl_wipe(item->token, strlen(item->token));
    tnl_free(item->token);
    tnl_free(item->pattern);
    tnl_free(item);
}

static void free_items(tnl_list *list)
{
    for (tnl_list *n; (n = tnl_list_first(list));) {
        tnl_list_remove(n);
        free_item(TNL_CONTAINER(n, tnl_config_item, node));
    }
}

/* Texts may be NULL. */
static int add_item(tnl_list *list, const char *text, const char *pattern)
{
    tnl_config_item *item = tnl_calloc(1, sizeof(*item));
    if (!item)
        return TUNNEL_E_NOMEM;
    item->token = text ? tnl_strdup(text) : NULL;
    item->pattern = pattern ? tnl_strdup(pattern) : NULL;
    if ((text && !item->token) || (pattern && !item->pattern)) {
        free_item(item);
        return TUNNEL_E_NOMEM;
    }
    tnl_list_add_tail(list, &item->node);
    return 0;
}

static size_t count_items(const tnl_list *list)
{
    size_t count = 0;
    for (const tnl_list *n = list->next; n != list; n = n->next)
        count++;
    return count;
}

int tunnel_server_config_new(tunnel_server_config **out)
{
    tunnel_server_config *config = tnl_calloc(1, sizeof(*config));
    if (!config)
        return TUNNEL_E_NOMEM;
    tnl_list_init(&config->tokens);
    tnl_list_init(&config->domains);
    config->c.silence_ms = 5000;
    config->c.answer_timeout_ms = 60000;
    config->c.grace_ms = 30000;
    config->c.hold_ms = 300000;
    config->c.udp_flows = 1024;
    config->c.udp_flows_per_source = 512;
    if (tnl_ports_parse(&config->c.tcp_ports, "20000-29999") ||
        tnl_ports_parse(&config->c.udp_ports, "30000-39999")) {
        tnl_free(config);
        return TUNNEL_E_NOMEM;
    }
    *out = config;
    return 0;
}

void tunnel_server_config_free(tunnel_server_config *config)
{
    if (!config)
        return;
    free_items(&config->tokens);
    free_items(&config->domains);
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
    size_t n = strlen(text);
    config->line[0] = '\0';
    bool ok = n > 0 && n <= TNL_TOKEN_MAX;
    for (size_t i = 0; ok && i < n; i++)
        ok = text[i] > ' ' && text[i] <= '~';
    if (!ok) {
        snprintf(config->line, LINE, "a token must be 1 to %d printable characters without spaces",
                 TNL_TOKEN_MAX);
        return TUNNEL_E_INVALID;
    }
    if (count_items(&config->tokens) == TNL_TOKENS_MAX) {
        snprintf(config->line, LINE, "a server has at most %d tokens", TNL_TOKENS_MAX);
        return TUNNEL_E_LIMIT;
    }
    return add_item(&config->tokens, text, NULL);
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

int tunnel_server_config_set_grace(tunnel_server_config *config, uint32_t ms)
{
    config->line[0] = '\0';
    if (ms > 3600000) {
        snprintf(config->line, LINE,
                 "the grace of a client that lost its connection must be 0 to 3600000 ms");
        return TUNNEL_E_INVALID;
    }
    config->c.grace_ms = ms;
    return 0;
}

int tunnel_server_config_set_hold(tunnel_server_config *config, uint32_t ms)
{
    config->line[0] = '\0';
    if (ms > 86400000) {
        snprintf(config->line, LINE,
                 "how long names are kept for who had them must be 0 to 86400000 ms");
        return TUNNEL_E_INVALID;
    }
    config->c.hold_ms = ms;
    return 0;
}

int tunnel_server_config_set_state_file(tunnel_server_config *config, const char *path)
{
    config->line[0] = '\0';
    if (strlen(path) >= sizeof(config->c.state_file)) {
        snprintf(config->line, LINE, "'%.100s...' is too long a path for the state file", path);
        return TUNNEL_E_INVALID;
    }
    snprintf(config->c.state_file, sizeof(config->c.state_file), "%s", path);
    return 0;
}

/* --- ports, paths, domains -------------------------------------------------------------------- */

static int set_ports(tunnel_server_config *config, tnl_ports *ports, const char *text)
{
    tnl_ports p;
    config->line[0] = '\0';
    if (tnl_ports_parse(&p, text)) {
        snprintf(
            config->line, LINE,
            "'%.100s' is not a list of ports: give one such as 20000-29999 or 25565,30000-30099,"
            " or none",
            text);
        return TUNNEL_E_INVALID;
    }
    *ports = p;
    return 0;
}

int tunnel_server_config_set_tcp_ports(tunnel_server_config *config, const char *ports)
{
    return set_ports(config, &config->c.tcp_ports, ports);
}

int tunnel_server_config_set_udp_ports(tunnel_server_config *config, const char *ports)
{
    return set_ports(config, &config->c.udp_ports, ports);
}

int tunnel_server_config_set_udp_flows(tunnel_server_config *config, uint32_t tunnel,
                                       uint32_t source)
{
    config->line[0] = '\0';
    if (tunnel < 1 || tunnel > 65536 || source < 1 || source > 65536) {
        snprintf(config->line, LINE, "the flows of a tunnel or a source must be 1 to 65536");
        return TUNNEL_E_INVALID;
    }
    config->c.udp_flows = tunnel;
    config->c.udp_flows_per_source = source;
    return 0;
}

int tunnel_server_config_set_path_routing(tunnel_server_config *config, int on)
{
    config->line[0] = '\0';
    config->c.path_routing = on != 0;
    return 0;
}

int tunnel_server_config_allow_domain(tunnel_server_config *config, const char *token,
                                      const char *pattern)
{
    config->line[0] = '\0';
    const char *base = strncmp(pattern, "*.", 2) == 0 ? pattern + 2 : pattern;
    if (strcmp(pattern, "*") != 0 && (!is_name(base) || !strchr(base, '.'))) {
        snprintf(config->line, LINE,
                 "'%.100s' is not a domain: give one such as app.example.org or *.example.org, in "
                 "lower case, or * for any",
                 pattern);
        return TUNNEL_E_INVALID;
    }
    if (count_items(&config->domains) == MAX_DOMAINS) {
        snprintf(config->line, LINE, "a server allows at most %d domains", MAX_DOMAINS);
        return TUNNEL_E_LIMIT;
    }
    return add_item(&config->domains, token, pattern);
}

/* --- for a server ----------------------------------------------------------------------------- */

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
    return NULL;
}

static int hash_tokens(tnl_tokens **out, const tunnel_server_config *config)
{
    int rc = tnl_tokens_new(out);
    for (tnl_list *n = config->tokens.next; rc == 0 && n != &config->tokens; n = n->next)
        rc = tnl_tokens_add(*out, TNL_CONTAINER(n, tnl_config_item, node)->token);
    return rc;
}

/* A domain of a token that is none is nobody's. */
static int hash_domains(tnl_server_config *c, const tunnel_server_config *config)
{
    size_t count = count_items(&config->domains);
    if (count == 0)
        return 0;
    c->allowed = tnl_calloc(count, sizeof(*c->allowed));
    if (!c->allowed)
        return TUNNEL_E_NOMEM;
    for (tnl_list *n = config->domains.next; n != &config->domains; n = n->next) {
        const tnl_config_item *item = TNL_CONTAINER(n, tnl_config_item, node);
        tnl_server_allowed *a = &c->allowed[c->allowed_count];
        if (item->token && tnl_tokens_check(c->tokens, tnl_str_of(item->token), a->account))
            continue;
        snprintf(a->pattern, sizeof(a->pattern), "%s", item->pattern);
        c->allowed_count++;
    }
    return 0;
}

int tnl_server_config_make(tnl_server_config **out, const tunnel_server_config *config,
                           char *detail, size_t size)
{
    const char *missing = what_is_missing(config);
    if (missing) {
        snprintf(detail, size, "%s", missing);
        return TUNNEL_E_INVALID;
    }
    tnl_server_config *c = tnl_malloc(sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    *c = config->c;
    int rc = hash_tokens(&c->tokens, config);
    if (rc == 0)
        rc = hash_domains(c, config);
    if (rc)
        tnl_server_config_drop(c, true);
    else
        *out = c;
    return rc;
}

void tnl_server_config_drop(tnl_server_config *c, bool all)
{
    if (c && all) {
        tnl_tokens_free(c->tokens);
        tnl_free(c->allowed);
    }
    tnl_free(c);
}
