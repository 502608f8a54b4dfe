/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_GUEST_H
#define TNL_IO_GUEST_H

#include <stdbool.h>

#include "io/loop.h"

/* For a library that puts handles of its own on the loop: what it takes to wind that library up. */

/* The descriptor of the poll handle made last on the loop; -1: there is none. */
int tnl_guest_last_poll(tnl_loop *l);

/*
 * A callback for after the guest's handles have closed. It comes from the uv loop itself, so also
 * when tnl_loop_free() has been called by then. Does not keep the loop alive until it is retired.
 */
typedef struct tnl_guest tnl_guest;

int tnl_guest_new(tnl_guest **out, tnl_loop *l);

/*
 * Calls done(user) from the loop when the handles that are closing now have closed; again in the
 * next turns as long as it returns false. Then the guest is freed.
 */
void tnl_guest_retire(tnl_guest *g, bool (*done)(void *user), void *user);

#endif
