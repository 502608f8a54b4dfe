/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_HANGUP_H
#define TNL_IO_HANGUP_H

#include "io/loop.h"

/*
 * Notices that a TCP connection is dead which is neither read (its peer has ended its direction)
 * nor written: reset by the peer, or given up by the kernel's keepalive. libuv polls for neither.
 */
typedef struct tnl_hangup tnl_hangup;

/* died() comes at most once, with libuv's error. NULL without memory or descriptors: then nothing
 * is noticed. */
tnl_hangup *tnl_hangup_new(tnl_loop *l, int fd, void (*died)(void *user, int error), void *user);
/* Gives up its hold on the socket at once. NULL is fine. */
void tnl_hangup_free(tnl_hangup *h);

#endif
