/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/client.h"

#include <stdio.h>
#include <string.h>

#include "api/loop.h"
#include "base/mem.h"
#include "client/client.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

enum { LINE = 512 };

/* --- configuration ---------------------------------------------------------------------------- */

struct tunnel_client_config {
    tnl_client_config c;
    bool has_server;
    bool has_instance;
    bool insecure;
    char line[LINE];
};

int tunnel_client_config_new(tunnel_client_config **out)
{
    tunnel_client_config *config = tnl_calloc(1, sizeof(*config));
    if (!config)
        return TUNNEL_E_NOMEM;
    config->c.silence_ms = 5000;
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

static int invalid(char line[LINE], const char *format, const char *value)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(line, LINE, format, value);
#pragma GCC diagnostic pop
    return TUNNEL_E_INVALID;
}

int tunnel_client_config_set_server(tunnel_client_config *config, const char *url)
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
    config->c.server = u;
    config->has_server = true;
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

struct tunnel_options {
    char host_header[256];
    char upstream_ca[512];
    char line[LINE];
};

int tunnel_options_new(tunnel_options **out)
{
    *out = tnl_calloc(1, sizeof(**out));
    return *out ? 0 : TUNNEL_E_NOMEM;
}

void tunnel_options_free(tunnel_options *options)
{
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

/* --- client ----------------------------------------------------------------------------------- */

/* The handle is the client itself; the type is opaque to the outside. */
static tnl_client *inner(tunnel_client *client)
{
    return (tnl_client *)(void *)client;
}

int tunnel_client_new(tunnel_client **out, tunnel_loop *loop, const tunnel_client_config *config,
                      char *detail, size_t detail_size)
{
    char ignored[LINE];
    tnl_client *client = NULL;
    tnl_client_config *c = NULL;
    *out = NULL;
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    if (!config->has_server) {
        snprintf(detail, detail_size,
                 "no server is set: give its address, e.g. wss://tunnel.example.com");
        return TUNNEL_E_INVALID;
    }
    if (strcmp(config->c.server.scheme, "ws") == 0 && !config->insecure &&
        !tnl_host_is_loopback(config->c.server.host)) {
        snprintf(
            detail, detail_size,
            "ws://%.200s would send the token and all traffic unencrypted: use wss://, or allow it with --insecure",
            config->c.server.host);
        return TUNNEL_E_INVALID;
    }
    c = tnl_malloc(sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    *c = config->c;
    int rc = config->has_instance ? 0 : tnl_random(c->instance, sizeof(c->instance));
    if (rc == 0)
        rc = tnl_client_new(&client, loop->loop, c, detail, detail_size);
    tnl_wipe(c, sizeof(*c));
    tnl_free(c);
    if (rc && !detail[0])
        snprintf(detail, detail_size, "%s", tunnel_strerror(rc));
    *out = (tunnel_client *)(void *)client;
    return rc;
}

void tunnel_client_on_event(tunnel_client *client,
                            void (*event)(void *user, const tunnel_event *event), void *user)
{
    tnl_client_on_event(inner(client), event, user);
}

/* The name of "http://NAME"; TUNNEL_E_ codes with a line. */
static int name_of(char name[64], const char *what, char *detail, size_t size)
{
    if (strncmp(what, "http://", 7) != 0) {
        snprintf(detail, size, "'%.100s' is not something to publish: give http://NAME", what);
        return TUNNEL_E_INVALID;
    }
    const char *label = what + 7;
    if (strcmp(label, "@") != 0 && label[0] && !tnl_is_label(label)) {
        snprintf(
            detail, size,
            "'%.100s' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-' (not first or last), or '@' for the root",
            label);
        return TUNNEL_E_NAME_INVALID;
    }
    snprintf(name, 64, "%s", label);
    return 0;
}

int tunnel_client_forward(tunnel_client *client, const char *what, const char *upstream,
                          const tunnel_options *options, uint64_t *tunnel, char *detail,
                          size_t detail_size)
{
    char ignored[LINE];
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP};
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    int rc = name_of(spec.name, what, detail, detail_size);
    if (rc)
        return rc;
    const char *ca = options && options->upstream_ca[0] ? options->upstream_ca : NULL;
    rc = tnl_upstream_parse(&spec.upstream, upstream, ca, detail, detail_size);
    if (rc)
        return rc;
    if (options)
        snprintf(spec.host_header, sizeof(spec.host_header), "%s", options->host_header);
    rc = tnl_client_publish(inner(client), &spec, tunnel);
    if (rc) {
        tnl_tunnel_spec_clear(&spec);
        snprintf(detail, detail_size, "%s",
                 rc == TUNNEL_E_LIMIT ? "a client may publish 64 tunnels" : tunnel_strerror(rc));
    }
    return rc;
}

int tunnel_client_unpublish(tunnel_client *client, uint64_t tunnel)
{
    return tnl_client_unpublish(inner(client), tunnel);
}

int tunnel_client_start(tunnel_client *client)
{
    return tnl_client_start(inner(client));
}

void tunnel_client_close(tunnel_client *client, void (*closed)(void *user), void *user)
{
    if (client)
        tnl_client_close(inner(client), closed, user);
}
