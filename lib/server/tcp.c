/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "server/raw.h"
#include "tunnel/error.h"

/* The listeners of a tcp port. */
typedef struct tcp_port {
    size_t count;
    tnl_listener *listeners[TNL_SERVER_MAX_LISTEN];
} tcp_port;

static tcp_port *of(const tnl_name *n)
{
    return (tcp_port *)(void *)n->bound;
}

static void on_accept(void *user, tnl_conn *c)
{
    tnl_name *n = user;
    tnl_server *s = n->server;
    s->stats.visitors++;
    if (s->closing || s->visitor_count >= TNL_MAX_VISITORS)
        tnl_conn_reset(c);
    else
        (void)tnl_raw_accept(n, c, NULL, 0, 0, NULL);
}

static int explain(int error, uint16_t port, char *text, size_t size)
{
    if (error == TUNNEL_E_ADDR_IN_USE)
        snprintf(text, size, "the port %u is in use on the server by another program", port);
    else if (error == TUNNEL_E_ACCESS)
        snprintf(text, size, "the server lacks the right to open the port %u", port);
    else
        snprintf(text, size, "the server cannot open the port %u: %s", port,
                 tunnel_strerror(error));
    return error;
}

int tnl_tcp_open(tnl_name *n, char *text, size_t size)
{
    char host[96], address[112];
    const tnl_server *s = n->server;
    int rc = 0;
    tcp_port *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return explain(TUNNEL_E_NOMEM, n->port, text, size);
    n->bound = (tnl_port *)(void *)p;
    for (size_t i = 0; rc == 0 && tnl_port_host(s, i, host); i++) {
        snprintf(address, sizeof(address), "%s:%u", host, n->port);
        rc = tnl_listener_new(&p->listeners[p->count], s->loop, address, on_accept, n, NULL, 0);
        if (rc == 0)
            p->count++;
        else if (rc == TUNNEL_E_ADDR_IN_USE && tnl_port_covered(s, i))
            rc = 0;
    }
    if (rc == 0)
        return 0;
    tnl_tcp_close(n);
    return explain(rc, n->port, text, size);
}

void tnl_tcp_close(tnl_name *n)
{
    tcp_port *p = of(n);
    n->bound = NULL;
    for (size_t i = 0; p && i < p->count; i++)
        tnl_listener_free(p->listeners[i]);
    tnl_free(p);
}
