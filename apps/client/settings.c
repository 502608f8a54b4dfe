/* SPDX-License-Identifier: Apache-2.0 */
#include "client/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/proxy.h"

settings *settings_new(void)
{
    settings *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->drain_ms = 30000;
    if (tunnel_client_config_new(&s->config) || tunnel_options_new(&s->scratch)) {
        settings_free(s);
        return NULL;
    }
    return s;
}

void settings_free(settings *s)
{
    if (!s)
        return;
    for (plan *p; (p = s->plans);) {
        s->plans = p->next;
        plan_free(p);
    }
    for (size_t i = 0; i < CONNECTION_FIELDS; i++)
        text_free(s->connection[i]);
    text_clear(&s->servers);
    free(s->ca_version);
    tunnel_options_free(s->scratch);
    tunnel_client_config_free(s->config);
    free(s);
}

plan *settings_add_plan(settings *s, const char *label, tunnel_type type)
{
    plan **end = &s->plans;
    while (*end)
        end = &(*end)->next;
    s->current = *end = plan_new(label, type);
    return s->current;
}

/* All servers are reached in the same way: the environment must not want a proxy for some only. */
static const char *choose_proxy(settings *s, const char **proxy)
{
    const char *with = NULL, *without = NULL;
    *proxy = NULL;
    if (s->connection[CONNECTION_PROXY])
        return NULL;
    for (size_t i = 0; i < s->servers.count; i++) {
        const char *url = s->servers.items[i], *found = proxy_from_environment(url);
        *(found ? &with : &without) = url;
        if (found)
            *proxy = found;
    }
    if (!with || !without)
        return NULL;
    snprintf(s->line, sizeof(s->line),
             "HTTPS_PROXY is meant for %.200s, but not for %.200s: say with --proxy what is right "
             "for all servers ('' for none)",
             with, without);
    return s->line;
}

const char *settings_complete(settings *s)
{
    char version[80];
    const char *proxy;
    file_version(s->connection[CONNECTION_CA], version, sizeof(version));
    if (!text_set(&s->ca_version, version))
        return "out of memory";
    const char *error = choose_proxy(s, &proxy);
    if (error || !proxy)
        return error;
    if (tunnel_client_config_set_proxy(s->config, proxy)) {
        snprintf(s->line, sizeof(s->line), "HTTPS_PROXY: %s",
                 tunnel_client_config_error(s->config));
        return s->line;
    }
    return text_set(&s->connection[CONNECTION_PROXY], proxy) ? NULL : "out of memory";
}

bool settings_same_connection(const settings *a, const settings *b)
{
    for (size_t i = 0; i < CONNECTION_FIELDS; i++)
        if (!text_equal(a->connection[i], b->connection[i]))
            return false;
    return text_equal(a->ca_version, b->ca_version);
}

size_t settings_name_count(const settings *s)
{
    size_t count = 0;
    for (const plan *p = s->plans; p; p = p->next)
        count += p->name_count;
    return count;
}

const char *settings_server_at(const settings *s, const char *address)
{
    for (size_t i = 0; i < s->servers.count; i++) {
        char full[300];
        const char *url = s->servers.items[i], *host = strstr(url, "://");
        bool tls = strncasecmp(url, "wss:", 4) == 0 || strncasecmp(url, "https:", 6) == 0;
        host = host ? host + 3 : url;
        int n = (int)strcspn(host, "/");
        size_t name = *host == '[' ? strcspn(host, "]") : 0;
        bool port = memchr(host + name, ':', (size_t)n - name) != NULL;
        snprintf(full, sizeof(full), "%s://%.*s%s", tls ? "wss" : "ws", n, host,
                 port  ? ""
                 : tls ? ":443"
                       : ":80");
        if (strcasecmp(full, address) == 0)
            return url;
    }
    return address;
}
