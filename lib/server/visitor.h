/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_VISITOR_H
#define TNL_SERVER_VISITOR_H

#include "server/internal.h"

enum { TNL_LOG_PATH = 512 };

/* What is remembered of the request being answered, for events. Escaped for printing. */
typedef struct tnl_request_note {
    char method[24];
    char host[128];
    char path[TNL_LOG_PATH];
    uint64_t started_us;
    uint64_t bytes_in;
    uint64_t bytes_out;
    int status;
} tnl_request_note;

/*
 * A visitor's connection. Requests are answered one after the other; bytes read ahead wait in
 * `ahead`.
 *
 *   between requests   in_request false, up NULL
 *   reading a request  in_request true
 *   forwarding         up set: request and response overlap freely
 *   own answer         answered true: the rest of the request is dropped
 *   upgraded           up->upgraded: bytes both ways
 */
struct tnl_visitor {
    tnl_list node;
    tnl_server *server;
    tnl_conn *conn;
    tnl_http_parser *parser;
    tnl_timer *timer;
    tnl_task go_on; /* the next request, when the stack has unwound */
    tnl_up *up;
    tnl_buf ahead;
    tnl_buf
        out; /* small pieces of an answer, until the bytes at hand are parsed; the head of a link */
    tnl_address peer;
    tnl_address local; /* where he came to */
    bool tls;
    bool ready;        /* the TLS handshake is complete */
    bool closing;      /* nothing more is read or written by us */
    bool in_request;   /* a request's head is complete, its answer not */
    bool request_done; /* all of the request was read */
    bool answered;     /* the answer's head is in `out` at least */
    bool head_sent;    /* and has left it */
    bool response_done;
    bool close_after;
    bool link_taken;   /* the connection has become a client's link */
    bool is_lane;      /* and that is a lane */
    tnl_list newcomer; /* in server->newcomers: its link waits for its turn */
    bool head_request;
    bool upgrade_asked;
    bool eof_seen;      /* the visitor has ended its direction, after asking for an upgrade */
    bool trailers_sent; /* of the response */
    bool request_trailers_sent;
    bool told; /* the events about this request went out */
    bool
        retriable; /* may be sent again over a fresh stream: safe, no body, nothing came back yet */
    bool bodiless; /* the request has no body */
    bool repeatable; /* nor does it matter whether it is carried out twice */
    tnl_tried tried; /* by whom its answer was, or is, to come */
    int minor;
    uint64_t taken; /* by the visitor of what was written, at the last look */
    tnl_http_framing request_framing;
    tnl_http_framing response_framing;
    const tnl_http_head *head;      /* of the present request, valid until tnl_http_next() */
    tnl_tunnel *tunnel;             /* while the exchange is being started only */
    uint16_t target;                /* the port behind the client; 0: its tunnel has no ports */
    tnl_http_span path;             /* to send instead of the head's; NULL: that one */
    tnl_http_span prefix;           /* what was taken off it; both point into the head */
    char account[TNL_ACCOUNT_SIZE]; /* of a link */
    tnl_list awaiting;              /* in server->awaiting */
    uint64_t awaits_since;          /* its tunnel; 0: no */
    tnl_request_note note;
};

/* route.c */
/* The tunnel of the request in v->head, with v->target, v->path and v->prefix; or NULL, then it was
 * answered. */
tnl_tunnel *tnl_route(tnl_visitor *v);
/* Another member of the pool, when one has failed; NULL: none, and nothing was answered. */
tnl_tunnel *tnl_route_again(tnl_visitor *v);
/* The value of CDN-Loop that marks a request as having gone through a tunnel. */
enum { TNL_LOOP_MARK = 64 };
const char *tnl_route_mark(const tnl_tunnel *t, char out[TNL_LOOP_MARK]);

/* await.c */
/* There is no tunnel for the request in v->head: whether it waits for one, or was told that it must
 * be patient. */
bool tnl_await(tnl_visitor *v, bool by_path);
/* It was answered, or is gone. */
void tnl_await_leave(tnl_visitor *v);
/* Who waits tries again. user: the server. */
void tnl_await_look(void *user);

/* exchange.c */
/* Routes the request in v->head and starts its exchange, or answers it. */
void tnl_exchange_start(tnl_visitor *v);
/* The request is over: tells it to the client and to the access log, once. */
void tnl_exchange_tell(tnl_visitor *v);
int tnl_exchange_request_body(tnl_visitor *v, const uint8_t *p, size_t n);
int tnl_exchange_request_trailers(tnl_visitor *v, const tnl_http_field *f, size_t n);
int tnl_exchange_request_end(tnl_visitor *v);
/* Upgraded: ends the connection if both directions have ended and all was taken. */
void tnl_visitor_maybe_over(tnl_visitor *v);

/* visitor.c */
/* Answers with a page (text) and ends the request; closes afterwards unless the request was
 * complete and allows more. */
void tnl_visitor_answer(tnl_visitor *v, int status, const char *text);
void tnl_visitor_reply(tnl_visitor *v, const tnl_http_reply *given, const void *body, size_t n);
/* Writes to the visitor; a failure shows in closed(). */
void tnl_visitor_write(tnl_visitor *v, const tnl_iov *iov, size_t n);
/* The answer has begun: from here on only a visitor who takes nothing of it for very long is cut
 * off. */
void tnl_visitor_watch(tnl_visitor *v);
/* Ends the connection: politely (what was written arrives), or at once. */
void tnl_visitor_finish(tnl_visitor *v);
void tnl_visitor_abort(tnl_visitor *v);

/* reserved.c: what lives under /__tunnel__/ */
bool tnl_reserved_is(const tnl_http_head *h);
void tnl_reserved_answer(tnl_visitor *v);

uint64_t tnl_now_us(void);

#endif
