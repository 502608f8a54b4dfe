/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_INTERNAL_H
#define TNL_FORWARD_INTERNAL_H

#include "forward/forward.h"
#include "io/loop.h"

enum { TNL_FORWARD_CONNECT_MS = 10000 };

/*
 * What all that a forwarder owns have in common, pumps and splices: the options, the account of how
 * it went, and the end.
 */
typedef struct tnl_forward_member {
    tnl_list node; /* alone until it is added */
    tnl_forwarder *owner;
    const tnl_forward_events *events; /* NULL: none */
    void *user;
    uint8_t *head; /* NULL: none, or written */
    size_t head_n;
    bool patient;
    uint64_t started_us;
    uint64_t to_conn;
    uint64_t to_stream;
    int error; /* the first thing that went wrong */
    char *why; /* of error; NULL: its usual text */
    void (*end)(struct tnl_forward_member *m);
} tnl_forward_member;

struct tnl_forwarder {
    tnl_loop *loop;
    tnl_list members;
    size_t count;
    bool freed;
    tnl_task ending;
    void (*gone)(void *user);
    void *gone_user;
};

/* Fills *m (zeroed). end: ends it at once, with TUNNEL_E_GONE. 0, TUNNEL_E_NOMEM, INVALID: nothing
 * is to be discarded then. */
int tnl_forward_member_init(tnl_forward_member *m, tnl_forwarder *f, const tnl_forward_options *o,
                            void (*end)(tnl_forward_member *m));
/* Frees what it holds; it was not added. */
void tnl_forward_member_discard(tnl_forward_member *m);
void tnl_forward_member_add(tnl_forward_member *m);
/* Writes the head, if there is one still. A failure shows in closed(). */
void tnl_forward_member_begin(tnl_forward_member *m, tnl_conn *c);
/* What connected() says; 0 without. */
int tnl_forward_member_connected(const tnl_forward_member *m, int error, const char *detail,
                                 tnl_conn *c);
/* Keeps the first error. */
void tnl_forward_member_note(tnl_forward_member *m, int error, const char *text, size_t n);
/* It is over: leaves its owner, tells it, frees what it holds. */
void tnl_forward_member_over(tnl_forward_member *m);

#endif
