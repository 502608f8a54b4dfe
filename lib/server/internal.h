/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_INTERNAL_H
#define TNL_SERVER_INTERNAL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "http/head_write.h"
#include "http/http.h"
#include "io/conn.h"
#include "link/attach.h"
#include "link/link.h"
#include "link/session.h"
#include "server/account.h"
#include "server/claim.h"
#include "server/server.h"
#include "server/turns.h"
#include "tls/tls.h"
#include "transport/transport.h"
#include "wire/message.h"

enum {
    TNL_HEAD_TIMEOUT_MS = 15000, /* for a request head to be complete */
    TNL_BODY_TIMEOUT_MS = 60000, /* without a byte of a request's body */
    TNL_STALL_TIMEOUT_MS =
        300000,                  /* for a visitor to take anything of an answer that waits for it */
    TNL_IDLE_TIMEOUT_MS = 75000, /* a visitor's connection between two requests */
    TNL_KEEP_MS =
        3500, /* a kept upstream stream between two requests: less than the 5 s of most servers */
    TNL_LEAVE_MS = 2000,      /* for the service to end its direction after we did */
    TNL_KEEP_MAX = 256,       /* kept upstream streams of a tunnel */
    TNL_POOL_MAX = 100,       /* members of a pool */
    TNL_POOL_AWAY_MS = 60000, /* after which a member that is away leaves its pool */
    TNL_POOL_GAP_MS = 1000,   /* how long a visitor waits for one while there are others */
    TNL_MAX_TUNNELS = 64,     /* of one client */
    TNL_MAX_VISITORS = 16000, /* connections that are not links (yet) */
    TNL_MAX_CLIENTS = 16384,  /* sessions */
    TNL_MAX_JOINING = 1024,   /* links beyond that: of sessions that come back, mostly */
    TNL_MAX_LANES = 8,        /* of a session */
    TNL_MAX_PARKED = 16384,   /* sessions that wait for a link; of one account: */
    TNL_MAX_PARKED_ACCOUNT = 4096,
    TNL_MAX_PARKED_BYTES = 256 * 1024 * 1024, /* what their streams hold; of one account: */
    TNL_MAX_PARKED_BYTES_ACCOUNT = 64 * 1024 * 1024,
    TNL_RAW_WAITING = 64,      /* connections of a name whose client comes back at once */
    TNL_MAX_AWAITING = 2048,   /* visitors who wait for clients after a restart: each return of one
                                  has all of them looked at */
    TNL_GAP_MS = 5000,         /* how long a new visitor waits for a client to come back */
    TNL_PROBE_MS = 2000,       /* for the holder of a name to show that it lives */
    TNL_HANDSHAKES_TURN = 2,   /* TLS handshakes begun in a turn: each costs milliseconds */
    TNL_HANDSHAKES_MAX = 1024, /* and those that wait for their turn */
    TNL_NEWCOMERS_TURN = 8,    /* links that begin in a turn */
    TNL_NEWCOMERS_MAX = 4096,
    TNL_PIPELINE_MAX = 16 * 1024, /* bytes read ahead of the request being answered */
    TNL_HOST_MAX = 256,
    TNL_PATH_ID_MAX = 128,
};

typedef struct tnl_port tnl_port;

/* How visitors are spread over a pool. */
typedef enum tnl_balance {
    TNL_BALANCE_NONE, /* no pool: one tunnel */
    TNL_BALANCE_ROUND_ROBIN,
    TNL_BALANCE_LEAST_LOADED,
} tnl_balance;

/*
 * What visitors ask for, and who serves it: one tunnel, or a pool of them, of several clients of
 * one account. It is in the registry from its first member to its last, and its public port is open
 * as long; before that it is what one tunnel that is being published is to be called.
 */
typedef struct tnl_name {
    tnl_map_node by_key;
    tnl_server *server;
    tnl_list members; /* tunnels, in the order in which they joined */
    size_t count;
    tnl_list *turn;      /* the member that was taken last; the head: none */
    tnl_balance balance; /* as the member that joined last has said */
    bool kept;           /* stays in the registry without a member: for a moment, in a takeover */
    tnl_list of_kept;    /* in server->kept_names while a client that left comes back at once */
    uint64_t kept_until;
    tnl_list waiting; /* connections for whoever comes back (raw.c) */
    size_t waiting_count;
    tnl_kind kind;
    /* The registry's: "http:demo.localhost", "tls:*.demo.localhost", "http:p#.demo.localhost"
     * (ports behind the client), "path:ID", "tcp:20022". */
    char key[TNL_HOST_MAX + 8];
    char label[TNL_HOST_MAX];          /* as asked for, or made up; "@"; "" with a domain or port */
    char host[TNL_HOST_MAX];           /* of the key; "" without */
    char path_id[TNL_PATH_ID_MAX + 1]; /* asked for; "" none */
    char url[TNL_HOST_MAX + TNL_PATH_ID_MAX + 32];
    uint16_t port;   /* tcp, udp; 0: not chosen yet */
    bool ports;      /* names of ports behind the client */
    tnl_port *bound; /* tcp, udp: its sockets */
} tnl_name;

/* What a client has published: a member of its name as long as the client holds it. */
typedef struct tnl_tunnel {
    tnl_name *name; /* its own until it is published */
    tnl_list of_name;
    tnl_list of_peer;
    struct tnl_peer *peer;
    uint64_t id;     /* the client's */
    uint64_t number; /* the server's: each publication has its own */
    tnl_balance balance;
    char host_header[TNL_HOST_MAX];
    bool fresh;       /* each request has a stream of its own */
    uint32_t idle_ms; /* udp: of a flow */
    tnl_claim *claim; /* while it is published */
    tnl_list ups;     /* all upstream streams of requests */
    tnl_list idle;    /* those that are kept idle, the longest idle first */
    size_t idle_count;
    tnl_list raws;      /* connections whose bytes pass as they are (raw.c) */
    size_t busy;        /* streams in use: those and the ups with a visitor */
    unsigned fails;     /* in a row: its service could not be reached, or left without an answer */
    uint64_t failed_at; /* loop time */
    uint64_t passed_until; /* passed over, if there is another */
} tnl_tunnel;

/* A publication that waits for the probe of the present holders. */
typedef struct tnl_probe {
    tnl_list node;
    struct tnl_peer *peer;
    tnl_timer *timer;
    uint64_t started;
    uint64_t asked;     /* publications so far: who came later was not asked */
    tnl_tunnel *wanted; /* not yet in the registry */
} tnl_probe;

/* How far the server has come in stopping politely. */
typedef enum tnl_drain {
    TNL_DRAIN_NONE,
    TNL_DRAIN_MOVE,   /* clients are told to go elsewhere; all goes on */
    TNL_DRAIN_FINISH, /* nothing new; what is under way comes to its end */
    TNL_DRAIN_OVER,
} tnl_drain;

/* A client: its link until there is a session, its session, its tunnels. */
typedef struct tnl_peer {
    tnl_list node;
    tnl_server *server;
    tnl_link *link;       /* the newest that is no lane; NULL when it is gone */
    bool is_lane;         /* until it has joined its session */
    size_t links;         /* that have not been closed(), lanes too */
    tnl_session *session; /* lives on while it is parked */
    uint8_t id[TNL_ID_SIZE];
    uint8_t secret[TNL_SECRET_SIZE];
    uint64_t generation;
    tnl_link_numbers numbers;
    tnl_map_node by_id; /* id: while it can be attached to */
    tnl_map_node by_instance;
    bool known;         /* is in both maps */
    tnl_list of_parked; /* in server->parked while it has no link */
    uint64_t parked_at; /* loop time */
    tnl_account *owner; /* with the session */
    char from[96];
    /* The account and the instance behind it, which are a key together. */
    char account[TNL_ACCOUNT_SIZE];
    uint8_t instance[TNL_ID_SIZE];
    bool force;
    tnl_list tunnels;
    size_t tunnel_count;
    uint64_t flows; /* of udp tunnels, so far: their ids */
    tnl_list probes;
    bool left_told;
} tnl_peer;

struct tnl_server {
    tnl_loop *loop;
    tnl_server_config config;
    tnl_tls_server *tls;
    tnl_ws *ws;
    tnl_listener *listeners[TNL_SERVER_MAX_LISTEN];
    char public_scheme[8];
    char public_host[TNL_HOST_MAX];
    uint16_t public_port; /* 0: the scheme's own */
    uint16_t tls_port;    /* where visitors of tls tunnels come */
    tnl_map names;        /* by key */
    tnl_list kept_names;
    tnl_list arrivals;    /* connections of which it is not known yet whose they are */
    tnl_turns handshakes; /* of those: the first answer of our TLS */
    tnl_turns newcomers;  /* visitors that become links */
    tnl_list visitors;
    tnl_list awaiting; /* of those: their tunnel, after a restart (await.c) */
    size_t awaiting_count;
    tnl_task await_look;
    size_t visitor_count;      /* raw connections counted */
    struct tnl_forwarder *raw; /* raw.c; NULL: stopped */
    bool raw_stopping;
    tnl_list peers;
    size_t peer_count;
    tnl_map sessions;  /* peers by session id */
    tnl_map instances; /* peers by account and instance: the one that lives */
    tnl_map accounts;
    tnl_list parked; /* peers, the one that has been away for longest first */
    size_t parked_count;
    uint64_t generation;
    uint64_t publications; /* so far */
    tnl_claims claims;
    tnl_drain drain;
    tnl_timer *drain_timer;
    uint32_t drain_timeout_ms;
    tnl_task drain_look; /* whether it is over */
    char loop_id[20];    /* random: marks requests that went through this server */
    tnl_timer *sweep;    /* retires upstream streams that have been idle for too long */
    tnl_task shutdown;
    tnl_task finish;
    tnl_task revoke; /* after a reload */
    tnl_server_event_cb event;
    void *event_user;
    tnl_server_stats stats;
    bool ready;
    bool closing;
    void (*closed)(void *user);
    void *closed_user;
};

/* server.c */
void tnl_server_tell(tnl_server *s, const tunnel_event *e);
void tnl_server_maybe_closed(tnl_server *s);
void tnl_server_stop_listening(tnl_server *s);

/* drain.c */
int tnl_drain_init(tnl_server *s);
/* Something that is waited for may be over. */
void tnl_drain_changed(tnl_server *s);

/* registry.c */
/*
 * What a host name stands for: the name itself, else pPORT.NAME of one with ports (*target is the
 * port then, else 0), else the nearest wildcard above it. asked: as it came, a port and one
 * trailing dot are ignored. NULL: none.
 */
tnl_name *tnl_registry_find(tnl_server *s, tnl_kind kind, tnl_http_span asked, uint16_t *target);
/* What an id for routing by path stands for: what asked for the id, else what has that name. */
tnl_name *tnl_registry_find_path(tnl_server *s, const char *id, size_t n);
/* A Host in lower case, without the port and one trailing dot; its length, 0 when it does not fit.
 */
size_t tnl_registry_host(char out[TNL_HOST_MAX], tnl_http_span host);
/* Whether a Host is the server's domain itself. */
bool tnl_registry_is_root(const tnl_server *s, tnl_http_span asked);
/* Whether a name is the server's domain or lies under it. */
bool tnl_registry_is_own(const tnl_server *s, const char *host);
/* Whether it is the name by which clients reach the server over TLS: no tls tunnel may have it. */
bool tnl_registry_is_front(const tnl_server *s, const char *host);
/* Who has what a tunnel is to be called already: its members are of one account; or NULL. */
tnl_name *tnl_registry_holder(const tnl_tunnel *wanted);
/* Makes a tunnel of what a client asks for; not in the registry yet, and no port is open. On
 * failure a line in text: TUNNEL_E_NAME_INVALID, DENIED, UNSUPPORTED, INVALID, NOMEM, LIMIT. */
int tnl_tunnel_new(tnl_tunnel **out, tnl_peer *peer, const tnl_publish *m, char *text, size_t size);
/* Publishes it: as the last member of the name that there is already, with the port of that, or
 * under its own, whose port is open. 0, or TUNNEL_E_NOMEM in the latter case. */
int tnl_registry_add(tnl_tunnel *t);
/* Takes it out of the registry, retires its idle streams, frees it; with the last member the name
 * goes, and its port is closed. */
void tnl_tunnel_free(tnl_tunnel *t);
/* Ends a takeover: without a member the name goes after all. */
void tnl_name_release(tnl_name *n);
/* What a client has alone stays for a while when it goes: it begins anew in this very moment. */
void tnl_names_keep(struct tnl_peer *p);
/* From time to time, and at the end (now: UINT64_MAX): those that nobody came back for go. */
void tnl_names_look(tnl_server *s, uint64_t now);

/* pool.c: whom a visitor is sent to */
enum { TNL_POOL_TRIES = 4 };
/* The publications (by number) that a visitor was sent to already. All zeros: none. */
typedef struct tnl_tried {
    size_t count;
    uint64_t numbers[TNL_POOL_TRIES];
} tnl_tried;
/* The member whose turn it is, of those that were not tried; best one that is neither away nor has
 * failed of late. It is among those tried then. NULL: none is left, or enough were tried. */
tnl_tunnel *tnl_pool_pick(tnl_name *n, tnl_tried *tried);
/* Whether there is a member that was not tried and can be reached. */
bool tnl_pool_has_other(const tnl_name *n, const tnl_tried *tried);
/* The member's service could not be reached, or left without an answer: for a while the others go
 * first. */
void tnl_pool_failed(tnl_tunnel *t);
/* It has answered a request or connection that began at `since` (loop time). */
void tnl_pool_worked(tnl_tunnel *t, uint64_t since);

/* names.c: what may be published under which name */
/* Fills label, host, path_id and key of a http or tls tunnel. Errors as tnl_tunnel_new(). */
int tnl_name_tunnel(tnl_tunnel *t, const tnl_publish *m, char *text, size_t size);
void tnl_name_url(tnl_tunnel *t);

/* port.c: the public ports of tcp and udp tunnels */
/* Whether the port asked for may be had. 0, DENIED, UNSUPPORTED with a line. */
int tnl_port_check(const tnl_tunnel *t, char *text, size_t size);
/* Binds the port, or one that is free, and completes key and url. ADDR_IN_USE, ACCESS, LIMIT (none
 * is free), NOMEM, IO with a line. */
int tnl_port_open(tnl_tunnel *t, char *text, size_t size);
void tnl_port_close(tnl_name *n);
/* The host part of a listener's address, as tnl_listener_new() and tnl_udp_new() take it
 * ("127.0.0.1",
 * "[::]"); each host once, those that stand for all addresses first; false: no more. */
bool tnl_port_host(const tnl_server *s, size_t index, char out[96]);
/* Whether one before it stands for that host too: where that one is bound, "in use" is no failure.
 */
bool tnl_port_covered(const tnl_server *s, size_t index);

/* tcp.c, udp.c: open n->port on all hosts, or on none. Errors as tnl_port_open(). */
int tnl_tcp_open(tnl_name *n, char *text, size_t size);
void tnl_tcp_close(tnl_name *n);
int tnl_udp_open(tnl_name *n, char *text, size_t size);
void tnl_udp_close(tnl_name *n);
/* Ends the flows, which were of a client that leaves; the port stays open. */
void tnl_udp_forget(tnl_name *n);
/* A datagram of the client's, for the visitor of a flow. */
void tnl_udp_answer(tnl_peer *p, const tnl_datagram *d);

/* publish.c */
int tnl_publish_control(tnl_peer *p, uint8_t type, const uint8_t *bytes, size_t n);
void tnl_publish_drop_all(tnl_peer *p);
/* Members of pools whose clients were away for too long leave them. */
void tnl_publish_sweep(tnl_server *s, uint64_t now);

/* parked.c */
/* Its last link is gone. false: it may not wait. */
bool tnl_parked_add(tnl_peer *p);
/* It is back, or gone. */
void tnl_parked_leave(tnl_peer *p);
/* From time to time: ends those that hold too much. */
void tnl_parked_look(tnl_server *s);

/* peer.c */
/* Takes over the connection; head[0..n): a well-formed upgrade request and what followed it. */
void tnl_peer_accept(tnl_server *s, tnl_conn *c, const char *account, const char *from,
                     const uint8_t *head, size_t n);
/* The same for a lane: the 101 was written, early[0..n) came behind the request. */
void tnl_peer_accept_lane(tnl_server *s, tnl_conn *c, const char *account, const char *from,
                          const uint8_t *early, size_t n);
void tnl_peer_close(tnl_peer *p, int code, const char *text);
/* attach.c: a link that wants to join a session. What the link is to be closed with, or 0: then the
 * link is the session's, and p, which brought it, is gone. */
int tnl_peer_attach(tnl_peer *p, tnl_link *l, const uint8_t *bytes, size_t n);
extern const tnl_link_events tnl_peer_link_events;
/* Whether the client is away and visitors wait for it. */
bool tnl_peer_away(const tnl_peer *p);
/* A control record for the client; one that does not read them is closed. */
void tnl_peer_control(tnl_peer *p, uint8_t type, const uint8_t *bytes, size_t n);

/* visitor.c */
/* Takes over a paused connection; early[0..n), n > 0, was read from it. tls: it is terminated here.
 */
void tnl_visitor_accept(tnl_server *s, tnl_conn *c, bool tls, const uint8_t *early, size_t n);
void tnl_visitor_close(tnl_list *node);
/* Ends it politely if it is between two requests. */
void tnl_visitor_leave_idle(tnl_list *node);
/* The turn of one has come that is to become a link. */
void tnl_visitor_turn(tnl_list *node);
/* Whether it has asked for something. */
bool tnl_visitor_is_busy(const tnl_list *node);

/* upstream.c: streams to a tunnel's local service */
typedef struct tnl_visitor tnl_visitor;
typedef struct tnl_up {
    tnl_list idle;      /* in tunnel->idle */
    tnl_list of_tunnel; /* in tunnel->ups */
    tnl_tunnel *tunnel; /* NULL when the tunnel is gone */
    tnl_stream *stream;
    tnl_http_parser *parser;
    tnl_visitor *visitor;
    uint64_t idle_since;
    uint64_t gap_since; /* its visitor came while the client was away; 0: no */
    uint32_t keep_ms;
    uint16_t target; /* the port behind the client */
    unsigned uses;
    bool got_bytes; /* of the present response */
    bool untouched; /* it was reset, and nothing of the request has reached a service */
    bool no_reuse;
    bool leaving; /* our direction is ended; the service's end is awaited */
    bool
        ended; /* the present response is complete; upgraded: the service has ended its direction */
    bool upgraded;  /* a 101 came: bytes only from here on */
    unsigned depth; /* the parser is on the stack */
    bool dead;      /* free it when the stack has unwound */
} tnl_up;

/* An idle stream of the tunnel to that port behind its client (0: there is but one service), or
 * NULL. */
tnl_up *tnl_up_take(tnl_tunnel *t, uint16_t target);
/* A new stream; of o all but the tunnel is set. TUNNEL_E_GONE (no session), LIMIT, NOMEM. */
int tnl_up_open(tnl_up **out, tnl_tunnel *t, const tnl_open *o);
/* After a complete response: kept if that may be, else ended, politely if the
 * request was complete too. */
void tnl_up_give_back(tnl_up *u, bool request_done);
/* Releases the stream (resets it if it is not over) and frees. */
void tnl_up_drop(tnl_up *u);
/* After a 101: the visitor's connection broke. What it had said goes to the service first, for a
 * while (TNL_LEAVE_MS). */
void tnl_up_break(tnl_up *u, int error, const char *text);
/* From time to time, of all that a client has published. */
void tnl_up_sweep(tnl_peer *p, uint64_t now);
/* Binds it to a visitor, or to none (NULL). */
void tnl_up_bind(tnl_up *u, tnl_visitor *v);

/* exchange.c: what the stream tells the visitor it is bound to. In each of these the visitor may
 * abort, which drops the up: only inside the parser's callbacks does it stay valid, without a
 * visitor. */
int tnl_visitor_on_head(tnl_visitor *v, const tnl_http_head *h);
int tnl_visitor_on_body(tnl_visitor *v, const uint8_t *p, size_t n);
int tnl_visitor_on_trailers(tnl_visitor *v, const tnl_http_field *f, size_t n);
void tnl_visitor_on_end(tnl_visitor *v);
/* After bytes of the stream were parsed: what is still in hand goes out. */
void tnl_visitor_flush(tnl_visitor *v);
bool tnl_visitor_blocked(const tnl_visitor *v);
void tnl_visitor_on_room(tnl_visitor *v);
/* The stream ended too early or the response is malformed; the up is dropped by the callee. gone:
 * the client itself. */
void tnl_visitor_on_failure(tnl_visitor *v, int status, const char *why);
/* After a 101: bytes for the visitor, and the upstream's end of its direction. */
size_t tnl_visitor_tunnel_data(tnl_visitor *v, const uint8_t *p, size_t n);
void tnl_visitor_tunnel_fin(tnl_visitor *v);

#endif
