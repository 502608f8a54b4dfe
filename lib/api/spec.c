/* SPDX-License-Identifier: Apache-2.0 */
#include "api/spec.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/client_config.h"
#include "files/files.h"
#include "tunnel/error.h"

/* Where the line goes. */
typedef struct line {
    char *text;
    size_t size;
} line;

__attribute__((format(printf, 3, 4))) static int refuse(line l, int code, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(l.text, l.size, format, ap);
    va_end(ap);
    return code;
}

/* What follows a prefix, or NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

/* --- what ------------------------------------------------------------------------------------- */

/* A domain of one's own, not a numeric address. */
static bool is_domain(const char *base)
{
    const char *dot = strrchr(base, '.');
    return dot && tnl_is_domain(base) && dot[1 + strspn(dot + 1, "0123456789")] != '\0';
}

static int parse_name(tnl_tunnel_spec *spec, const char *text, line l)
{
    const char *below = after(text, "*.");
    const char *base = below ? below : text;
    if (!text[0] || strcmp(text, "@") == 0 || tnl_is_label(base)) {
        snprintf(spec->name, sizeof(spec->name), "%s", text);
        return 0;
    }
    if (is_domain(base) && strlen(text) < sizeof(spec->domain)) {
        snprintf(spec->domain, sizeof(spec->domain), "%s", text);
        return 0;
    }
    return refuse(
        l, TUNNEL_E_NAME_INVALID,
        "'%.100s' is not a name to publish: give a DNS label (1 to 63 of a-z, 0-9 and '-', "
        "not first or last), '*.LABEL', '@' for the root, or a domain such as "
        "app.example.org",
        text);
}

static int parse_port(tnl_tunnel_spec *spec, const char *text, const char *what, line l)
{
    const char *digits = text[0] == ':' ? text + 1 : text;
    size_t n = strspn(digits, "0123456789");
    unsigned long port = 0;
    for (size_t i = 0; i < n && port <= 65535; i++)
        port = port * 10 + (unsigned long)(digits[i] - '0');
    if (digits[n] || (n && digits == text))
        return refuse(l, TUNNEL_E_INVALID,
                      "'%.100s' names no port of the server: give %.6s:PORT, or %.6s: for any",
                      what, what, what);
    if (port > 65535)
        return refuse(l, TUNNEL_E_INVALID,
                      "'%.100s' is not a port: give 1 to 65535, or none for one of the server's "
                      "choice",
                      digits);
    spec->port = (uint16_t)port;
    return 0;
}

static int parse_what(tnl_tunnel_spec *spec, const char *what, line l)
{
    static const char *const schemes[TNL_KIND_COUNT] = {[TNL_KIND_HTTP] = "http://",
                                                        [TNL_KIND_TLS] = "tls://",
                                                        [TNL_KIND_TCP] = "tcp://",
                                                        [TNL_KIND_UDP] = "udp://"};
    for (unsigned i = 0; i < TNL_KIND_COUNT; i++) {
        const char *rest = after(what, schemes[i]);
        if (!rest)
            continue;
        spec->kind = (tnl_kind)i;
        return i == TNL_KIND_HTTP || i == TNL_KIND_TLS ? parse_name(spec, rest, l)
                                                       : parse_port(spec, rest, what, l);
    }
    return refuse(l, TUNNEL_E_INVALID,
                  "'%.100s' is not something to publish: give http://NAME, tls://NAME, tcp://:PORT "
                  "or udp://:PORT",
                  what);
}

/* --- upstream --------------------------------------------------------------------------------- */

static int parse_ports(tnl_tunnel_spec *spec, const char *list, line l)
{
    bool one = strcmp(spec->name, "@") != 0 && spec->name[0] != '*' && spec->domain[0] != '*';
    spec->far_end = TNL_FAR_PORTS;
    if (spec->kind != TNL_KIND_HTTP && spec->kind != TNL_KIND_TLS)
        return refuse(l, TUNNEL_E_INVALID,
                      "ports behind a client have names: publish them with http://NAME or "
                      "tls://NAME, not with %s://",
                      tnl_kind_name(spec->kind));
    if (!one)
        return refuse(l, TUNNEL_E_NAME_INVALID,
                      "ports behind a client need a name of their own: a DNS label or a domain");
    int rc = tnl_ports_parse(&spec->ports, list);
    if (rc == TUNNEL_E_LIMIT)
        return refuse(l, TUNNEL_E_INVALID, "at most %d ports and ranges fit in 'ports:%.60s...'",
                      TNL_PORTS_MAX, list);
    if (rc || spec->ports.count == 0)
        return refuse(l, TUNNEL_E_INVALID,
                      "'%.100s' is not a list of ports: give one such as 22,8000-8100, of 1 to "
                      "65535",
                      list);
    return 0;
}

static int parse_address(tnl_tunnel_spec *spec, const char *text, const char *ca, line l)
{
    spec->far_end = TNL_FAR_ADDRESS;
    if (spec->kind == TNL_KIND_UDP && after(text, "unix:"))
        return refuse(l, TUNNEL_E_INVALID,
                      "udp has no unix sockets: forward it to a port or host:port");
    if (spec->kind == TNL_KIND_UDP && strstr(text, "://"))
        return refuse(l, TUNNEL_E_INVALID,
                      "'%.100s' is not an address for udp: give a port (3000) or host:port", text);
    if (spec->kind == TNL_KIND_TLS && after(text, "https://"))
        return refuse(l, TUNNEL_E_INVALID,
                      "the bytes of a tls tunnel are TLS already: forward them to host:port, not "
                      "to https://");
    return tnl_upstream_parse(&spec->upstream, text, ca, l.text, l.size);
}

static int parse_folder(tnl_tunnel_spec *spec, const char *path, line l)
{
    spec->far_end = TNL_FAR_FILES;
    if (spec->kind != TNL_KIND_HTTP)
        return refuse(l, TUNNEL_E_INVALID,
                      "a folder is served over http: publish it with http://NAME, not with %s://",
                      tnl_kind_name(spec->kind));
    if (!path[0])
        return refuse(l, TUNNEL_E_INVALID, "no folder is named: give files:/path/of/the/folder");
    return 0;
}

/* --- options ---------------------------------------------------------------------------------- */

static int check_path_id(const tnl_tunnel_spec *spec, line l)
{
    if (spec->kind != TNL_KIND_HTTP || spec->far_end == TNL_FAR_PORTS)
        return refuse(l, TUNNEL_E_INVALID,
                      "a path id goes with a http tunnel to one service: leave it out, or publish "
                      "http://");
    if (spec->name[0] || spec->domain[0])
        return refuse(l, TUNNEL_E_INVALID,
                      "a tunnel has a path id or a name, not both: leave out the id or '%.100s'",
                      spec->name[0] ? spec->name : spec->domain);
    return 0;
}

static int check_proxy_protocol(const tnl_tunnel_spec *spec, line l)
{
    if (spec->kind == TNL_KIND_UDP)
        return refuse(l, TUNNEL_E_INVALID,
                      "the PROXY protocol begins a connection, and udp has none: leave it out");
    if (spec->far_end != TNL_FAR_ADDRESS && spec->far_end != TNL_FAR_PORTS)
        return refuse(l, TUNNEL_E_INVALID,
                      "the PROXY protocol is for connections that are forwarded to an address: "
                      "leave it out");
    if (spec->upstream.tls)
        return refuse(l, TUNNEL_E_INVALID,
                      "the PROXY protocol and an upstream with https:// do not go together: leave "
                      "one of them out");
    return 0;
}

static int check_options(const tnl_tunnel_spec *spec, const tunnel_options *o, line l)
{
    int rc = 0;
    if (o->host_header[0] && (spec->kind != TNL_KIND_HTTP || spec->far_end == TNL_FAR_FILES))
        return refuse(l, TUNNEL_E_INVALID,
                      "a Host header is replaced toward a http service only: leave it out");
    if (o->upstream_ca[0] && !spec->upstream.tls)
        return refuse(l, TUNNEL_E_INVALID,
                      "a CA file for the upstream verifies a certificate, and only https:// has "
                      "one: give https://host:port, or leave it out");
    if (o->cert_file && spec->kind != TNL_KIND_TLS)
        return refuse(l, TUNNEL_E_INVALID,
                      "a certificate goes with a tls tunnel: publish tls://NAME, or leave it out");
    if (o->idle_ms && spec->kind != TNL_KIND_UDP)
        return refuse(l, TUNNEL_E_INVALID,
                      "an idle timeout goes with the flows of a udp tunnel: leave it out");
    if (o->pool[0] && spec->kind == TNL_KIND_UDP)
        return refuse(l, TUNNEL_E_INVALID,
                      "a udp port is served by one client: leave the pool out");
    if (o->path_id[0])
        rc = check_path_id(spec, l);
    if (rc == 0 && o->proxy_protocol)
        rc = check_proxy_protocol(spec, l);
    return rc;
}

static int take_options(tnl_tunnel_spec *spec, const tunnel_options *o, line l)
{
    int rc = check_options(spec, o, l);
    if (rc)
        return rc;
    snprintf(spec->host_header, sizeof(spec->host_header), "%s", o->host_header);
    snprintf(spec->path_id, sizeof(spec->path_id), "%s", o->path_id);
    spec->proxy_protocol = (unsigned)o->proxy_protocol;
    spec->idle_ms = o->idle_ms;
    snprintf(spec->pool, sizeof(spec->pool), "%s", o->pool);
    if (!o->cert_file)
        return 0;
    rc = tnl_tls_server_new_any(&spec->tls);
    return rc ? rc : tnl_tls_server_add(spec->tls, o->cert_file, o->key_file, l.text, l.size);
}

/* --- all of it -------------------------------------------------------------------------------- */

int tnl_spec_make(tnl_tunnel_spec *spec, tnl_loop *loop, const char *what, const char *upstream,
                  const tunnel_options *options, char *detail, size_t size)
{
    line l = {detail, size};
    *spec = (tnl_tunnel_spec){.far_end = TNL_FAR_LISTEN};
    int rc = parse_what(spec, what, l);
    const char *ports = upstream ? after(upstream, "ports:") : NULL;
    const char *folder = upstream ? after(upstream, "files:") : NULL;
    const char *ca = options && options->upstream_ca[0] ? options->upstream_ca : NULL;
    if (rc == 0 && ports)
        rc = parse_ports(spec, ports, l);
    else if (rc == 0 && folder)
        rc = parse_folder(spec, folder, l);
    else if (rc == 0 && upstream)
        rc = parse_address(spec, upstream, ca, l);
    if (rc == 0 && options)
        rc = take_options(spec, options, l);
    /* Last, for it needs the loop once more to go away again. */
    if (rc == 0 && folder)
        rc = tnl_files_new(&spec->files, loop, folder, detail, size);
    if (rc) {
        tnl_tunnel_spec_clear(spec);
        tnl_line_tidy(detail);
    }
    return rc;
}
