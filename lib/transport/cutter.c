/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/cutter.h"

enum {
    BINARY_FINAL = 0x82,
    PING = 0x89,
    PONG = 0x8a,
    MASKED = 0x80,
    LENGTH = 0x7f,
    MAX_CONTROL = 125,
};

/* How long the head is, by what came of it; 2 is the least. */
static size_t head_size(const tnl_cutter *c)
{
    size_t n = 2;
    if (c->head_n < 2)
        return n;
    if ((c->head[1] & LENGTH) == 126)
        n += 2;
    else if ((c->head[1] & LENGTH) == 127)
        n += 8;
    return c->head[1] & MASKED ? n + 4 : n;
}

static uint64_t payload_size(const tnl_cutter *c)
{
    unsigned length = c->head[1] & LENGTH;
    size_t size = length == 126 ? 2 : length == 127 ? 8 : 0;
    uint64_t n = size ? 0 : length;
    for (size_t i = 0; i < size; i++)
        n = n << 8 | c->head[2 + i];
    return n;
}

/* The head is complete: where does its frame go? */
static bool begin(tnl_cutter *c, size_t max, const tnl_cutter_events *ev, void *user)
{
    size_t size = c->head_n;
    c->left = payload_size(c);
    c->head_n = 0;
    c->direct = c->head[0] == BINARY_FINAL && !(c->head[1] & MASKED) && c->left <= max &&
                !c->pass_all && ev->ready(user);
    if (c->direct)
        return true;
    bool harmless = (c->head[0] == PING || c->head[0] == PONG) && c->head[1] <= MAX_CONTROL;
    if (!harmless)
        c->pass_all = true;
    return ev->pass(user, c->head, size);
}

bool tnl_cutter_feed(tnl_cutter *c, const uint8_t *p, size_t n, size_t max,
                     const tnl_cutter_events *ev, void *user)
{
    while (n) {
        if (c->pass_all && c->left == 0 && c->head_n == 0)
            return ev->pass(user, p, n);
        if (c->left == 0) {
            c->head[c->head_n++] = *p++;
            n--;
            if (c->head_n >= 2 && c->head_n == head_size(c) && !begin(c, max, ev, user))
                return false;
            continue;
        }
        size_t take = c->left < n ? (size_t)c->left : n;
        if (!(c->direct ? ev->payload : ev->pass)(user, p, take))
            return false;
        p += take;
        n -= take;
        c->left -= take;
    }
    return true;
}
