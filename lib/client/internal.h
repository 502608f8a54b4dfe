/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CLIENT_INTERNAL_H
#define TNL_CLIENT_INTERNAL_H

#include "base/backoff.h"
#include "base/map.h"
#include "client/client.h"
#include "link/attach.h"
#include "link/dial.h"
#include "link/link.h"
#include "link/session.h"
#include "transport/transport.h"

typedef enum tnl_client_state {
    TNL_CLIENT_IDLE,
    TNL_CLIENT_DIALING,
    TNL_CLIENT_HANDSHAKE,
    TNL_CLIENT_LIVE,
    TNL_CLIENT_BACKOFF,
    TNL_CLIENT_FAILED,
    TNL_CLIENT_CLOSED,
} tnl_client_state;

/* One published thing, until it is unpublished or has failed for good. */
typedef struct tnl_client_tunnel {
    tnl_list node;
    uint64_t id;
    tnl_tunnel_spec spec; /* name and port: asked for; what the server chose, once it has */
    uint16_t public_port; /* of its URL, once it is published */
    bool loop_told;
    bool down;                      /* its upstream could not be reached, the last time */
    struct tnl_client_flows *flows; /* udp: NULL before the first datagram */
} tnl_client_tunnel;

/* A stream that is forwarded: what its end will tell of. */
typedef struct tnl_client_visit {
    tnl_list node;
    struct tnl_client *client;
    uint64_t tunnel;
    tnl_kind kind;
    unsigned hops;     /* connections of this client that its visitor came through */
    tnl_address local; /* the ends of its connection to the upstream, once there is one */
    tnl_address remote;
    char visitor[80]; /* escaped for printing */
} tnl_client_visit;

struct tnl_client {
    tnl_loop *loop;
    tnl_client_config config;
    char address[TNL_URL_HOST + 32]; /* "wss://host:port", for people */
    tnl_tls_client *tls;
    tnl_ws *ws;
    tnl_client_state state;
    tnl_dial *dial;
    tnl_link *link;
    tnl_session *session; /* lives on while it is parked */
    uint8_t session_id[TNL_ID_SIZE];
    uint8_t secret[TNL_SECRET_SIZE];
    uint64_t generation;
    tnl_attach attach;  /* what the link sent */
    uint64_t last_link; /* the last link number used */
    tnl_list lanes;
    size_t lane_count;
    tnl_timer *lane_timer;     /* looks after idle ones */
    uint64_t lanes_busy_at;    /* when there were streams last */
    uint64_t lanes_not_before; /* after a failure: when the path is tried again */
    uint32_t lanes_wait_ms;
    unsigned lanes_short;     /* in a row, that joined and were cut soon */
    uint64_t parked_at;       /* loop time */
    bool attaching;           /* the link's first frame was an ATTACH */
    bool anew;                /* the session is ended so that another one can begin */
    tnl_forwarder *forwarder; /* NULL: the client's end waits for it */
    tnl_timer *timer;         /* of BACKOFF */
    tnl_backoff backoff;
    uint64_t live_since;
    tnl_list tunnels;
    size_t tunnel_count;
    uint64_t next_tunnel;
    tnl_list visits;
    tnl_address reached; /* the other end of the link, if no proxy is in between */
    tnl_map handles;     /* streams that the app holds, by id */
    tnl_list handle_list;
    uint64_t next_handle;
    bool held;    /* the loop, from start until the client is freed */
    size_t users; /* what must end before the client can be freed */
    tnl_task finish;
    tnl_client_event_cb event;
    void *event_user;
    void (*closed)(void *user);
    void *closed_user;
};

/* client.c */
/* The one place the state changes. */
void tnl_client_set_state(tnl_client *c, tnl_client_state state);
void tnl_client_tell(tnl_client *c, const tunnel_event *e);
/* The attempt or the session is over: tries again after a wait, or gives up when error is final. */
void tnl_client_lost(tnl_client *c, int error, const char *detail);
void tnl_client_maybe_closed(tnl_client *c);
void tnl_client_drop_tunnel(tnl_client *c, tnl_client_tunnel *t);

/* Something that belongs to the client, and that its end waits for, begins and is gone. */
void tnl_client_hold(tnl_client *c);
void tnl_client_release(tnl_client *c);

/* lane.c: further connections, which carry the streams where the path allows */
/* From time to time, while there are any: closes idle ones. user: the client. */
void tnl_lanes_look(void *user);
/* There is traffic: opens a lane if one more is of use. */
void tnl_lanes_want(tnl_client *c);
/* The same if there are streams: those that live long, or are used again, begin only once. */
void tnl_lanes_resume(tnl_client *c);
/* Ends attempts under way; lanes of a session end with it. */
void tnl_lanes_cancel(tnl_client *c);
/* The link that the lanes are beside was lost: the next path may be another one. */
void tnl_lanes_forgive(tnl_client *c);

/* connect.c */
enum { TNL_CLIENT_HOST = TNL_URL_HOST + 16, TNL_CLIENT_BEARER = 4097 + 8 };
tnl_link_config tnl_client_link_config(const tnl_client *c);
tnl_dial_target tnl_client_target(const tnl_client *c);
const char *tnl_client_host(const tnl_client *c, char out[TNL_CLIENT_HOST]);
/* NULL without a token. To be wiped. */
const char *tnl_client_bearer(const tnl_client *c, char out[TNL_CLIENT_BEARER]);
/* Sends ATTACH with a fresh link number and nonce; *a is what the answer is checked against. */
int tnl_client_send_attach(tnl_client *c, tnl_link *l, tnl_attach *a);
/* Binds the link once the server has proved that it is the session's: nothing of it counts before.
 * A TUNNEL_E_ code to close it with. */
int tnl_client_join(tnl_client *c, tnl_link *l, const tnl_attach *a, const tnl_frame *f);
void tnl_client_connect(tnl_client *c);

/* publish.c */
extern const tnl_session_events tnl_client_session_events;
tnl_client_tunnel *tnl_client_find(tnl_client *c, uint64_t id);
void tnl_client_publish_all(tnl_client *c);
void tnl_client_send_publish(tnl_client *c, const tnl_client_tunnel *t);
void tnl_client_send_unpublish(tnl_client *c, const tnl_client_tunnel *t);

/* handle.c */
/* A stream of a tunnel that listens. 0, or TUNNEL_E_NOMEM: then it is not taken. */
int tnl_handle_accept(tnl_client *c, const tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m);
/* Aborts all of them; they are told at the end of the turn. */
void tnl_handle_close_all(tnl_client *c);

/* open.c: a stream that the server opened goes where its tunnel says. */
void tnl_client_on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n);
/* Whether the upstream could be reached (error 0). People hear once that it could not, and again
 * when it worked in between. The tunnel may be gone afterwards. */
void tnl_client_tell_upstream(tnl_client *c, uint64_t tunnel, int error, const char *detail);

/* datagram.c */
typedef struct tnl_client_flows tnl_client_flows;
void tnl_client_on_datagram(void *user, const tnl_datagram *d);
void tnl_client_flows_free(tnl_client_tunnel *t);
/* The session is gone, and with it all flows. */
void tnl_client_flows_lost(tnl_client *c);

/* cycle.c: tunnels whose upstream is their own public address */
/* Takes note of the URL; false: it is what the tunnel forwards to. */
bool tnl_client_published_at(tnl_client_tunnel *t, tnl_str url);
/* Whether a connection to the upstream, or a visitor, shows that it is. */
bool tnl_client_reached_itself(const tnl_client *c, const tnl_client_tunnel *t,
                               const tnl_conn *upstream);
bool tnl_client_visits_itself(const tnl_client *c, const tnl_client_tunnel *t, const tnl_open *o,
                              unsigned *hops);
/* The tunnel fails with TUNNEL_E_LOOP; t is gone. */
void tnl_client_fail_cycle(tnl_client *c, tnl_client_tunnel *t);

#endif
