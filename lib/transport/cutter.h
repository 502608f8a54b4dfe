/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_CUTTER_H
#define TNL_TRANSPORT_CUTTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A short cut for what a server sends: libwebsockets' client takes bytes one by one, which costs
 * five times what all the rest of receiving does. The cutter follows the frames (RFC 6455 section
 * 5.2) on their way to libwebsockets and hands over the payload of plain ones itself: final,
 * binary, unmasked, no reserved bits, at most `max` bytes. Every other frame goes on to
 * libwebsockets unchanged, so control frames, closing and the refusal of bad frames stay its
 * business. From the first frame on that is neither plain nor a proper ping or pong, all go there,
 * so that nothing can overtake what matters.
 */
typedef struct tnl_cutter_events {
    /* Whether payload may be handed over now. */
    bool (*ready)(void *user);
    /* Each returns false to stop: nothing of what is left is handled. */
    bool (*payload)(void *user, const uint8_t *p, size_t n);
    bool (*pass)(void *user, const uint8_t *p, size_t n);
} tnl_cutter_events;

typedef struct tnl_cutter {
    uint8_t head[14]; /* of the frame that begins, as far as it came */
    uint8_t head_n;
    bool direct; /* the present frame is a plain one */
    bool pass_all;
    uint64_t left; /* bytes of the present frame still to come */
} tnl_cutter;

/* Starts with all zero, at a frame's beginning. False when a callback stopped it. */
bool tnl_cutter_feed(tnl_cutter *c, const uint8_t *p, size_t n, size_t max,
                     const tnl_cutter_events *ev, void *user);

#endif
