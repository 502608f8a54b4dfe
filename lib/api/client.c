/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/client.h"

#include <stdio.h>
#include <string.h>

#include "api/client_config.h"
#include "api/loop.h"
#include "api/spec.h"
#include "base/mem.h"
#include "client/client.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

enum { LINE = TNL_CLIENT_CONFIG_LINE };

/* The handle is the client itself; the type is opaque to the outside. */
static tnl_client *inner(tunnel_client *client)
{
    return (tnl_client *)(void *)client;
}

int tunnel_client_new(tunnel_client **out, tunnel_loop *loop, const tunnel_client_config *config,
                      char *detail, size_t detail_size)
{
    char ignored[LINE];
    tnl_client *client = NULL;
    tnl_client_config *c = NULL;
    *out = NULL;
    if (!detail) {
        detail = ignored;
        detail_size = sizeof(ignored);
    }
    detail[0] = '\0';
    int rc = tnl_client_config_check(config, detail, detail_size);
    if (rc)
        return rc;
    c = tnl_malloc(sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    *c = config->c;
    rc = config->has_instance ? 0 : tnl_random(c->instance, sizeof(c->instance));
    if (rc == 0)
        rc = tnl_client_new(&client, loop->loop, c, detail, detail_size);
    tnl_wipe(c, sizeof(*c));
    tnl_free(c);
    if (rc && !detail[0])
        snprintf(detail, detail_size, "%s", tunnel_strerror(rc));
    *out = (tunnel_client *)(void *)client;
    return rc;
}

void tunnel_client_on_event(tunnel_client *client,
                            void (*event)(void *user, const tunnel_event *event), void *user)
{
    tnl_client_on_event(inner(client), event, user);
}

/* What both verbs do: `upstream`, or (NULL) the callbacks of `far`. */
static int publish(tunnel_client *client, const char *what, const char *upstream,
                   const tnl_tunnel_spec *far, const tunnel_options *options, uint64_t *tunnel,
                   char *detail, size_t size)
{
    char ignored[LINE];
    tnl_tunnel_spec spec;
    if (!detail) {
        detail = ignored;
        size = sizeof(ignored);
    }
    detail[0] = '\0';
    int rc = tnl_spec_make(&spec, tnl_client_loop(inner(client)), what, upstream, options, detail,
                           size);
    bool udp = rc == 0 && spec.kind == TNL_KIND_UDP;
    if (rc == 0 && !upstream && !(udp ? far->datagram != NULL : far->visitor != NULL)) {
        tnl_tunnel_spec_clear(&spec);
        snprintf(detail, size, "%s",
                 far->visitor ? "udp has no streams: listen to its datagrams"
                 : far->datagram
                     ? "only udp has datagrams: listen to streams, or publish udp://:PORT"
                     : "nobody would take the visitors: give a callback");
        return TUNNEL_E_INVALID;
    }
    if (rc == 0) {
        spec.visitor = far->visitor;
        spec.datagram = far->datagram;
        spec.user = far->user;
        rc = tnl_client_publish(inner(client), &spec, tunnel);
        if (rc)
            tnl_tunnel_spec_clear(&spec);
    }
    if (rc && !detail[0])
        snprintf(detail, size, "%s",
                 rc == TUNNEL_E_LIMIT ? "a client may publish 64 tunnels" : tunnel_strerror(rc));
    return rc;
}

int tunnel_client_forward(tunnel_client *client, const char *what, const char *upstream,
                          const tunnel_options *options, uint64_t *tunnel, char *detail,
                          size_t detail_size)
{
    tnl_tunnel_spec none = {.user = NULL};
    return publish(client, what, upstream, &none, options, tunnel, detail, detail_size);
}

int tunnel_client_listen(tunnel_client *client, const char *what, const tunnel_options *options,
                         void (*visitor)(void *user, uint64_t stream), void *user, uint64_t *tunnel,
                         char *detail, size_t detail_size)
{
    tnl_tunnel_spec far = {.visitor = visitor, .user = user};
    return publish(client, what, NULL, &far, options, tunnel, detail, detail_size);
}

int tunnel_client_listen_datagrams(tunnel_client *client, const char *what,
                                   const tunnel_options *options,
                                   void (*datagram)(void *user, uint64_t tunnel, uint64_t flow,
                                                    const void *p, size_t n),
                                   void *user, uint64_t *tunnel, char *detail, size_t detail_size)
{
    tnl_tunnel_spec far = {.datagram = datagram, .user = user};
    return publish(client, what, NULL, &far, options, tunnel, detail, detail_size);
}

int tunnel_client_unpublish(tunnel_client *client, uint64_t tunnel)
{
    return tnl_client_unpublish(inner(client), tunnel);
}

int tunnel_client_start(tunnel_client *client)
{
    return tnl_client_start(inner(client));
}

void tunnel_client_drain(tunnel_client *client, uint32_t timeout_ms, void (*closed)(void *user),
                         void *user)
{
    if (client)
        tnl_client_drain(inner(client), timeout_ms, closed, user);
}

void tunnel_client_close(tunnel_client *client, void (*closed)(void *user), void *user)
{
    if (client)
        tnl_client_close(inner(client), closed, user);
}
