/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CLIENT_CLIENT_H
#define TNL_CLIENT_CLIENT_H

#include "base/event.h"
#include "base/url.h"
#include "forward/forward.h"
#include "io/loop.h"
#include "wire/message.h"

/*
 * The agent: keeps a session with a server, publishes tunnels in it and forwards their streams.
 *
 *   IDLE -> DIALING -> HANDSHAKE -> LIVE -> BACKOFF -> DIALING ...
 *                                      any -> FAILED (final) and any -> CLOSED
 */
typedef struct tnl_client tnl_client;

enum { TNL_CLIENT_MAX_TUNNELS = 64 };

/* Complete and checked; copied by tnl_client_new(). */
typedef struct tnl_client_config {
    tnl_url server; /* scheme ws or wss, port set */
    char token[4097];
    char ca_file[512]; /* "": the system's store */
    bool has_proxy;
    tnl_url proxy;
    uint8_t instance[TNL_ID_SIZE];
    bool force;
    uint32_t silence_ms;
} tnl_client_config;

typedef void (*tnl_client_event_cb)(void *user, const tunnel_event *e);

int tnl_client_new(tnl_client **out, tnl_loop *loop, const tnl_client_config *config, char *detail,
                   size_t size);
void tnl_client_on_event(tnl_client *c, tnl_client_event_cb cb, void *user);

/* Takes over the upstream's TLS context on success. name: "" any, "@", or a label. */
int tnl_client_forward(tnl_client *c, const char *name, const tnl_upstream *upstream,
                       const char *host_header, uint64_t *tunnel);
int tnl_client_unpublish(tnl_client *c, uint64_t tunnel);
int tnl_client_start(tnl_client *c);
void tnl_client_close(tnl_client *c, void (*closed)(void *user), void *user);

#endif
