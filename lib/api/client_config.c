/* SPDX-License-Identifier: Apache-2.0 */
#include "api/client_config.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

enum { LINE = TNL_CLIENT_CONFIG_LINE };

int tunnel_client_config_new(tunnel_client_config **out)
{
    tunnel_client_config *config = tnl_calloc(1, sizeof(*config));
    if (!config)
        return TUNNEL_E_NOMEM;
    config->c.silence_ms = 5000;
    config->c.lanes = 2;
    *out = config;
    return 0;
}

void tunnel_client_config_free(tunnel_client_config *config)
{
    if (!config)
        return;
    tnl_wipe(config, sizeof(*config));
    tnl_free(config);
}

const char *tunnel_client_config_error(const tunnel_client_config *config)
{
    return config->line;
}

void tnl_line_tidy(char *line)
{
    for (; *line; line++)
        if ((unsigned char)*line < ' ' || *line == 127)
            *line = '?';
}

static int invalid(char line[LINE], const char *format, const char *value)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(line, LINE, format, value);
#pragma GCC diagnostic pop
    tnl_line_tidy(line);
    return TUNNEL_E_INVALID;
}

static int parse_server(tunnel_client_config *config, tnl_url *out, const char *url)
{
    tnl_url u;
    config->line[0] = '\0';
    bool known = tnl_url_parse(&u, url) == 0;
    bool tls = known && (strcmp(u.scheme, "wss") == 0 || strcmp(u.scheme, "https") == 0);
    bool plain = known && (strcmp(u.scheme, "ws") == 0 || strcmp(u.scheme, "http") == 0);
    if (strchr(url, '@'))
        return invalid(
            config->line, "%s",
            "the server's address must not hold a user or password: give the credential with --token");
    if ((!tls && !plain) || (u.path[0] && strcmp(u.path, "/") != 0))
        return invalid(
            config->line,
            "'%.100s' is not a server's address: give wss://HOST[:PORT] or ws://HOST[:PORT]", url);
    snprintf(u.scheme, sizeof(u.scheme), "%s", tls ? "wss" : "ws");
    if (u.port == 0)
        u.port = tls ? 443 : 80;
    *out = u;
    return 0;
}

int tunnel_client_config_set_server(tunnel_client_config *config, const char *url)
{
    int rc = parse_server(config, &config->c.servers[0], url);
    if (rc == 0)
        config->c.server_count = 1;
    return rc;
}

int tunnel_client_config_add_server(tunnel_client_config *config, const char *url)
{
    tnl_client_config *c = &config->c;
    tnl_url u;
    int rc = parse_server(config, &u, url);
    if (rc)
        return rc;
    if (c->server_count == TNL_CLIENT_MAX_SERVERS) {
        snprintf(config->line, sizeof(config->line), "a client may have at most %d servers",
                 TNL_CLIENT_MAX_SERVERS);
        return TUNNEL_E_LIMIT;
    }
    for (size_t i = 0; i < c->server_count; i++)
        if (strcmp(c->servers[i].host, u.host) == 0 && c->servers[i].port == u.port)
            return invalid(config->line, "the server '%.100s' is given twice: leave one out", url);
    c->servers[c->server_count++] = u;
    return 0;
}

int tunnel_client_config_set_token(tunnel_client_config *config, const char *token)
{
    size_t n = strlen(token);
    config->line[0] = '\0';
    bool ok = n > 0 && n < sizeof(config->c.token);
    for (size_t i = 0; ok && i < n; i++)
        ok = token[i] > ' ' && token[i] <= '~';
    if (!ok)
        return invalid(config->line, "%s",
                       "the token must be 1 to 4096 printable characters without spaces");
    memcpy(config->c.token, token, n + 1);
    return 0;
}

int tunnel_client_config_set_ca_file(tunnel_client_config *config, const char *path)
{
    config->line[0] = '\0';
    if (!path[0] || strlen(path) >= sizeof(config->c.ca_file))
        return invalid(config->line, "'%.100s' is no path of a CA file", path);
    snprintf(config->c.ca_file, sizeof(config->c.ca_file), "%s", path);
    return 0;
}

int tunnel_client_config_set_insecure(tunnel_client_config *config, int insecure)
{
    config->insecure = insecure != 0;
    return 0;
}

int tunnel_client_config_set_proxy(tunnel_client_config *config, const char *url)
{
    tnl_url u;
    config->line[0] = '\0';
    config->c.has_proxy = false;
    if (!url[0])
        return 0;
    if (tnl_url_parse(&u, url) || strcmp(u.scheme, "http") != 0 ||
        (u.path[0] && strcmp(u.path, "/") != 0))
        return invalid(config->line,
                       "'%.100s' is not a proxy's address: give http://[USER:PASSWORD@]HOST[:PORT]",
                       strchr(url, '@') ? "(with a password)" : url);
    if (u.port == 0)
        u.port = 80;
    config->c.proxy = u;
    config->c.has_proxy = true;
    return 0;
}

int tunnel_client_config_set_instance(tunnel_client_config *config, const char *hex)
{
    uint8_t id[TNL_ID_SIZE];
    config->line[0] = '\0';
    if (tnl_unhex(id, sizeof(id), hex, strlen(hex)))
        return invalid(config->line, "'%.100s' is not an instance id: give 32 hex digits", hex);
    memcpy(config->c.instance, id, sizeof(id));
    config->has_instance = true;
    return 0;
}

int tunnel_client_config_set_force(tunnel_client_config *config, int force)
{
    config->c.force = force != 0;
    return 0;
}

int tunnel_client_config_set_lanes(tunnel_client_config *config, uint32_t most)
{
    config->line[0] = '\0';
    if (most > 8) {
        snprintf(config->line, sizeof(config->line), "the number of lanes must be 0 to 8");
        return TUNNEL_E_INVALID;
    }
    config->c.lanes = most;
    return 0;
}

int tunnel_client_config_set_silence(tunnel_client_config *config, uint32_t ms)
{
    config->line[0] = '\0';
    if (ms < 1000 || ms > 600000)
        return invalid(config->line, "%s",
                       "the silence after which a link is dead must be 1000 to 600000 ms");
    config->c.silence_ms = ms;
    return 0;
}

/* --- options of a tunnel ---------------------------------------------------------------------- */

int tunnel_options_new(tunnel_options **out)
{
    *out = tnl_calloc(1, sizeof(**out));
    return *out ? 0 : TUNNEL_E_NOMEM;
}

void tunnel_options_free(tunnel_options *options)
{
    if (!options)
        return;
    tnl_free(options->cert_file);
    tnl_free(options->key_file);
    tnl_free(options);
}

const char *tunnel_options_error(const tunnel_options *options)
{
    return options->line;
}

int tunnel_options_set_host_header(tunnel_options *options, const char *value)
{
    char url[300];
    tnl_url u;
    options->line[0] = '\0';
    bool fits = strlen(value) < sizeof(options->host_header);
    snprintf(url, sizeof(url), "http://%s", fits ? value : "");
    if (!fits || strchr(value, '@') || tnl_url_parse(&u, url) || u.path[0])
        return invalid(
            options->line,
            "'%.100s' is not a Host header: give a name or address, with :PORT if need be", value);
    snprintf(options->host_header, sizeof(options->host_header), "%s", value);
    return 0;
}

int tunnel_options_set_upstream_ca_file(tunnel_options *options, const char *path)
{
    options->line[0] = '\0';
    if (!path[0] || strlen(path) >= sizeof(options->upstream_ca))
        return invalid(options->line, "'%.100s' is no path of a CA file", path);
    snprintf(options->upstream_ca, sizeof(options->upstream_ca), "%s", path);
    return 0;
}

int tunnel_options_set_path_id(tunnel_options *options, const char *id)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_~.%-";
    size_t n = strlen(id);
    options->line[0] = '\0';
    if (n == 0 || n >= sizeof(options->path_id) || strspn(id, allowed) != n ||
        strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
        return invalid(options->line,
                       "'%.130s' is not a path id: give 1 to 128 of a-z A-Z 0-9 _ ~ . %% -, not "
                       "'.' or '..'",
                       id);
    memcpy(options->path_id, id, n + 1);
    return 0;
}

int tunnel_options_set_proxy_protocol(tunnel_options *options, int version)
{
    options->line[0] = '\0';
    if (version < 0 || version > 2)
        return invalid(options->line, "%s",
                       "the PROXY protocol has the versions 1 and 2: give one of them, or 0 for "
                       "none");
    options->proxy_protocol = version;
    return 0;
}

int tunnel_options_set_certificate(tunnel_options *options, const char *cert_file,
                                   const char *key_file)
{
    options->line[0] = '\0';
    if (!cert_file[0] || !key_file[0])
        return invalid(options->line, "%s",
                       "a certificate is two PEM files: give the certificate chain and its key");
    char *cert = tnl_strdup(cert_file), *key = tnl_strdup(key_file);
    if (!cert || !key) {
        tnl_free(cert);
        tnl_free(key);
        return TUNNEL_E_NOMEM;
    }
    tnl_free(options->cert_file);
    tnl_free(options->key_file);
    options->cert_file = cert;
    options->key_file = key;
    return 0;
}

int tunnel_options_set_idle_timeout(tunnel_options *options, uint32_t ms)
{
    options->line[0] = '\0';
    if (ms < 1000 || ms > 3600000)
        return invalid(options->line, "%s",
                       "how long a flow may be idle must be 1000 to 3600000 ms");
    options->idle_ms = ms;
    return 0;
}

int tunnel_options_set_pool(tunnel_options *options, const char *balance)
{
    options->line[0] = '\0';
    if (balance[0] && strcmp(balance, "round-robin") != 0 && strcmp(balance, "least-loaded") != 0)
        return invalid(options->line,
                       "'%.100s' is no way to balance a pool: give round-robin or least-loaded",
                       balance);
    snprintf(options->pool, sizeof(options->pool), "%s", balance);
    return 0;
}

/* --- for a client ----------------------------------------------------------------------------- */

static int check_server(const tunnel_client_config *config, const tnl_url *server, bool tls,
                        char *detail, size_t size)
{
    bool plain = strcmp(server->scheme, "ws") == 0;
    if (plain && !config->insecure && !tnl_host_is_loopback(server->host))
        snprintf(detail, size,
                 "ws://%.200s would send the token and all traffic unencrypted: use wss://, or "
                 "allow it with --insecure",
                 server->host);
    else if (plain && !tls && config->c.ca_file[0])
        snprintf(detail, size,
                 "a CA file verifies a server's certificate, and ws://%.200s has none: use wss://, "
                 "or leave out --ca",
                 server->host);
    else
        return 0;
    return TUNNEL_E_INVALID;
}

int tnl_client_config_check(const tunnel_client_config *config, char *detail, size_t size)
{
    const tnl_client_config *c = &config->c;
    bool tls = false;
    if (c->server_count == 0) {
        snprintf(detail, size, "no server is set: give its address, e.g. wss://tunnel.example.com");
        return TUNNEL_E_INVALID;
    }
    for (size_t i = 0; i < c->server_count; i++)
        tls |= strcmp(c->servers[i].scheme, "wss") == 0;
    int rc = 0;
    for (size_t i = 0; i < c->server_count && rc == 0; i++)
        rc = check_server(config, &c->servers[i], tls, detail, size);
    return rc;
}
