/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * Links that join a session which exists already: after a loss, so that its streams go on.
 */

static tnl_peer *find(const tnl_peer *asking, const tnl_attach *a)
{
    tnl_map_node *n = tnl_map_get(&asking->server->sessions, a->session, sizeof(a->session));
    tnl_peer *p = n ? TNL_CONTAINER(n, tnl_peer, by_id) : NULL;
    if (!p || !p->session || !tnl_session_mux(p->session))
        return NULL;
    return strcmp(p->account, asking->account) == 0 && p->generation == a->generation ? p : NULL;
}

static int answer(const tnl_peer *owner, tnl_link *l, const tnl_attach *a)
{
    uint8_t bytes[64];
    tnl_attached m;
    int rc = tnl_attach_prove(m.mac, owner->secret, 'S', a);
    if (rc)
        return rc;
    tnl_frame f = {.type = TNL_FRAME_ATTACHED, .rest = bytes};
    f.rest_len = tnl_attached_encode(bytes, sizeof(bytes), &m);
    return f.rest_len ? tnl_link_send(l, &f) : TUNNEL_E_LIMIT;
}

static void tell(tnl_peer *owner)
{
    uint64_t now = tnl_loop_now(owner->server->loop);
    tunnel_event e = {.type = TUNNEL_EVENT_CLIENT_RESUMED,
                      .account = owner->account,
                      .text = owner->from,
                      .delay_ms = now - owner->parked_at};
    tnl_server_tell(owner->server, &e);
}

/* Whether the link may join its owner's session; nothing has changed before that. */
static int check(const tnl_peer *owner, const tnl_peer *p, const tnl_attach *a)
{
    if (!owner)
        return TUNNEL_E_GONE;
    if (!tnl_attach_verify(a->mac, owner->secret, 'C', a))
        return TUNNEL_E_AUTH_FAILED;
    if (!tnl_link_numbers_fresh(&owner->numbers, a->link))
        return TUNNEL_E_DENIED;
    return p->is_lane && owner->links > TNL_MAX_LANES ? TUNNEL_E_LIMIT : 0;
}

int tnl_peer_attach(tnl_peer *p, tnl_link *l, const uint8_t *bytes, size_t n)
{
    tnl_attach a;
    if (tnl_attach_decode(&a, bytes, n))
        return TUNNEL_E_PROTOCOL;
    tnl_peer *owner = find(p, &a);
    int rc = check(owner, p, &a);
    if (rc) {
        p->server->stats.refused_attaches++;
        return rc;
    }
    rc = answer(owner, l, &a);
    if (rc)
        return rc;
    bool was_parked = tnl_session_parked(owner->session);
    rc = tnl_link_bind(l, owner->session);
    if (rc)
        return rc;
    tnl_link_numbers_use(&owner->numbers, a.link);
    bool lane = p->is_lane;
    tnl_link *old = lane ? NULL : owner->link;
    tnl_link_set_events(l, &tnl_peer_link_events, owner);
    owner->links++;
    if (!lane) {
        owner->link = l;
        memcpy(owner->from, p->from, sizeof(owner->from));
    }
    tnl_list_remove(&p->node);
    p->server->peer_count--;
    tnl_free(p);
    /* Half open, and nothing has shown it yet: the client would not be here otherwise. */
    if (old)
        tnl_link_give_up(old);
    tnl_parked_leave(owner);
    if (was_parked)
        tell(owner);
    return 0;
}
