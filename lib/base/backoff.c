/* SPDX-License-Identifier: Apache-2.0 */
#include "base/backoff.h"

uint32_t tnl_backoff_next(tnl_backoff *b, uint32_t random)
{
    uint64_t ceiling = b->cap_ms;
    if (b->attempt < 32 && (uint64_t)b->base_ms << b->attempt < ceiling)
        ceiling = (uint64_t)b->base_ms << b->attempt;
    b->attempt++;
    uint32_t wait = (uint32_t)((ceiling + 1) * random >> 32);
    return wait > b->floor_ms ? wait : b->floor_ms;
}

void tnl_backoff_reset(tnl_backoff *b)
{
    b->attempt = 0;
}
