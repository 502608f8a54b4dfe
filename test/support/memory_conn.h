/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_MEMORY_CONN_H
#define TEST_SUPPORT_MEMORY_CONN_H

#include "base/buf.h"
#include "io/conn.h"

/*
 * A pair of connections without sockets that hands its bytes over in pieces of a chosen size, one
 * piece a task, and can cut a direction off after a chosen number of bytes. Reads and writes of one
 * end are counted.
 */
typedef struct memory_conn {
    tnl_conn base;
    struct memory_conn *other; /* NULL once that one is closed */
    tnl_buf in;                /* on its way to this end */
    tnl_task deliver;
    tnl_task end;
    size_t piece;
    size_t
        limit; /* bytes that this end may send in all; what comes later is lost and its end shows */
    size_t sent;
    unsigned writes;
    bool reading;
    bool in_ended; /* the other end has finished its direction */
    bool shut;
    bool closing;
    int error;
} memory_conn;

void test_memory_pair(tnl_loop *l, memory_conn **a, memory_conn **b, size_t piece);

#endif
