/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "forward/forward.h"
#include "tunnel/error.h"

static int invalid(char *detail, size_t size, const char *text)
{
    snprintf(
        detail, size,
        "'%.100s' is not an address to forward to: give a port (3000), host:port, unix:/path or https://host:port",
        text);
    return TUNNEL_E_INVALID;
}

static int parse_unix(tnl_upstream *u, const char *path, char *detail, size_t size,
                      const char *text)
{
    if (path[0] != '/')
        return invalid(detail, size, text);
    if (strlen(path) >= sizeof(u->unix_path)) {
        snprintf(detail, size, "'%.100s...': a socket path has at most %zu bytes", text,
                 sizeof(u->unix_path) - 1);
        return TUNNEL_E_INVALID;
    }
    snprintf(u->unix_path, sizeof(u->unix_path), "%s", path);
    return 0;
}

int tnl_upstream_parse(tnl_upstream *u, const char *text, const char *ca_file, char *detail,
                       size_t size)
{
    char copy[TNL_URL_HOST + 32];
    tnl_url url;
    *u = (tnl_upstream){.port = 0};
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(u, text + 5, detail, size, text);
    bool bare_port = text[0] && strspn(text, "0123456789") == strlen(text);
    const char *prefix = strstr(text, "://") ? "" : bare_port ? "http://localhost:" : "http://";
    if ((size_t)snprintf(copy, sizeof(copy), "%s%s", prefix, text) >= sizeof(copy) ||
        tnl_url_parse(&url, copy))
        return invalid(detail, size, text);
    bool https = strcmp(url.scheme, "https") == 0;
    if ((!https && strcmp(url.scheme, "http") != 0) || url.userinfo[0] ||
        (url.path[0] && strcmp(url.path, "/") != 0))
        return invalid(detail, size, text);
    if (url.port == 0 && prefix[0])
        return invalid(detail, size, text);
    snprintf(u->host, sizeof(u->host), "%s", url.host);
    u->port = url.port ? url.port : https ? 443 : 80;
    if (!https)
        return 0;
    bool verify = ca_file || !tnl_host_is_loopback(u->host);
    return tnl_tls_client_new(&u->tls, ca_file, verify, detail, size);
}

void tnl_upstream_clear(tnl_upstream *u)
{
    if (u->tls)
        tnl_tls_client_unref(u->tls);
    u->tls = NULL;
}
