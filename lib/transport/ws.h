/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_WS_H
#define TNL_TRANSPORT_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "io/guest.h"
#include "transport/answer.h"
#include "transport/bridge.h"
#include "transport/cutter.h"
#include "transport/transport.h"

/* The sub-protocol both ends of a WebSocket link name. */
#define TNL_WS_PROTOCOL "tunnel.v1"

struct lws;
struct lws_context;
struct lws_vhost;
struct lws_log_cx;
typedef struct tnl_ws_transport tnl_ws_transport;

/* The client's libwebsockets context, made when it is first needed. The server's end of a WebSocket
 * is our own (ws_server.c). */
typedef struct tnl_ws_side {
    tnl_ws *engine;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct lws_log_cx *log;
    int wake_fd; /* libwebsockets' event descriptor; -1 */
} tnl_ws_side;

struct tnl_ws {
    tnl_loop *loop;
    tnl_guest *guest;
    tnl_ws_log log;
    void *log_user;
    tnl_ws_side client;
    tnl_map
        transports; /* by id: libwebsockets keeps the id, so that a late callback finds nothing */
    uint64_t last_id;
    uint8_t *out;           /* where a batch is put together */
    uint8_t *bridge_buffer; /* shared by the bridges; NULL before the first */
    unsigned wind_up_turns;
};

typedef enum tnl_ws_state {
    TNL_WS_START,   /* not yet given to libwebsockets */
    TNL_WS_OPENING, /* handshake */
    TNL_WS_OPEN,
    TNL_WS_CLOSING, /* the close handshake, or waiting for everything to be gone */
    TNL_WS_GONE,    /* closed() is due */
} tnl_ws_state;

/* What the handshake needs; gone afterwards. */
typedef struct tnl_ws_hello {
    char *host;
    char *path;
    char *authorization;
    tnl_answer answer;
} tnl_ws_hello;

struct tnl_ws_transport {
    tnl_transport base;
    tnl_map_node node;
    tnl_ws_side *side;
    struct lws *wsi;    /* from being given to libwebsockets until it has freed it */
    tnl_bridge *bridge; /* between the connection and libwebsockets; NULL: it is gone */
    tnl_task task;      /* start, flush, end */
    tnl_timer *timer;   /* of the handshake and of closing */
    tnl_ws_hello *hello;
    tnl_cutter cutter; /* client */
    size_t message_n;  /* bytes of the message that is arriving */
    tnl_ws_state state;
    int error;
    int status;
    bool answered; /* client: a good answer came, frames follow */
    bool user_closed;
    int close_code;   /* of our close frame */
    bool last_pulled; /* closing: the last batch is with libwebsockets */
    bool muted;       /* nothing may be written any more */
    char detail[256];
};

/* --- ws_engine.c ------------------------------------------------------------------------------ */

/* Makes the side's context if there is none. */
int tnl_ws_side_open(tnl_ws_side *s);

/* --- ws.c ------------------------------------------------------------------------------------- */

/* Makes a transport in state START that owns no connection yet, but a hello. */
int tnl_ws_create(tnl_ws_transport **out, tnl_ws_side *s, const tnl_transport_events *ev,
                  void *user);
void tnl_ws_destroy(tnl_ws_transport *t);

tnl_ws_transport *tnl_ws_find(tnl_ws *w, uint64_t id);

/* Notes why it ends; the first reason counts. */
void tnl_ws_fail(tnl_ws_transport *t, int error, const char *detail);

/* Ends it at once; closed() comes when all is gone. Not from inside a libwebsockets callback. */
void tnl_ws_kill(tnl_ws_transport *t);

/*
 * What libwebsockets tells. None of them has it close the connection by its result: when
 * CLIENT_RECEIVE returns otherwise than 0 and more comes in, libwebsockets 4.3.5 writes beyond its
 * receive buffer.
 */
void tnl_ws_on_open(tnl_ws_transport *t);
void tnl_ws_on_data(tnl_ws_transport *t, const uint8_t *p, size_t n);
void tnl_ws_on_writable(tnl_ws_transport *t);
void tnl_ws_on_peer_close(tnl_ws_transport *t, const uint8_t *p, size_t n);
void tnl_ws_on_closed(tnl_ws_transport *t);
void tnl_ws_on_gone(tnl_ws_transport *t);

/* What the bridge tells. */
void tnl_ws_on_bridge_closed(void *user, int error, const char *detail);

/* --- ws_open.c -------------------------------------------------------------------------------- */

/* Gives the connection to libwebsockets; a failure kills the transport. */
void tnl_ws_start(tnl_ws_transport *t);

void tnl_ws_free_hello(tnl_ws_transport *t);

#endif
