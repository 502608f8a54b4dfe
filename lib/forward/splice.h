/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_SPLICE_H
#define TNL_FORWARD_SPLICE_H

#include "forward/forward.h"
#include "tls/tls.h"

/*
 * Streams whose TLS ends here: what the visitor's TLS carries is pumped to an address, with
 * backpressure both ways. A close_notify is passed on as the end of that direction, and the
 * upstream's end as close_notify; any other end of the one side breaks the other.
 */

/*
 * As tnl_forward_start(). The upstream is connected to when the handshake is done; connected() does
 * not come when that fails, over() tells TUNNEL_E_TLS then. The bytes that are counted are those
 * within TLS. peer: the visitor's address, or NULL. tls is used as long as the stream lives
 * (reference counted). 0, TUNNEL_E_NOMEM, INVALID: then the stream is refused, and no event comes.
 */
int tnl_forward_tls(tnl_forwarder *f, tnl_stream *s, tnl_tls_server *tls, const tnl_address *peer,
                    const tnl_upstream *u, const tnl_forward_options *o);

#endif
