/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_LOOP_INTERNAL_H
#define TNL_IO_LOOP_INTERNAL_H

#include <uv.h>

#include "io/loop.h"

/* What the other sources of io/ need of a loop. */

uv_loop_t *tnl_loop_handle(tnl_loop *l);

/* A number that changes with every turn: for budgets per turn. */
uint32_t tnl_loop_turn(const tnl_loop *l);

/* Keeps the loop's memory (scratch included) for something whose end may come after
 * tnl_loop_free(). */
void tnl_loop_ref(tnl_loop *l);
void tnl_loop_unref(tnl_loop *l);

/* What the datagram sockets of the loop share (udp.c); NULL while there is none. */
typedef struct tnl_udp_batch tnl_udp_batch;
tnl_udp_batch **tnl_loop_udp(tnl_loop *l);

/* The TUNNEL_E_ code of a libuv error (0 stays 0). */
int tnl_io_error(int uv_error);

/* The usual words for it, in lower case: static text. */
const char *tnl_io_error_text(int uv_error);

#endif
