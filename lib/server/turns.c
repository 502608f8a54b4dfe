/* SPDX-License-Identifier: Apache-2.0 */
#include "server/turns.h"

static void count_one(tnl_turns *t)
{
    /* Not 0: such timers all fire within one turn. After some of this work 1 ms has long passed. */
    if (t->begun++ == 0)
        tnl_timer_start(t->timer, 1);
}

static void on_turn(void *user)
{
    tnl_turns *t = user;
    t->begun = 0;
    for (tnl_list *n; t->begun < t->at_once && (n = tnl_list_first(&t->waiting));) {
        tnl_turns_leave(t, n);
        count_one(t);
        t->begin(n);
    }
}

int tnl_turns_init(tnl_turns *t, tnl_loop *loop, unsigned at_once, size_t most,
                   void (*begin)(tnl_list *node))
{
    *t = (tnl_turns){.loop = loop, .at_once = at_once, .most = most, .begin = begin};
    tnl_list_init(&t->waiting);
    return tnl_timer_new(&t->timer, loop, on_turn, t);
}

void tnl_turns_end(tnl_turns *t)
{
    tnl_timer_free(t->timer);
}

bool tnl_turns_take(tnl_turns *t)
{
    if (t->begun >= t->at_once || !tnl_list_empty(&t->waiting))
        return false;
    count_one(t);
    return true;
}

bool tnl_turns_wait(tnl_turns *t, tnl_list *node)
{
    if (t->count >= t->most)
        return false;
    tnl_list_add_tail(&t->waiting, node);
    t->count++;
    return true;
}

void tnl_turns_leave(tnl_turns *t, tnl_list *node)
{
    if (tnl_list_empty(node))
        return;
    tnl_list_remove(node);
    t->count--;
}
