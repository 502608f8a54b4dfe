/* SPDX-License-Identifier: Apache-2.0 */
#include "server/internal.h"

/*
 * Whom a visitor is sent to. A member that cannot do its work is not known by asking it, but by
 * what becomes of visitors: who failed is passed over for a while, and then tried again.
 */

enum { PASS_LEAST_MS = 2000, PASS_MOST_MS = 30000 };

/* How gladly a member is taken: the less, the better. */
typedef enum rank { READY, HAS_FAILED, AWAY, OVER, TRIED } rank;

static rank rank_of(const tnl_tunnel *t, const tnl_tried *tried, uint64_t now)
{
    for (size_t i = 0; i < tried->count; i++)
        if (tried->numbers[i] == t->number)
            return TRIED;
    if (!t->peer->session || !tnl_session_mux(t->peer->session))
        return OVER;
    if (tnl_peer_away(t->peer))
        return AWAY;
    return t->fails && now < t->passed_until ? HAS_FAILED : READY;
}

tnl_tunnel *tnl_pool_pick(tnl_name *n, tnl_tried *tried)
{
    uint64_t now = tnl_loop_now(n->server->loop);
    tnl_tunnel *best = NULL;
    rank best_rank = TRIED;
    if (tried->count == TNL_POOL_TRIES)
        return NULL;
    tnl_list *node = n->turn;
    for (size_t i = 0; i < n->count; i++) {
        node = node->next == &n->members ? n->members.next : node->next;
        tnl_tunnel *t = TNL_CONTAINER(node, tnl_tunnel, of_name);
        rank r = rank_of(t, tried, now);
        bool less = best && r == best_rank && r != TRIED &&
                    n->balance == TNL_BALANCE_LEAST_LOADED && t->busy < best->busy;
        if (r < best_rank || less) {
            best = t;
            best_rank = r;
        }
    }
    if (best) {
        n->turn = &best->of_name;
        tried->numbers[tried->count++] = best->number;
    }
    return best;
}

bool tnl_pool_has_other(const tnl_name *n, const tnl_tried *tried)
{
    uint64_t now = tnl_loop_now(n->server->loop);
    if (tried->count == TNL_POOL_TRIES)
        return false;
    for (tnl_list *node = n->members.next; node != &n->members; node = node->next)
        if (rank_of(TNL_CONTAINER(node, tnl_tunnel, of_name), tried, now) < AWAY)
            return true;
    return false;
}

void tnl_pool_failed(tnl_tunnel *t)
{
    uint64_t now = tnl_loop_now(t->name->server->loop);
    t->failed_at = now;
    if (t->fails && now < t->passed_until)
        return; /* others of the same moment */
    uint64_t ms = (uint64_t)PASS_LEAST_MS << (t->fails < 4 ? t->fails : 4);
    t->passed_until = now + (ms < PASS_MOST_MS ? ms : PASS_MOST_MS);
    t->fails++;
}

void tnl_pool_worked(tnl_tunnel *t, uint64_t since)
{
    if (since >= t->failed_at)
        t->fails = 0;
}
