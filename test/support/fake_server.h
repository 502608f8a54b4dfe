/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_FAKE_SERVER_H
#define TEST_SUPPORT_FAKE_SERVER_H

#include "link/link.h"
#include "support/peer.h"
#include "tls/tls.h"
#include "wire/message.h"

/* A server for one client at a time that does as it is told: made of the link layer, over real
 * WebSockets on loopback. */
typedef struct fake_server {
    test_loop *l;
    tnl_ws *ws;
    tnl_listener *listener;
    tnl_tls_server *tls; /* NULL: plain */
    /* what to do */
    const char *answer; /* raw bytes instead of an upgrade, and then the end */
    bool mute;          /* no answer at all */
    int refuse;         /* HELLO is answered by CLOSE with this code */
    bool no_welcome;    /* HELLO is not answered */
    bool bad_welcome;
    uint32_t grace_ms; /* told in WELCOME; no session is ever attached to again */
    int publish_error; /* PUBLISH is answered with this */
    const char *publish_text;
    const char *taken; /* a name that nobody gets */
    bool ignore_publish;
    const char *chosen; /* the name for those who ask for none */
    uint16_t chosen_port;
    bool chooses; /* that name for all others, too */
    /* what is there */
    tnl_conn *conn; /* its head is being read */
    size_t head_n;
    uint8_t head[8192];
    tnl_link *link;
    tnl_session *session;
    /* what happened */
    unsigned accepted;
    unsigned hellos;
    unsigned publishes;
    unsigned unpublishes;
    unsigned session_closes;
    int session_error;
    bool force;
    uint8_t instance[TNL_ID_SIZE];
    unsigned attaches; /* refused with GONE */
    unsigned datagrams;
    uint64_t last_flow;
    char last_name[64];
    char last_host_header[256];
    uint64_t last_tunnel;
    uint8_t last_publish[2048]; /* as it came; its texts point in there */
    tnl_publish last;
} fake_server;

/* address: NULL for any free port. */
void fake_server_open(fake_server *s, test_loop *l, const char *address);
uint16_t fake_server_port(const fake_server *s);
/* Ends what the client has, at once; it goes on listening. */
void fake_server_drop(fake_server *s);
/* Ends its session with a code. */
void fake_server_end_session(fake_server *s, int code, const char *text);
void fake_server_close(fake_server *s);

void fake_server_goaway(fake_server *s, const char *text);
void fake_server_goaway_final(fake_server *s, const char *text);
void fake_server_request_event(fake_server *s, uint64_t tunnel, const char *path);
void fake_server_publish_failed(fake_server *s, uint64_t tunnel, int code, const char *text);
/* A stream for a tunnel. */
int fake_server_open_stream(fake_server *s, uint64_t tunnel, tnl_stream **out,
                            const tnl_stream_events *ev, void *user);
/* The same, for a port behind the client. */
int fake_server_open_port(fake_server *s, uint64_t tunnel, uint32_t target, tnl_stream **out,
                          const tnl_stream_events *ev, void *user);

#endif
