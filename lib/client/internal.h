/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CLIENT_INTERNAL_H
#define TNL_CLIENT_INTERNAL_H

#include "base/backoff.h"
#include "base/map.h"
#include "client/client.h"
#include "io/wake.h"
#include "link/attach.h"
#include "link/dial.h"
#include "link/link.h"
#include "link/session.h"
#include "transport/transport.h"

/*
 * What a client consists of, in the order in which it comes to be:
 *
 *   servers    those that may be tried, and what is known of each                       (servers.c)
 *   attempt    the one try that is under way to reach one of them                       (connect.c)
 *   relations  what came of attempts: a session each, with its link and lanes; one is
 *              the current one, others are leaving                (relation.c, lane.c, leave.c)
 *   tunnels    what is published in the current relation                                (publish.c)
 *   streams    of any relation, forwarded or held by the app      (open.c, handle.c, datagram.c)
 */
typedef enum tnl_client_state {
    TNL_CLIENT_IDLE,
    TNL_CLIENT_RUNNING,
    TNL_CLIENT_DRAINING,
    TNL_CLIENT_FAILED,
    TNL_CLIENT_CLOSED,
} tnl_client_state;

/* A server that the client may go to. */
typedef struct tnl_client_server {
    char address[TNL_URL_HOST + 32]; /* "wss://host:port", for people */
    bool worked;                     /* there was a session with it once */
    bool refused;        /* it will not have us; so until there is a session with another */
    uint64_t not_before; /* loop time: it asked to be left alone until then */
    unsigned brief;      /* sessions with it in a row that were over soon */
} tnl_client_server;

typedef enum tnl_attempt_state {
    TNL_ATTEMPT_NONE,
    TNL_ATTEMPT_WAITING, /* for its time */
    TNL_ATTEMPT_DIALING,
    TNL_ATTEMPT_HANDSHAKE,
} tnl_attempt_state;

/* The one attempt to reach a server. It begins a relation (HELLO), or brings the current one a new
 * link (ATTACH), as that has none and the server is its own. */
typedef struct tnl_attempt {
    tnl_attempt_state state;
    size_t server;
    size_t tried;       /* servers in this round, in vain */
    bool others_failed; /* the relation's own server is not the only one that is out of reach */
    tnl_timer *timer;
    tnl_backoff backoff; /* grows with every round */
    tnl_dial *dial;
    tnl_address reached; /* the other end of the connection, if no proxy is in between */
    tnl_link *link;      /* until it is a relation's, or closed */
    uint64_t joins;      /* number of the relation that the ATTACH is for; 0: it was a HELLO */
    tnl_attach attach;
} tnl_attempt;

/* A session with a server, from WELCOME until it is over and all its links are closed. */
typedef struct tnl_relation {
    tnl_list node; /* in the client's relations, the oldest first */
    struct tnl_client *client;
    uint64_t number; /* from 1, never used again */
    size_t server;
    tnl_address reached;
    tnl_session *session; /* NULL: over */
    tnl_link *link;       /* the WebSocket; NULL while it is lost */
    uint8_t session_id[TNL_ID_SIZE];
    uint8_t secret[TNL_SECRET_SIZE];
    uint64_t generation;
    uint64_t last_link; /* the last link number used */
    uint64_t began;     /* loop times */
    uint64_t live_since;
    uint64_t lost_at;
    bool goaway;      /* the server wants us to go elsewhere */
    bool final;       /* and opens no more streams */
    uint64_t busy_at; /* leaving: when there was a reason to stay */
    tnl_list flows;   /* of udp tunnels */
    tnl_list lanes;
    size_t lane_count;
    uint64_t lanes_busy_at;    /* when there were streams last */
    uint64_t lanes_not_before; /* after a failure: when the path is tried again */
    uint32_t lanes_wait_ms;
    unsigned lanes_short; /* in a row, that joined and were cut soon */
    tnl_task gone;        /* frees it when nothing of it is on the stack */
} tnl_relation;

/* One published thing, until it is unpublished or has failed for good. */
typedef struct tnl_client_tunnel {
    tnl_list node;
    uint64_t id;
    tnl_tunnel_spec spec; /* name and port: asked for; what the server chose, once it has */
    uint64_t published;   /* number of the relation in which it is; 0: in none */
    bool any;             /* whichever name or port the server likes */
    bool was_published;   /* by `home`, a server, the last time */
    size_t home;
    uint16_t public_port; /* of its URL, once it is published */
    bool loop_told;
    bool down; /* its upstream could not be reached, the last time */
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
    tnl_client_state state;
    tnl_client_server servers[TNL_CLIENT_MAX_SERVERS];
    size_t server_count;
    size_t last_good; /* the server that worked last */
    tnl_tls_client *tls;
    tnl_ws *ws;
    tnl_attempt attempt;
    tnl_list relations;
    tnl_relation *current; /* NULL: none */
    uint64_t last_relation;
    tnl_timer *lane_timer;    /* looks after idle lanes */
    tnl_timer *leave_timer;   /* looks whether who is leaving can go */
    uint64_t drain_until;     /* loop time */
    uint64_t drain_busy_at;   /* when there was a stream last */
    tnl_forwarder *forwarder; /* NULL: the client's end waits for it */
    tnl_list tunnels;
    size_t tunnel_count;
    uint64_t next_tunnel;
    tnl_list visits;
    tnl_map handles; /* streams that the app holds, by id */
    tnl_list handle_list;
    uint64_t next_handle;
    tnl_wake *wake;
    uint64_t woke_at; /* loop time */
    bool held;        /* the loop, from start until the client is freed */
    size_t users;     /* what must end before the client can be freed */
    tnl_task finish;
    tnl_client_event_cb event;
    void *event_user;
    void (*closed)(void *user);
    void *closed_user;
};

enum { TNL_STABLE_MS = 10000 }; /* a link that lasted as long ends a row of failures */

/* client.c */
/* The one place the state changes. */
void tnl_client_set_state(tnl_client *c, tnl_client_state state);
/* Whether it still wants to be connected. */
bool tnl_client_active(const tnl_client *c);
void tnl_client_tell(tnl_client *c, const tunnel_event *e);
/* Nothing can be done about it any more. server: who said so. */
void tnl_client_give_up(tnl_client *c, size_t server, int error, const char *text);
void tnl_client_maybe_closed(tnl_client *c);
void tnl_client_drop_tunnel(tnl_client *c, tnl_client_tunnel *t);
/* The machine was asleep: nothing that was true before needs to be true now. user: the client. */
void tnl_client_woke(void *user);

/* Something that belongs to the client, and that its end waits for, begins and is gone. */
void tnl_client_hold(tnl_client *c);
void tnl_client_release(tnl_client *c);

/* servers.c: which server is next, and when */
void tnl_servers_init(tnl_client *c);
/* A session is up: this is the one that works. */
void tnl_servers_worked(tnl_client *c, size_t server);
/*
 * An attempt failed, or the relation ended. Plans the next attempt, with the next server soon, or
 * after a longer wait when all have been tried; or gives up, when none is left that might take us.
 * retry_after: seconds.
 */
void tnl_servers_failed(tnl_client *c, size_t server, int error, const char *detail,
                        uint32_t retry_after);
/* A session is over, or is to be, that we would have kept. False: so were those before it, soon
 * after they began; the server is not worth another one at once. */
bool tnl_servers_over(tnl_client *c, const tnl_relation *r);
/* The current relation has lost its link. */
void tnl_servers_lost(tnl_client *c, int error, const char *detail);
/* The current relation's server wants us to go elsewhere. */
void tnl_servers_move(tnl_client *c);

/* connect.c: the attempt */
enum { TNL_CLIENT_HOST = TNL_URL_HOST + 16, TNL_CLIENT_BEARER = 4097 + 8 };
tnl_link_config tnl_client_link_config(const tnl_client *c);
tnl_dial_target tnl_client_target(const tnl_client *c, size_t server);
const char *tnl_client_host(const tnl_client *c, size_t server, char out[TNL_CLIENT_HOST]);
/* NULL without a token. To be wiped. */
const char *tnl_client_bearer(const tnl_client *c, char out[TNL_CLIENT_BEARER]);
void tnl_attempt_timer_fired(void *user);
/* Begins, with the attempt's server, after a while or now. */
void tnl_attempt_start(tnl_client *c, size_t server, uint64_t delay_ms);
void tnl_attempt_now(tnl_client *c);
/* Ends whatever is under way. */
void tnl_attempt_stop(tnl_client *c);
/* Closes a link that nobody waits for; the client's end still does. *l becomes NULL. */
void tnl_client_abandon(tnl_client *c, tnl_link **l, int code, const char *text);

/* relation.c */
extern const tnl_limits tnl_relation_limits;
/* Begins with a link that brought WELCOME, and becomes the current one. A TUNNEL_E_ code to close
 * the link with. */
int tnl_relation_begin(tnl_client *c, tnl_link *l, const tnl_welcome *w);
/* A new link brought ATTACHED. */
void tnl_relation_resume(tnl_relation *r, tnl_link *l);
/* Ends the session; r is gone a little later. */
void tnl_relation_end(tnl_relation *r, int code, const char *text);
/* Something of it is gone: frees it at the end of the turn if that was the last of it. */
void tnl_relation_maybe_gone(tnl_relation *r);
/* NULL once the session is ending. */
tnl_mux *tnl_relation_mux(const tnl_relation *r);
tnl_relation *tnl_relation_find(const tnl_client *c, uint64_t number);
/* Sends ATTACH with a fresh link number and nonce; *a is what the answer is checked against. */
int tnl_relation_send_attach(tnl_relation *r, tnl_link *l, tnl_attach *a);
/* Binds the link once the server has proved that it is the session's: nothing of it counts before.
 * A TUNNEL_E_ code to close it with. */
int tnl_relation_join(tnl_relation *r, tnl_link *l, const tnl_attach *a, const tnl_frame *f);

/* leave.c: relations that end when their streams are over, and the client that does */
/* Another relation has become the current one. */
void tnl_leave_begin(tnl_relation *r);
/* From time to time, while anybody is leaving. user: the client. */
void tnl_leave_look(void *user);

/* lane.c: further connections of a relation, which carry the streams where the path allows */
/* From time to time, while there are any: closes idle ones. user: the client. */
void tnl_lanes_look(void *user);
/* There is traffic: opens a lane if one more is of use. */
void tnl_lanes_want(tnl_relation *r);
/* The same if there are streams: those that live long, or are used again, begin only once. */
void tnl_lanes_resume(tnl_relation *r);
/* Ends attempts under way; lanes of a session end with it. */
void tnl_lanes_cancel(tnl_relation *r);
/* The link that the lanes are beside was lost: the next path may be another one. */
void tnl_lanes_forgive(tnl_relation *r);

/* publish.c */
/* What comes on the control stream, and events of the server. user: the relation. */
int tnl_client_on_control(void *user, uint8_t type, const uint8_t *p, size_t n);
void tnl_client_on_event_frame(void *user, const uint8_t *p, size_t n);
tnl_client_tunnel *tnl_client_find(tnl_client *c, uint64_t id);
void tnl_client_publish_all(tnl_client *c);
void tnl_client_send_publish(tnl_client *c, const tnl_client_tunnel *t);
/* To all relations. */
void tnl_client_send_unpublish(tnl_client *c, const tnl_client_tunnel *t);

/* handle.c */
/* A stream of a tunnel that listens. 0, or TUNNEL_E_NOMEM: then it is not taken. */
int tnl_handle_accept(tnl_client *c, const tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m);
/* Aborts all of them; they are told at the end of the turn. */
void tnl_handle_close_all(tnl_client *c);

/* open.c: a stream that the server opened goes where its tunnel says. user: the relation. */
void tnl_client_on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n);
/* Whether the upstream could be reached (error 0). People hear once that it could not, and again
 * when it worked in between. The tunnel may be gone afterwards. */
void tnl_client_tell_upstream(tnl_client *c, uint64_t tunnel, int error, const char *detail);

/* datagram.c; user: the relation */
void tnl_client_on_datagram(void *user, const tnl_datagram *d);
/* The tunnel is gone, and with it its flows, in all relations. */
void tnl_client_flows_free(tnl_client *c, uint64_t tunnel);
/* The session is gone, and with it its flows. */
void tnl_client_flows_lost(tnl_relation *r);

/* cycle.c: tunnels whose upstream is their own public address */
/* Takes note of the URL; false: it is what the tunnel forwards to. */
bool tnl_client_published_at(tnl_client_tunnel *t, tnl_str url);
/* Whether that is the address of a server that the client is connected to. */
bool tnl_client_is_server(const tnl_client *c, const char *host);
/* Whether a connection to the upstream, or a visitor, shows that it is. */
bool tnl_client_reached_itself(const tnl_client *c, const tnl_client_tunnel *t,
                               const tnl_conn *upstream);
bool tnl_client_visits_itself(const tnl_client *c, const tnl_client_tunnel *t, const tnl_open *o,
                              unsigned *hops);
/* The tunnel fails with TUNNEL_E_LOOP; t is gone. */
void tnl_client_fail_cycle(tnl_client *c, tnl_client_tunnel *t);

#endif
