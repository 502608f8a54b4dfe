/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_TURNS_H
#define TNL_SERVER_TURNS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/list.h"
#include "io/loop.h"

/*
 * Work that comes in storms and costs the loop much: a few are begun in a turn of the loop, so that
 * live traffic gets its own, the others wait in the order of their coming, up to a number.
 */
typedef struct tnl_turns {
    tnl_loop *loop;
    tnl_timer *timer;
    tnl_list waiting;
    size_t count;     /* that wait */
    size_t most;      /* of those */
    unsigned begun;   /* in this turn */
    unsigned at_once; /* most of those */
    void (*begin)(tnl_list *node);
} tnl_turns;

/* begin(): its turn has come; the node is in no list. 0 or TUNNEL_E_NOMEM. */
int tnl_turns_init(tnl_turns *t, tnl_loop *loop, unsigned at_once, size_t most,
                   void (*begin)(tnl_list *node));
/* Nothing waits any more. */
void tnl_turns_end(tnl_turns *t);
/* Whether one more may begin at once: then it counts. */
bool tnl_turns_take(tnl_turns *t);
/* Else it waits; false: too many do. */
bool tnl_turns_wait(tnl_turns *t, tnl_list *node);
/* It has given up waiting, if it did. */
void tnl_turns_leave(tnl_turns *t, tnl_list *node);

#endif
