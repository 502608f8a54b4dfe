/* SPDX-License-Identifier: Apache-2.0 */
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * Sessions whose client is away, and what they may cost: over the budget a new one is refused; with
 * many accounts the one that has been away for longest goes.
 */

static tnl_peer *oldest(const tnl_server *s)
{
    tnl_list *n = tnl_list_first(&s->parked);
    return n ? TNL_CONTAINER(n, tnl_peer, of_parked) : NULL;
}

void tnl_parked_leave(tnl_peer *p)
{
    if (tnl_list_empty(&p->of_parked))
        return;
    tnl_list_remove(&p->of_parked);
    p->server->parked_count--;
    if (--p->owner->parked == 0)
        p->owner->parked_bytes = 0;
}

bool tnl_parked_add(tnl_peer *p)
{
    tnl_server *s = p->server;
    if (p->owner->parked >= TNL_MAX_PARKED_ACCOUNT ||
        p->owner->parked_bytes >= TNL_MAX_PARKED_BYTES_ACCOUNT)
        return false;
    if (s->parked_count >= TNL_MAX_PARKED)
        tnl_peer_close(oldest(s), TUNNEL_E_LIMIT, "too many clients are away");
    p->parked_at = tnl_loop_now(s->loop);
    tnl_list_add_tail(&s->parked, &p->of_parked);
    s->parked_count++;
    p->owner->parked++;
    return true;
}

static size_t bytes_of(const tnl_peer *p)
{
    const tnl_mux *m = p->session ? tnl_session_mux(p->session) : NULL;
    return m ? tnl_mux_held(m) : 0;
}

void tnl_parked_look(tnl_server *s)
{
    size_t total = 0;
    for (tnl_list *n = s->parked.next; n != &s->parked; n = n->next)
        TNL_CONTAINER(n, tnl_peer, of_parked)->owner->parked_bytes = 0;
    /* The newest first: those that came first over the budget have been away for longer. */
    for (tnl_list *n = s->parked.prev, *prev; n != &s->parked; n = prev) {
        tnl_peer *p = TNL_CONTAINER(n, tnl_peer, of_parked);
        size_t bytes = bytes_of(p);
        prev = n->prev;
        total += bytes;
        p->owner->parked_bytes += bytes;
        if (bytes && (total > TNL_MAX_PARKED_BYTES ||
                      p->owner->parked_bytes > TNL_MAX_PARKED_BYTES_ACCOUNT)) {
            total -= bytes;
            p->owner->parked_bytes -= bytes;
            tnl_peer_close(p, TUNNEL_E_LIMIT, "what waits for clients that are away is too much");
        }
    }
}
