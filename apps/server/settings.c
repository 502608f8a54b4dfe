/* SPDX-License-Identifier: Apache-2.0 */
#include "server/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/error.h>

#include "common/tokens.h"

settings *settings_new(void)
{
    settings *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->drain_timeout_ms = 30000;
    if (tunnel_server_config_new(&s->config) ||
        tunnel_server_config_set_domain(s->config, "localhost")) {
        settings_free(s);
        return NULL;
    }
    return s;
}

void settings_free(settings *s)
{
    if (!s)
        return;
    text_clear(&s->tokens);
    text_clear(&s->certs);
    text_clear(&s->keys);
    free(s->access_log);
    free(s->state);
    tunnel_server_config_free(s->config);
    free(s);
}

/* --- options ---------------------------------------------------------------------------------- */

static const char *result(settings *s, int rc)
{
    if (rc == 0)
        return NULL;
    const char *line = tunnel_server_config_error(s->config);
    return *line ? line : tunnel_strerror(rc);
}

static const char *set_listen(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_add_listen(s->config, value));
}

static const char *set_tls_listen(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_add_tls_listen(s->config, value));
}

static const char *set_tls_cert(void *user, const char *value)
{
    settings *s = user;
    if (s->certs.count == CERTS_MAX)
        return "there are too many certificates";
    s->cert_lines[s->certs.count] = s->reading ? *s->reading : 0;
    return text_add(&s->certs, value) ? NULL : "out of memory";
}

static const char *set_tls_key(void *user, const char *value)
{
    settings *s = user;
    return text_add(&s->keys, value) ? NULL : "out of memory";
}

static const char *set_domain(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_set_domain(s->config, value));
}

static const char *set_token(void *user, const char *value)
{
    settings *s = user;
    const char *error = result(s, tunnel_server_config_add_token(s->config, value));
    return error || text_add(&s->tokens, value) ? error : "out of memory";
}

static const char *set_token_file(void *user, const char *value)
{
    settings *s = user;
    text_list tokens = {.count = 0};
    const char *error = read_token_file(&tokens, value, s->line, sizeof(s->line));
    if (!error && tokens.count == 0) {
        snprintf(s->line, sizeof(s->line), "'%.200s' holds no token: write one on each line",
                 value);
        error = s->line;
    }
    for (size_t i = 0; i < tokens.count && !error; i++)
        error = set_token(user, tokens.items[i]);
    text_clear(&tokens);
    return error;
}

static const char *set_public_url(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_set_public_url(s->config, value));
}

static const char *set_access_log(void *user, const char *value)
{
    settings *s = user;
    return text_set(&s->access_log, value) ? NULL : "out of memory";
}

static const char *set_answer_timeout(void *user, const char *value)
{
    settings *s = user;
    long ms = milliseconds(value);
    if (ms < 100)
        return "give a number of seconds, 0.1 to 86400";
    return result(s, tunnel_server_config_set_answer_timeout(s->config, (uint32_t)ms));
}

static const char *set_grace(void *user, const char *value)
{
    settings *s = user;
    long ms = milliseconds(value);
    if (ms < 0 || ms > 3600000)
        return "give a number of seconds, 0 to 3600";
    return result(s, tunnel_server_config_set_grace(s->config, (uint32_t)ms));
}

static const char *set_hold(void *user, const char *value)
{
    settings *s = user;
    long ms = milliseconds(value);
    if (ms < 0)
        return "give a number of seconds, 0 to 86400";
    return result(s, tunnel_server_config_set_hold(s->config, (uint32_t)ms));
}

static const char *set_state(void *user, const char *value)
{
    settings *s = user;
    s->state_line = s->reading ? *s->reading : 0;
    if (!text_set(&s->state, value))
        return "out of memory";
    return result(s, tunnel_server_config_set_state_file(s->config, value));
}

static const char *set_drain_delay(void *user, const char *value)
{
    long ms = milliseconds(value);
    if (ms < 0 || ms > 3600000)
        return "give a number of seconds, 0 to 3600";
    ((settings *)user)->drain_delay_ms = (uint32_t)ms;
    return NULL;
}

static const char *set_drain_timeout(void *user, const char *value)
{
    long ms = milliseconds(value);
    if (ms < 0)
        return "give a number of seconds, 0 to 86400";
    ((settings *)user)->drain_timeout_ms = (uint32_t)ms;
    return NULL;
}

static const char *set_link_timeout(void *user, const char *value)
{
    settings *s = user;
    long ms = milliseconds(value);
    if (ms < 1000 || ms > 600000)
        return "give a number of seconds, 1 to 600";
    return result(s, tunnel_server_config_set_silence(s->config, (uint32_t)ms));
}

static const char *set_tcp_ports(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_set_tcp_ports(s->config, value));
}

static const char *set_udp_ports(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_set_udp_ports(s->config, value));
}

static const char *count_flows(uint32_t *out, const char *value)
{
    size_t n = strlen(value);
    unsigned long count = n <= 5 ? strtoul(value, NULL, 10) : 0;
    if (n == 0 || strspn(value, "0123456789") != n || count < 1 || count > 65536)
        return "give a number from 1 to 65536";
    *out = (uint32_t)count;
    return NULL;
}

static const char *set_udp_flows(void *user, const char *value)
{
    return count_flows(&((settings *)user)->udp_flows, value);
}

static const char *set_udp_flows_per_source(void *user, const char *value)
{
    return count_flows(&((settings *)user)->udp_flows_per_source, value);
}

static const char *set_path_routing(void *user, const char *value)
{
    settings *s = user;
    (void)value;
    return result(s, tunnel_server_config_set_path_routing(s->config, 1));
}

static const char *set_allow_domain(void *user, const char *value)
{
    settings *s = user;
    return result(s, tunnel_server_config_allow_domain(s->config, NULL, value));
}

/* Read before all others, see main.c. */
static const char *set_config(void *user, const char *value)
{
    (void)user;
    return *value ? NULL : "give the path of a file";
}

static const char *set_log_format(void *user, const char *value)
{
    settings *s = user;
    s->json = strcmp(value, "json") == 0;
    return s->json || strcmp(value, "text") == 0 ? NULL : "give text or json";
}

static const char *set_verbose(void *user, const char *value)
{
    (void)value;
    ((settings *)user)->verbose = true;
    return NULL;
}

const char *settings_complete(settings *s)
{
    const char *error = NULL;
    if (s->certs.count != s->keys.count)
        return "--tls-cert and --tls-key come in pairs: give as many of one as of the other";
    for (size_t i = 0; i < s->certs.count && !error; i++)
        error = result(s, tunnel_server_config_add_certificate(s->config, s->certs.items[i],
                                                               s->keys.items[i]));
    if (!error && (s->udp_flows || s->udp_flows_per_source)) {
        uint32_t flows = s->udp_flows ? s->udp_flows : 1024;
        uint32_t source = s->udp_flows_per_source ? s->udp_flows_per_source : 512;
        error = result(s, tunnel_server_config_set_udp_flows(s->config, flows, source));
    }
    if (!error && s->access_log)
        error = result(s, tunnel_server_config_set_access_events(s->config, 1));
    return error;
}

/* --- tables ----------------------------------------------------------------------------------- */

static const option_row rows[] = {
    {.name = "config",
     .value = "FILE",
     .variable = "TUNNEL_SERVER_CONFIG",
     .place = NOT_IN_FILE,
     .help = "Configuration file, YAML, see tunnel-server.yml(5).\nRead again on SIGHUP.",
     .set = set_config},
    {.name = "listen",
     .value = "ADDRESS:PORT",
     .variable = "TUNNEL_LISTEN",
     .repeatable = true,
     .help = "Serve visitors (http) and clients (ws) here.",
     .set = set_listen},
    {.name = "tls-listen",
     .value = "ADDRESS:PORT",
     .variable = "TUNNEL_TLS_LISTEN",
     .repeatable = true,
     .help = "Serve visitors (https) and clients (wss) here.",
     .set = set_tls_listen},
    {.name = "tls-cert",
     .value = "FILE",
     .variable = "TUNNEL_TLS_CERT",
     .repeatable = true,
     .path = true,
     .group = 'C',
     .help =
         "Certificate chain, PEM. With --tls-key; the pair may be\nrepeated, SNI chooses. Read again on SIGHUP.",
     .set = set_tls_cert},
    {.name = "tls-key",
     .value = "FILE",
     .variable = "TUNNEL_TLS_KEY",
     .repeatable = true,
     .path = true,
     .group = 'C',
     .help = "Its private key, PEM.",
     .set = set_tls_key},
    {.name = "domain",
     .value = "NAME",
     .variable = "TUNNEL_DOMAIN",
     .help = "Tunnels become NAME.DOMAIN. Point *.DOMAIN at this host.\nDefault: localhost.",
     .set = set_domain},
    {.name = "token",
     .value = "SECRET",
     .variable = "TUNNEL_TOKEN",
     .repeatable = true,
     .secret = true,
     .group = 'T',
     .help =
         "What clients must present; each token is an account.\nDefault: one is made and printed.",
     .set = set_token},
    {.name = "token-file",
     .value = "FILE",
     .variable = "TUNNEL_TOKEN_FILE",
     .repeatable = true,
     .path = true,
     .group = 'T',
     .help = "A file with a token on each line; # begins a comment.\nRead again on SIGHUP.",
     .set = set_token_file},
    {.name = "public-url",
     .value = "URL",
     .variable = "TUNNEL_PUBLIC_URL",
     .help =
         "How visitors reach this server when a proxy stands in\nfront: https://tunnel.example.com",
     .set = set_public_url},
    {.name = "path-routing",
     .variable = "TUNNEL_PATH_ROUTING",
     .help = "DOMAIN/NAME/ reaches the tunnel NAME too, for hosts\nwithout wildcard DNS.",
     .set = set_path_routing},
    {.name = "allow-domain",
     .value = "PATTERN",
     .variable = "TUNNEL_ALLOW_DOMAIN",
     .repeatable = true,
     .help = "Let clients publish domains of their own: app.example.org,\n"
             "*.example.org (all below it), or * (any).",
     .set = set_allow_domain},
    {.name = "tcp-ports",
     .value = "LIST",
     .variable = "TUNNEL_TCP_PORTS",
     .help = "Ports that clients may publish with TCP tunnels, such as\n"
             "25565,30000-30099; or none. Default: 20000-29999.",
     .set = set_tcp_ports},
    {.name = "udp-ports",
     .value = "LIST",
     .variable = "TUNNEL_UDP_PORTS",
     .help = "The same for UDP tunnels. Default: 30000-39999.",
     .set = set_udp_ports},
    {.name = "udp-flows",
     .value = "COUNT",
     .variable = "TUNNEL_UDP_FLOWS",
     .help = "Visitors at once of a UDP tunnel, 1 to 65536.\nDefault: 1024.",
     .set = set_udp_flows},
    {.name = "udp-flows-per-source",
     .value = "COUNT",
     .variable = "TUNNEL_UDP_FLOWS_PER_SOURCE",
     .help = "Of these, from one host (IPv4 address, IPv6 /64).\nDefault: 512.",
     .set = set_udp_flows_per_source},
    {.name = "access-log",
     .value = "FILE",
     .variable = "TUNNEL_ACCESS_LOG",
     .path = true,
     .help = "Write a line per request; - is standard output.",
     .set = set_access_log},
    {.name = "log-format",
     .value = "text|json",
     .variable = "TUNNEL_LOG_FORMAT",
     .help =
         "json: each event, and each line of the access log, is a\nJSON object on a line. Default: text.",
     .set = set_log_format},
    {.name = "answer-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_ANSWER_TIMEOUT",
     .help = "How long a service may take to answer. Default: 60.",
     .set = set_answer_timeout},
    {.name = "link-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_LINK_TIMEOUT",
     .help = "How long a client may be silent before it counts as\ngone, 1 to 600. Default: 5.",
     .set = set_link_timeout},
    {.name = "grace",
     .value = "SECONDS",
     .variable = "TUNNEL_GRACE",
     .help =
         "How long a client that lost its connection may take to\ncome back before its visitors' connections end, 0 to\n3600. Default: 30.",
     .set = set_grace},
    {.name = "hold",
     .value = "SECONDS",
     .variable = "TUNNEL_HOLD",
     .help = "How long names and ports are kept for the account that had\n"
             "them, once its client is gone, 0 to 86400. Default: 300.",
     .set = set_hold},
    {.name = "state",
     .value = "FILE",
     .variable = "TUNNEL_STATE",
     .path = true,
     .help = "Write down here which names and ports belong to whom, so\n"
             "that they are kept over a restart, too. Default: none.",
     .set = set_state},
    {.name = "drain-delay",
     .value = "SECONDS",
     .variable = "TUNNEL_DRAIN_DELAY",
     .help = "When the server is to end: how long it goes on as before,\n"
             "but says that it is not ready, and clients move to another\n"
             "server, 0 to 3600. Default: 0.",
     .set = set_drain_delay},
    {.name = "drain-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_DRAIN_TIMEOUT",
     .help = "After that: how long what is under way may take, 0 to\n"
             "86400; a second signal ends it at once. Default: 30.",
     .set = set_drain_timeout},
    {.name = "verbose",
     .variable = "TUNNEL_VERBOSE",
     .help = "Tell on standard error who comes and goes.",
     .set = set_verbose},
};

static const command_row commands[] = {
    {"check-config", "[FILE]", 1, NULL, "Name every mistake of a configuration file.",
     "FILE is by default that of --config. The exit status is 0 when there is no mistake,\n"
     "else 2."},
};

static const char usage[] =
    "[OPTIONS]\n\n"
    "The public end of libtunnel: clients keep a connection to it, visitors come to the names\n"
    "they publish. Health: GET /__tunnel__/health/live and /__tunnel__/health/ready.";

static const char examples[] =
    "Examples:\n"
    "  tunnel-server --listen 127.0.0.1:8080 --domain localhost --token SECRET\n"
    "  tunnel-server --listen [::]:80 --tls-listen [::]:443 --tls-cert cert.pem --tls-key key.pem \\\n"
    "                --domain tunnel.example.com --token SECRET\n"
    "Then, where the service runs:\n"
    "  tunnel-client http 3000 --server ws://127.0.0.1:8080 --subdomain demo --token SECRET\n";

void server_command_line(command_line *c)
{
    *c = (command_line){.program = "tunnel-server",
                        .usage = usage,
                        .examples = examples,
                        .rows = rows,
                        .row_count = sizeof(rows) / sizeof(*rows),
                        .commands = commands,
                        .command_count = 1};
}
