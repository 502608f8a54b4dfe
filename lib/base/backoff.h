/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_BACKOFF_H
#define TNL_BASE_BACKOFF_H

#include <stdint.h>

/*
 * Exponential backoff with full jitter: the n-th wait is uniform in [0, min(cap, base * 2^n)], but
 * at least floor.
 */
typedef struct tnl_backoff {
    uint32_t base_ms;
    uint32_t cap_ms;
    uint32_t floor_ms;
    unsigned attempt;
} tnl_backoff;

/* The next wait in ms; random: 32 uniformly random bits. */
uint32_t tnl_backoff_next(tnl_backoff *b, uint32_t random);

/* After a success. */
void tnl_backoff_reset(tnl_backoff *b);

#endif
