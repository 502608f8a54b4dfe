/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/stream.h"

#include <stdio.h>
#include <string.h>

#include "client/handle.h"
#include "tunnel/error.h"

static tnl_handle *find(tunnel_client *client, uint64_t stream)
{
    return tnl_handle_find((tnl_client *)(void *)client, stream);
}

int tunnel_stream_on_data(tunnel_client *client, uint64_t stream,
                          size_t (*data)(void *user, uint64_t stream, const void *p, size_t n),
                          void *user)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_on_data(h, data, user);
    return 0;
}

int tunnel_stream_on_end(tunnel_client *client, uint64_t stream,
                         void (*end)(void *user, uint64_t stream), void *user)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_on_end(h, end, user);
    return 0;
}

int tunnel_stream_on_room(tunnel_client *client, uint64_t stream,
                          void (*room)(void *user, uint64_t stream), void *user)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_on_room(h, room, user);
    return 0;
}

int tunnel_stream_on_closed(tunnel_client *client, uint64_t stream,
                            void (*closed)(void *user, uint64_t stream, int error,
                                           const char *text),
                            void *user)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_on_closed(h, closed, user);
    return 0;
}

int64_t tunnel_stream_write(tunnel_client *client, uint64_t stream, const void *p, size_t n)
{
    tnl_handle *h = find(client, stream);
    return h ? tnl_handle_write(h, p, n) : TUNNEL_E_NOT_FOUND;
}

int64_t tunnel_stream_room(tunnel_client *client, uint64_t stream)
{
    tnl_handle *h = find(client, stream);
    return h ? (int64_t)tnl_handle_room(h) : TUNNEL_E_NOT_FOUND;
}

int tunnel_stream_end(tunnel_client *client, uint64_t stream)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_end(h);
    return 0;
}

int tunnel_stream_reset(tunnel_client *client, uint64_t stream, int error, const char *text)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_reset(h, error, text);
    return 0;
}

int tunnel_stream_resume(tunnel_client *client, uint64_t stream)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    tnl_handle_resume(h);
    return 0;
}

int tunnel_stream_visitor(tunnel_client *client, uint64_t stream, char *host, size_t host_size,
                          uint16_t *port)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    const char *text = tnl_handle_visitor(h, port);
    int n = snprintf(host, host_size, "%s", text);
    return n < 0 || (size_t)n >= host_size ? TUNNEL_E_LIMIT : 0;
}

int tunnel_stream_tunnel(tunnel_client *client, uint64_t stream, uint64_t *tunnel)
{
    tnl_handle *h = find(client, stream);
    if (!h)
        return TUNNEL_E_NOT_FOUND;
    *tunnel = tnl_handle_tunnel(h);
    return 0;
}

int tunnel_datagram_send(tunnel_client *client, uint64_t tunnel, uint64_t flow, const void *p,
                         size_t n)
{
    return tnl_client_datagram_send((tnl_client *)(void *)client, tunnel, flow, p, n);
}

int tunnel_datagram_visitor(tunnel_client *client, uint64_t tunnel, uint64_t flow, char *host,
                            size_t host_size, uint16_t *port)
{
    tnl_address visitor;
    int rc = tnl_client_datagram_visitor((tnl_client *)(void *)client, tunnel, flow, &visitor);
    if (rc)
        return rc;
    if (port)
        *port = visitor.port;
    int n = snprintf(host, host_size, "%s", visitor.host);
    return n < 0 || (size_t)n >= host_size ? TUNNEL_E_LIMIT : 0;
}
