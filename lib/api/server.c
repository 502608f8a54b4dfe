/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/server.h"

#include <stdio.h>
#include <string.h>

#include "api/loop.h"
#include "api/server_config.h"
#include "auth/token.h"
#include "tunnel/error.h"

enum { LINE = 512 };

static tnl_server *inner(tunnel_server *server)
{
    return (tnl_server *)(void *)server;
}

int tunnel_server_new(tunnel_server **out, tunnel_loop *loop, const tunnel_server_config *config,
                      char *detail, size_t detail_size)
{
    char ignored[LINE];
    tnl_server *server = NULL;
    tnl_server_config *c = NULL;
    *out = NULL;
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    int rc = tnl_server_config_make(&c, config, detail, detail_size);
    if (rc == 0)
        rc = tnl_server_new(&server, loop->loop, c, detail, detail_size);
    tnl_server_config_drop(c, rc != 0);
    if (rc && !detail[0])
        snprintf(detail, detail_size, "%s", tunnel_strerror(rc));
    *out = (tunnel_server *)(void *)server;
    return rc;
}

int tunnel_server_reload(tunnel_server *server, const tunnel_server_config *config, char *detail,
                         size_t detail_size)
{
    char ignored[LINE];
    tnl_server_config *c = NULL;
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    int rc = tnl_server_config_make(&c, config, detail, detail_size);
    if (rc == 0)
        rc = tnl_server_reload(inner(server), c, detail, detail_size);
    tnl_server_config_drop(c, rc && rc != TUNNEL_E_STATE);
    if (rc && !detail[0])
        snprintf(detail, detail_size, "%s", tunnel_strerror(rc));
    return rc;
}

void tunnel_server_on_event(tunnel_server *server,
                            void (*event)(void *user, const tunnel_event *event), void *user)
{
    tnl_server_on_event(inner(server), event, user);
}

int tunnel_server_start(tunnel_server *server, char *detail, size_t detail_size)
{
    char ignored[LINE];
    return tnl_server_start(inner(server), detail ? detail : ignored,
                            detail ? detail_size : sizeof(ignored));
}

int tunnel_server_reload_certificates(tunnel_server *server, char *detail, size_t detail_size)
{
    char ignored[LINE];
    return tnl_server_reload_certificates(inner(server), detail ? detail : ignored,
                                          detail ? detail_size : sizeof(ignored));
}

uint64_t tunnel_server_counter(const tunnel_server *server, tunnel_counter which)
{
    const tnl_server_stats *s = tnl_server_get_stats((const tnl_server *)(const void *)server);
    switch (which) {
    case TUNNEL_COUNTER_VISITORS:
        return s->visitors;
    case TUNNEL_COUNTER_BAD_HANDSHAKES:
        return s->bad_handshakes;
    case TUNNEL_COUNTER_REQUESTS:
        return s->requests;
    case TUNNEL_COUNTER_BAD_REQUESTS:
        return s->bad_requests;
    case TUNNEL_COUNTER_REFUSED_LINKS:
        return s->refused_links;
    case TUNNEL_COUNTER_BROKEN_LINKS:
        return s->broken_links;
    case TUNNEL_COUNTER_SESSIONS:
        return s->sessions;
    case TUNNEL_COUNTER_CONNECTIONS:
        return s->connections;
    case TUNNEL_COUNTER_FLOWS:
        return s->flows;
    case TUNNEL_COUNTER_DATAGRAMS_DROPPED:
        return s->datagrams_dropped;
    case TUNNEL_COUNTER_REFUSED_ATTACHES:
        return s->refused_attaches;
    case TUNNEL_COUNTER_RETRIED:
        return s->retried;
    }
    return 0;
}

void tunnel_server_drain(tunnel_server *server, uint32_t delay_ms, uint32_t timeout_ms,
                         void (*closed)(void *user), void *user)
{
    if (server)
        tnl_server_drain(inner(server), delay_ms, timeout_ms, closed, user);
}

void tunnel_server_close(tunnel_server *server, void (*closed)(void *user), void *user)
{
    if (server)
        tnl_server_close(inner(server), closed, user);
}
