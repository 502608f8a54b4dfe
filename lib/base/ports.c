/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tunnel/error.h"

/* A number of 1 to 65535 at *text, which moves behind it; 0: there is none. */
static unsigned take_port(const char **text)
{
    unsigned port = 0;
    size_t n = strspn(*text, "0123456789");
    if (n == 0 || n > 5)
        return 0;
    for (size_t i = 0; i < n; i++)
        port = port * 10 + (unsigned)((*text)[i] - '0');
    *text += n;
    return port <= 65535 ? port : 0;
}

static int by_first(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* Makes one of ranges that touch. */
static void merge(tnl_ports *p)
{
    size_t kept = 0;
    qsort(p->ranges, p->count, sizeof(p->ranges[0]), by_first);
    for (size_t i = 1; i < p->count; i++) {
        if (p->ranges[i].first <= (uint32_t)p->ranges[kept].last + 1) {
            if (p->ranges[i].last > p->ranges[kept].last)
                p->ranges[kept].last = p->ranges[i].last;
        } else {
            p->ranges[++kept] = p->ranges[i];
        }
    }
    p->count = p->count ? kept + 1 : 0;
}

int tnl_ports_parse(tnl_ports *p, const char *text)
{
    *p = (tnl_ports){.count = 0};
    if (strcmp(text, "none") == 0)
        return 0;
    for (;;) {
        if (p->count == TNL_PORTS_MAX)
            return TUNNEL_E_LIMIT;
        unsigned first = take_port(&text), last = first;
        if (*text == '-') {
            text++;
            last = take_port(&text);
        }
        if (!first || last < first || (*text && *text != ','))
            return TUNNEL_E_INVALID;
        p->ranges[p->count].first = (uint16_t)first;
        p->ranges[p->count].last = (uint16_t)last;
        p->count++;
        if (!*text)
            break;
        text++;
    }
    merge(p);
    return 0;
}

bool tnl_ports_has(const tnl_ports *p, uint32_t port)
{
    for (size_t i = 0; i < p->count; i++)
        if (port >= p->ranges[i].first && port <= p->ranges[i].last)
            return true;
    return false;
}

size_t tnl_ports_total(const tnl_ports *p)
{
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++)
        total += (size_t)(p->ranges[i].last - p->ranges[i].first) + 1;
    return total;
}

uint16_t tnl_ports_at(const tnl_ports *p, size_t index)
{
    for (size_t i = 0; i < p->count; i++) {
        size_t n = (size_t)(p->ranges[i].last - p->ranges[i].first) + 1;
        if (index < n)
            return (uint16_t)(p->ranges[i].first + index);
        index -= n;
    }
    return 0;
}

const char *tnl_ports_print(const tnl_ports *p, char *out, size_t size)
{
    size_t n = 0;
    snprintf(out, size, "none");
    for (size_t i = 0; i < p->count && n < size; i++) {
        unsigned first = p->ranges[i].first, last = p->ranges[i].last;
        const char *comma = i ? "," : "";
        n += (size_t)(first == last ? snprintf(out + n, size - n, "%s%u", comma, first)
                                    : snprintf(out + n, size - n, "%s%u-%u", comma, first, last));
    }
    return out;
}
