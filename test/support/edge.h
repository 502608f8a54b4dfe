/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_EDGE_H
#define TEST_SUPPORT_EDGE_H

#include <stdbool.h>

#include "base/event.h"
#include "link/link.h"
#include "server/server.h"
#include "support/peer.h"
#include "transport/transport.h"
#include "wire/message.h"

/*
 * A server on a free port of loopback, clients whose sessions are driven by hand, and visitors that
 * are plain sockets, all on one loop. The domain is "test", the tokens are "secret" and "other".
 */
typedef struct test_edge {
    test_loop l;
    tnl_server *server; /* NULL once it is closing */
    bool server_gone;
    uint16_t port;              /* of the first listener */
    tunnel_event_type close_in; /* the server is closed inside this event; -1: never */
    unsigned events[32];        /* by type */
    int status;                 /* of the last ACCESS event, as all that follows */
    char method[24];
    char host[256];
    char path[600];
    char visitor[64];
    uint64_t bytes_in, bytes_out;
    uint64_t started_ms;
} test_edge;

typedef struct test_edge_options {
    uint32_t answer_timeout_ms; /* 0: 60 s */
    uint32_t silence_ms;        /* 0: 60 s */
    void (*begin)(void *user);  /* called when there is a loop, and nothing else yet; may be NULL */
    void (*configure)(tnl_server_config *c, void *user); /* may be NULL */
    void *user;                                          /* of both */
} test_edge_options;

int test_edge_open(test_edge *e, const test_edge_options *o);
void test_edge_close_server(test_edge *e);
/* Also closes the server, if that was not done, and waits for its end. */
void test_edge_close(test_edge *e);

/* --- a client, seen from the server: its streams are what the local service would see --------- */

enum { TEST_CALLS = 64 };

typedef struct test_service test_service;

typedef struct test_call {
    test_service *service;
    tnl_stream *stream; /* NULL once released */
    tnl_open open;
    char visitor[64], server[64]; /* its texts */
    char *text;                   /* what came, ended with a NUL */
    size_t n;
    size_t skipped; /* of it, taken away by test_call_forget() */
    bool deaf;      /* takes nothing */
    unsigned fins;
    unsigned resets;
} test_call;

struct test_service {
    test_edge *edge;
    tnl_ws *ws;
    tnl_connect *dial;
    tnl_link *link;       /* NULL once closed */
    tnl_session *session; /* NULL once closed */
    const char *authorization;
    tnl_hello hello;
    bool failed;   /* the link ended before there was a session */
    char why[300]; /* the link has ended: what was said about it */
    unsigned published;
    unsigned refused;
    int code;       /* of the last PUBLISH_FAILED */
    char text[300]; /* its message */
    char name[256]; /* of the last PUBLISHED */
    char url[300];
    uint16_t port;
    unsigned goaways[2];  /* GOAWAYs, by `final` */
    char last_event[600]; /* the last EVENT: "METHOD PATH STATUS" */
    unsigned event_count;
    void (*on_datagram)(void *user, const tnl_datagram *d); /* may be NULL */
    void *datagram_user;
    test_call calls[TEST_CALLS];
    size_t count;
};

/* Connects; the session is not there yet. instance: the first byte of its id. */
void test_service_start(test_service *s, test_edge *e, const char *token, uint8_t instance);
/* The same, and waits for the session and for a tunnel of that name (id 1). */
void test_service_open(test_service *s, test_edge *e, const char *name);
void test_service_publish(test_service *s, uint64_t id, const char *name);
void test_service_publish_as(test_service *s, const tnl_publish *m);
void test_service_unpublish(test_service *s, uint64_t id);
/* Ends the session and waits for it. */
void test_service_close(test_service *s);
bool test_service_over(const test_service *s);

/* Waits until the service has n calls and the last one holds the end of a head; returns that. */
test_call *test_service_await(test_service *s, size_t n);
void test_call_answer(test_call *c, const char *text);
void test_call_answer_bytes(test_call *c, const void *p, size_t n);
void test_call_fin(test_call *c);
void test_call_reset(test_call *c, int code, const char *text);
/* Takes what was held back. */
void test_call_listen(test_call *c);
bool test_call_has(const test_call *c, const char *text);
/* Begins anew with what came. */
void test_call_forget(test_call *c);

/* --- a visitor -------------------------------------------------------------------------------- */

typedef struct test_guest {
    test_edge *edge;
    int fd; /* -1 once closed */
    char *text;
    size_t n;
    bool slow;  /* reads nothing */
    bool ended; /* the server has ended its direction */
    bool reset;
} test_guest;

/* A TCP port of loopback that was free a moment ago. */
uint16_t test_free_port(void);
void test_guest_open(test_guest *g, test_edge *e);
/* To another port of loopback. */
void test_guest_open_at(test_guest *g, test_edge *e, uint16_t port);
/* The same with the smallest buffers in the kernel at both ends, so that a few KiB that are not
 * read fill them. */
void test_guest_open_narrow(test_guest *g, test_edge *e);
void test_guest_say(test_guest *g, const char *text);
/* Sends what the socket takes; how much. */
size_t test_guest_say_some(test_guest *g, const void *p, size_t n);
void test_guest_shutdown(test_guest *g);
void test_guest_leave(test_guest *g, bool reset);
void test_guest_free(test_guest *g);
/* Reads what there is; whether the text is in what came so far. */
bool test_guest_hears(test_guest *g, const char *text);
bool test_guest_ended(test_guest *g);
/* How often the text is in what came so far. */
size_t test_guest_counts(test_guest *g, const char *text);
void test_guest_forget(test_guest *g);

#endif
