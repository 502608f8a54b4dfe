/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_WAKE_H
#define TNL_IO_WAKE_H

#include "io/loop.h"

/*
 * Tells that the machine was asleep, or that somebody has set its clock: time has passed that no
 * timer of the loop knows of, and connections may have died of it. Costs nothing meanwhile: the
 * kernel wakes a descriptor (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). It does not keep the loop
 * alive.
 */
typedef struct tnl_wake tnl_wake;

/* NULL without memory or descriptors, or where the kernel cannot tell: then nothing is noticed. */
tnl_wake *tnl_wake_new(tnl_loop *l, void (*woke)(void *user), void *user);
/* NULL is fine; also from inside woke(). */
void tnl_wake_free(tnl_wake *w);

#endif
