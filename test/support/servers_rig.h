/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_SERVERS_RIG_H
#define TEST_SUPPORT_SERVERS_RIG_H

#include "client/client.h"
#include "support/fake_server.h"

/* One client and two servers that do as they are told, A and B, and a local service that sends back
 * what it gets. */
enum { SERVERS_EVENTS = 32, A = 0, B = 1, SERVERS_PEERS = 8 };

typedef struct servers_rig {
    test_loop l;
    size_t *live;
    fake_server servers[2];
    bool down[2];
    tnl_client *client; /* NULL once closed */
    tnl_client_config config;
    tnl_upstream upstream;
    tnl_listener *service;
    test_peer up[SERVERS_PEERS];
    uint64_t tunnel;
    unsigned closes;
    unsigned count[SERVERS_EVENTS];
    int error; /* of the last event that had one */
    uint64_t delay_ms;
    uint64_t trip_us;
    char host[300]; /* of the last event that had one */
    char retried[300];
    char url[300];
    unsigned datagrams; /* that came to the app */
    uint64_t flows[4];
    tunnel_event_type leave_in; /* the event in whose callback the client is closed; 0: none */
    unsigned leave_at;          /* which one of them */
    bool drains;                /* is told to drain instead */
} servers_rig;

/* live: the test's count of blocks (support/memory.h), which is 0 again when the rig is closed. */
void servers_rig_open(servers_rig *r, size_t *live);
/* A client with the tunnel "demo"; the same, started; the same, with a session at A. */
void servers_rig_make(servers_rig *r);
void servers_rig_start(servers_rig *r);
void servers_rig_live(servers_rig *r);
/* Waits for the client's end, which happens if it has not. */
void servers_rig_close(servers_rig *r);
void servers_rig_publish(servers_rig *r, const char *name);
/* One that nobody listens for any more, and one that is there again, as new. */
void servers_rig_take_down(servers_rig *r, int i);
void servers_rig_bring_up(servers_rig *r, int i);
const char *servers_rig_address(const servers_rig *r, int i, const char *scheme, char out[64]);
void servers_rig_turns(servers_rig *r, unsigned n);
void servers_rig_wait(servers_rig *r, uint64_t ms);
/* What the client's end is to be told to; user: the rig. */
void servers_rig_closed(void *user);

/* A visitor, as a server sees him. */
typedef struct guest {
    tnl_stream *stream;
    uint64_t received;
    unsigned fins, resets;
} guest;

/* Comes to a server, and is served. */
void guest_open(guest *v, servers_rig *r, int server);
/* Says something more, and hears it. */
void guest_asks(guest *v, servers_rig *r);
void guest_leaves(guest *v, servers_rig *r);
void guest_release(guest *v);

#endif
