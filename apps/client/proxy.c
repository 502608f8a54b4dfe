/* SPDX-License-Identifier: Apache-2.0 */
#include "client/proxy.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *either(const char *lower, const char *upper)
{
    const char *value = getenv(lower);
    if (!value || !*value)
        value = getenv(upper);
    return value && *value ? value : NULL;
}

static void host_of(char *out, size_t size, const char *url)
{
    const char *p = strstr(url, "://");
    p = p ? p + 3 : url;
    size_t n = *p == '[' ? strcspn(++p, "]") : strcspn(p, ":/");
    snprintf(out, size, "%.*s", (int)n, p);
}

/* Whether the host is name, or below it. */
static bool matches(const char *host, const char *name, size_t n)
{
    size_t len = strlen(host);
    while (n && *name == '.') {
        name++;
        n--;
    }
    if (n == 1 && *name == '*')
        return true;
    if (n == 0 || len < n || strncasecmp(host + len - n, name, n) != 0)
        return false;
    return len == n || host[len - n - 1] == '.';
}

static bool excluded(const char *host)
{
    if (strcasecmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
        strcmp(host, "::1") == 0)
        return true;
    const char *list = either("no_proxy", "NO_PROXY");
    while (list && *list) {
        list += strspn(list, ", ");
        size_t n = strcspn(list, ", ");
        if (matches(host, list, n))
            return true;
        list += n;
    }
    return false;
}

const char *proxy_from_environment(const char *server_url)
{
    char host[256];
    const char *proxy = either("https_proxy", "HTTPS_PROXY");
    if (!proxy)
        proxy = either("all_proxy", "ALL_PROXY");
    host_of(host, sizeof(host), server_url);
    return proxy && !excluded(host) ? proxy : NULL;
}
