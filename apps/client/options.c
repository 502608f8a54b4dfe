/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/error.h>

#include "client/connection.h"

/* --- the program ---------------------------------------------------------------------------- */

static const char *set_quiet(void *user, const char *value)
{
    (void)value;
    ((settings *)user)->quiet = true;
    return NULL;
}

static const char *set_verbose(void *user, const char *value)
{
    (void)value;
    ((settings *)user)->verbose = true;
    return NULL;
}

static const char *set_qr(void *user, const char *value)
{
    (void)value;
    ((settings *)user)->qr = true;
    return NULL;
}

static const char *set_log_format(void *user, const char *value)
{
    settings *s = user;
    s->json = strcmp(value, "json") == 0;
    return s->json || strcmp(value, "text") == 0 ? NULL : "give text or json";
}

static const char *set_drain_timeout(void *user, const char *value)
{
    long ms = milliseconds(value);
    if (ms < 0)
        return "give a number of seconds, 0 to 86400";
    ((settings *)user)->drain_ms = (uint32_t)ms;
    return NULL;
}

/* Read before all others, see start.c. */
static const char *set_config(void *user, const char *value)
{
    (void)user;
    return *value ? NULL : "give the path of a file";
}

/* --- a tunnel --------------------------------------------------------------------------------- */

static const char *keep(settings *s, plan_field field, const char *value)
{
    s->current->lines[field] = s->reading ? *s->reading : 0;
    return text_set(&s->current->fields[field], value) ? NULL : "out of memory";
}

static const char *option_result(settings *s, int rc, plan_field field, const char *value)
{
    if (rc == 0)
        return keep(s, field, value);
    const char *line = tunnel_options_error(s->scratch);
    return *line ? line : tunnel_strerror(rc);
}

static bool is_label(const char *value)
{
    size_t n = strlen(value);
    return n >= 1 && n <= 63 && strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") == n &&
           value[0] != '-' && value[n - 1] != '-';
}

static const char *add_once(settings *s, text_list *list, const char *value)
{
    s->current->names_line = s->reading ? *s->reading : 0;
    if (text_has(list, value)) {
        snprintf(s->line, sizeof(s->line), "'%.80s' is given twice", value);
        return s->line;
    }
    return text_add(list, value) ? NULL : "out of memory";
}

static const char *set_subdomain(void *user, const char *value)
{
    settings *s = user;
    const char *label = strncmp(value, "*.", 2) == 0 ? value + 2 : value;
    if (strcmp(value, "@") == 0 || is_label(label))
        return add_once(s, &s->current->subdomains, value);
    snprintf(
        s->line, sizeof(s->line),
        "'%.80s' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-' (not first or last), @ for the root domain, or *.LABEL",
        value);
    return s->line;
}

static const char *set_domain(void *user, const char *value)
{
    settings *s = user;
    char lower[256] = "", label[64];
    size_t n = strlen(value), below = strncmp(value, "*.", 2) == 0 ? 2 : 0;
    bool ok = n < 254 && strchr(value + below, '.');
    for (size_t i = 0; ok && i < n; i++)
        lower[i] = value[i] >= 'A' && value[i] <= 'Z' ? (char)(value[i] - 'A' + 'a') : value[i];
    for (const char *rest = lower + below; ok; rest++) {
        size_t part = strcspn(rest, ".");
        snprintf(label, sizeof(label), "%.*s", (int)part, rest);
        ok = part < sizeof(label) && is_label(label);
        rest += part;
        if (!*rest)
            break;
    }
    if (ok)
        return add_once(s, &s->current->domains, lower);
    snprintf(
        s->line, sizeof(s->line),
        "'%.80s' is not a domain of your own: give one such as app.example.org (a name under the server's domain is a subdomain)",
        value);
    return s->line;
}

static const char *set_path_id(void *user, const char *value)
{
    settings *s = user;
    return option_result(s, tunnel_options_set_path_id(s->scratch, value), PLAN_PATH_ID, value);
}

static const char *set_remote_port(void *user, const char *value)
{
    settings *s = user;
    size_t n = strlen(value);
    unsigned long port = n <= 5 ? strtoul(value, NULL, 10) : 0;
    if (n >= 1 && strspn(value, "0123456789") == n && port >= 1 && port <= 65535)
        return keep(s, PLAN_REMOTE_PORT, value);
    snprintf(s->line, sizeof(s->line), "'%.80s' is not a port: give a number from 1 to 65535",
             value);
    return s->line;
}

static const char *set_host_header(void *user, const char *value)
{
    settings *s = user;
    return option_result(s, tunnel_options_set_host_header(s->scratch, value), PLAN_HOST_HEADER,
                         value);
}

static const char *set_upstream_ca(void *user, const char *value)
{
    settings *s = user;
    return option_result(s, tunnel_options_set_upstream_ca_file(s->scratch, value),
                         PLAN_UPSTREAM_CA, value);
}

static const char *set_proxy_protocol(void *user, const char *value)
{
    settings *s = user;
    if (strcmp(value, "v1") != 0 && strcmp(value, "v2") != 0) {
        snprintf(s->line, sizeof(s->line),
                 "'%.80s' is no version of the PROXY protocol: give v1 or v2", value);
        return s->line;
    }
    return keep(s, PLAN_PROXY_PROTOCOL, value);
}

static const char *set_tls_cert(void *user, const char *value)
{
    return *value ? keep(user, PLAN_TLS_CERT, value) : "give the path of a PEM file";
}

static const char *set_tls_key(void *user, const char *value)
{
    return *value ? keep(user, PLAN_TLS_KEY, value) : "give the path of a PEM file";
}

static const char *set_idle_timeout(void *user, const char *value)
{
    settings *s = user;
    char text[16];
    long ms = milliseconds(value);
    if (ms < 1000 || ms > 3600000)
        return "give a number of seconds, 1 to 3600";
    snprintf(text, sizeof(text), "%ld", ms);
    return keep(s, PLAN_IDLE_TIMEOUT, text);
}

static const char *set_pool(void *user, const char *value)
{
    return keep(user, PLAN_POOL, value);
}

static const char *set_balance(void *user, const char *value)
{
    settings *s = user;
    if (!*value)
        return "give round-robin or least-loaded";
    return option_result(s, tunnel_options_set_pool(s->scratch, value), PLAN_BALANCE, value);
}

static const char *set_allow_ports(void *user, const char *value)
{
    return keep(user, PLAN_ALLOW_PORTS, value);
}

static const char *set_tls(void *user, const char *value)
{
    return keep(user, PLAN_TLS, value);
}

/* --- tables ----------------------------------------------------------------------------------- */

enum {
    HTTP = 1 << TYPE_HTTP,
    TCP = 1 << TYPE_TCP,
    UDP = 1 << TYPE_UDP,
    TLS = 1 << TYPE_TLS,
    FILES = 1 << TYPE_FILES,
    PORTS = 1 << TYPE_PORTS,
    START = 1 << COMMAND_START,
    CHECK = 1 << COMMAND_CHECK,
    NAMED = HTTP | TLS | FILES | PORTS,
    TUNNELS = NAMED | TCP | UDP,
};

static const option_row rows[] = {
    {.name = "server",
     .value = "URL",
     .variable = "TUNNEL_SERVER",
     .repeatable = true,
     .help = "The tunnel server: wss://HOST[:PORT], or ws:// (see\n"
             "--insecure); https and http mean the same. Several, up to 8,\n"
             "also as URL,URL: the next one when one is gone. Required.",
     .set = set_server},
    {.name = "token",
     .value = "SECRET",
     .variable = "TUNNEL_TOKEN",
     .secret = true,
     .group = 'T',
     .help = "The credential that the server knows.",
     .set = set_token},
    {.name = "token-file",
     .value = "FILE",
     .variable = "TUNNEL_TOKEN_FILE",
     .path = true,
     .group = 'T',
     .help = "A file that holds it.",
     .set = set_token_file},
    {.name = "config",
     .value = "FILE",
     .variable = "TUNNEL_CLIENT_CONFIG",
     .place = NOT_IN_FILE,
     .help = "Configuration file, YAML, see tunnel.yml(5). start: the\n"
             "tunnels too. Default: the user's own; start: ./tunnel.yml,\nelse the user's own.",
     .set = set_config},
    {.name = "subdomain",
     .value = "NAME",
     .variable = "TUNNEL_SUBDOMAIN",
     .repeatable = true,
     .place = IN_TUNNEL,
     .commands = NAMED,
     .help =
         "The name to publish; @ is the root domain, *.NAME every\nname below NAME. Default: one that the server makes up.",
     .set = set_subdomain},
    {.name = "domain",
     .value = "DOMAIN",
     .variable = "TUNNEL_CUSTOM_DOMAIN",
     .repeatable = true,
     .place = IN_TUNNEL,
     .commands = NAMED,
     .help = "Publish a domain of your own, app.example.org, whose DNS\n"
             "leads to the server; the server must allow it.",
     .set = set_domain},
    {.name = "path-id",
     .value = "ID",
     .variable = "TUNNEL_PATH_ID",
     .place = IN_TUNNEL,
     .commands = HTTP | FILES,
     .help =
         "Where the server routes by path: publish https://DOMAIN/ID/,\nand no name. Default: the name.",
     .set = set_path_id},
    {.name = "remote-port",
     .value = "PORT",
     .variable = "TUNNEL_REMOTE_PORT",
     .place = IN_TUNNEL,
     .commands = TCP | UDP,
     .help = "The server's port to publish.\nDefault: one of the server's choice.",
     .set = set_remote_port},
    {.name = "pool",
     .variable = "TUNNEL_POOL",
     .place = IN_TUNNEL,
     .commands = NAMED | TCP,
     .help = "Share the name or port with the other clients that have the\n"
             "same token and --pool, up to 100: visitors are spread.",
     .set = set_pool},
    {.name = "balance",
     .value = "METHOD",
     .variable = "TUNNEL_BALANCE",
     .place = IN_TUNNEL,
     .commands = NAMED | TCP,
     .help = "How, with --pool: round-robin, or least-loaded (where the\n"
             "fewest visitors are). Default: round-robin.",
     .set = set_balance},
    {.name = "host-header",
     .value = "VALUE",
     .variable = "TUNNEL_HOST_HEADER",
     .place = IN_TUNNEL,
     .commands = HTTP | PORTS,
     .help = "Send this Host to the service instead of the visitor's.",
     .set = set_host_header},
    {.name = "upstream-ca",
     .value = "FILE",
     .variable = "TUNNEL_UPSTREAM_CA",
     .path = true,
     .place = IN_TUNNEL,
     .commands = HTTP | TCP,
     .help =
         "Verify an https:// service against this PEM file.\nDefault: the system's store; not verified on localhost.",
     .set = set_upstream_ca},
    {.name = "proxy-protocol",
     .value = "v1|v2",
     .variable = "TUNNEL_PROXY_PROTOCOL",
     .place = IN_TUNNEL,
     .commands = HTTP | TCP | TLS | PORTS,
     .help = "Begin each connection to the service with a header of the\n"
             "PROXY protocol, which tells the visitor's address.",
     .set = set_proxy_protocol},
    {.name = "tls-cert",
     .value = "FILE",
     .variable = "TUNNEL_CLIENT_TLS_CERT",
     .path = true,
     .place = IN_TUNNEL,
     .commands = TLS | PORTS,
     .help = "End TLS here with this certificate chain, PEM, and pass\nplain bytes to the service.",
     .set = set_tls_cert},
    {.name = "tls-key",
     .value = "FILE",
     .variable = "TUNNEL_CLIENT_TLS_KEY",
     .path = true,
     .place = IN_TUNNEL,
     .commands = TLS | PORTS,
     .help = "Its private key, PEM.",
     .set = set_tls_key},
    {.name = "idle-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_IDLE_TIMEOUT",
     .place = IN_TUNNEL,
     .commands = UDP,
     .help = "How long a visitor's flow may be idle before it ends, 1 to\n3600. Default: 60.",
     .set = set_idle_timeout},
    {.name = "allow-ports",
     .value = "LIST",
     .variable = "TUNNEL_ALLOW_PORTS",
     .place = IN_TUNNEL,
     .commands = PORTS,
     .help = "The ports that visitors may reach: 22,8000-8100. Required.",
     .set = set_allow_ports},
    {.name = "tls",
     .variable = "TUNNEL_TLS",
     .place = IN_TUNNEL,
     .commands = PORTS,
     .help = "Tell the port by the name in the TLS handshake (SNI)\ninstead of the HTTP Host.",
     .set = set_tls},
    {.name = "qr",
     .variable = "TUNNEL_QR",
     .commands = HTTP | FILES | START | CHECK,
     .help = "Print a QR code of each page's public URL.",
     .set = set_qr},
    {.name = "quiet",
     .variable = "TUNNEL_QUIET",
     .help = "No line per request or connection.",
     .set = set_quiet},
    {.name = "log-format",
     .value = "text|json",
     .variable = "TUNNEL_LOG_FORMAT",
     .help = "json: each event is a JSON object on a line of standard\noutput. Default: text.",
     .set = set_log_format},
    {.name = "ca",
     .value = "FILE",
     .variable = "TUNNEL_CA",
     .path = true,
     .help = "Verify the server against this PEM file instead of the\nsystem's store.",
     .set = set_ca},
    {.name = "insecure",
     .variable = "TUNNEL_INSECURE",
     .help = "Allow plain ws:// to hosts other than this one.",
     .set = set_insecure},
    {.name = "proxy",
     .value = "URL",
     .variable = "TUNNEL_PROXY",
     .secret = true,
     .help = "Go out through this HTTP proxy:\nhttp://[USER:PASSWORD@]HOST[:PORT]; '' for none.\n"
             "Default: HTTPS_PROXY, unless NO_PROXY names the server.",
     .set = set_proxy},
    {.name = "force",
     .variable = "TUNNEL_FORCE",
     .help = "Take the name from a live client with the same token.",
     .set = set_force},
    {.name = "instance",
     .value = "HEX",
     .variable = "TUNNEL_INSTANCE",
     .help =
         "32 hex digits: a newer client with the same ones (and the\nsame token) takes over at once. Default: random.",
     .set = set_instance},
    {.name = "link-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_LINK_TIMEOUT",
     .help =
         "How long the server may be silent before the connection\ncounts as dead, 1 to 600. Default: 5.",
     .set = set_link_timeout},
    {.name = "lanes",
     .value = "NUMBER",
     .variable = "TUNNEL_LANES",
     .help =
         "How many further connections may carry the traffic where\nthe path allows it, 0 to 8. Default: 2.",
     .set = set_lanes},
    {.name = "drain-timeout",
     .value = "SECONDS",
     .variable = "TUNNEL_DRAIN_TIMEOUT",
     .help = "How long what visitors have under way may take when the\n"
             "program is to end, 0 to 86400; a second signal ends it at\nonce. Default: 30.",
     .set = set_drain_timeout},
    {.name = "verbose",
     .variable = "TUNNEL_VERBOSE",
     .help = "Tell about every connection attempt, and round-trip times.",
     .set = set_verbose},
};

#define ADDRESS "an address to forward to, e.g. tunnel-client "

static const command_row commands[CLIENT_COMMANDS] = {
    [TYPE_HTTP] = {"http", "UPSTREAM", 1, ADDRESS "http 3000", "Publish a web service.",
                   "UPSTREAM is a port of this machine (3000), HOST:PORT, unix:/PATH or\n"
                   "https://HOST:PORT. It need not be up yet."},
    [TYPE_TCP] =
        {"tcp", "UPSTREAM", 1, ADDRESS "tcp 22", "Publish a TCP service.",
         "Visitors reach it at a port of the server. UPSTREAM is a port of this machine\n"
         "(22), HOST:PORT, unix:/PATH, or https://HOST:PORT for TLS. It need not be up yet."},
    [TYPE_UDP] = {"udp", "UPSTREAM", 1, ADDRESS "udp 5353", "Publish a UDP service.",
                  "Visitors reach it at a port of the server. UPSTREAM is a port of this machine\n"
                  "(5353) or HOST:PORT."},
    [TYPE_TLS] =
        {"tls", "UPSTREAM", 1, ADDRESS "tls 8443", "Publish a TLS service by its name.",
         "Visitors are told apart by the name in the TLS handshake (SNI), and the server\n"
         "passes the bytes on untouched. UPSTREAM is a port of this machine (8443), HOST:PORT\n"
         "or unix:/PATH; it speaks TLS, or plain bytes with --tls-cert and --tls-key."},
    [TYPE_FILES] = {"files", "DIR", 1, "a folder, e.g. tunnel-client files ./public",
                    "Publish a folder of files.", NULL},
    [TYPE_PORTS] =
        {"ports", "", 0, NULL, "Publish several ports of this machine.",
         "Visitors of pPORT.NAME reach that port of this machine, by the HTTP Host, or with\n"
         "--tls by the name in the TLS handshake; only ports of --allow-ports."},
    [COMMAND_START] =
        {"start", "[NAME...]", ARGUMENTS_MAX, NULL,
         "Publish the tunnels of a configuration file, or those named.",
         "The file is that of --config, else ./tunnel.yml, else the user's own,\n"
         "$XDG_CONFIG_HOME/libtunnel/tunnel.yml (~/.config/libtunnel/tunnel.yml). On SIGHUP it\n"
         "is read again, and what has changed is changed; see tunnel.yml(5)."},
    [COMMAND_CHECK] =
        {"check-config", "[FILE]", 1, NULL, "Name every mistake of a file.",
         "FILE is by default the file that start would take. The exit status is 0 when there\n"
         "is no mistake, else 2."},
};

static const char usage[] = "COMMAND [ARGUMENTS] --server URL [OPTIONS]\n\n"
                            "Makes local services reachable through a tunnel server.";

static const char examples[] =
    "Examples:\n"
    "  tunnel-client http 3000 --server wss://tunnel.example.com --subdomain demo --token SECRET\n"
    "  tunnel-client http unix:/run/app.sock --server wss://tunnel.example.com --host-header app.local\n"
    "  tunnel-client tcp 22 --server wss://tunnel.example.com --remote-port 20022\n"
    "  TUNNEL_SERVER=ws://127.0.0.1:8080 TUNNEL_TOKEN=SECRET tunnel-client files ./public\n"
    "  tunnel-client start --config tunnel.yml\n";

void client_command_line(command_line *c)
{
    *c = (command_line){
        .program = "tunnel-client",
        .usage = usage,
        .examples = examples,
        .rows = rows,
        .row_count = sizeof(rows) / sizeof(*rows),
        .commands = commands,
        .command_count = CLIENT_COMMANDS,
        .command_required = true,
        .no_command = "http, tcp, udp, tls, files, ports, start and check-config are known"};
}
