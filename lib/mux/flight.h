/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_MUX_FLIGHT_H
#define TNL_MUX_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How many bytes a link may have unacknowledged: about twice what it carries in a round trip, so
 * that its path is kept busy while little waits in it, in front of a PING or a small stream, where
 * nothing can overtake.
 *
 * Both are measured in rounds, of at least TNL_FLIGHT_ROUND_MS. A round begins when something is
 * sent and ends when that was acknowledged, or when it takes much longer than a round trip. The
 * bytes acknowledged meanwhile, over its time or over the time in which they had been sent,
 * whichever is longer, are a sample of the rate: so a burst of ACKs does not look like a fast link.
 * The rate is the greatest sample of the last 5 to 10 seconds. A sample of a round that neither the
 * bound held back nor bytes that waited in the path can only raise it: who sends little learns
 * nothing of the path. A round that the bound held back and nothing else doubles it. The round trip
 * is the least that ACKs and PONGs showed.
 *
 * Bytes that wait make the round trip look longer, and would raise the bound, and more would wait.
 * So a round trip is believed for TNL_FLIGHT_LOOK_MS; after that, if the bound has mattered,
 * nothing is sent until all is acknowledged, and the round that begins then measures it anew.
 *
 * Times are in ms, as in the mux; a clock that was set back begins the round anew.
 */
enum {
    TNL_FLIGHT_FIRST = 64 * 1024, /* until something was measured */
    TNL_FLIGHT_LEAST = 32 * 1024, /* whatever was measured */
    TNL_FLIGHT_SLACK_MS = 50,     /* of a round trip, for ACKs that may be late by as much */
    TNL_FLIGHT_ROUND_MS = 10,
    TNL_FLIGHT_KEEP_MS = 5000,
    TNL_FLIGHT_LOOK_MS = 10000,
    TNL_FLIGHT_DRAIN_MS = 2000, /* for how long one waits for all to be acknowledged */
    TNL_FLIGHT_BURST_MS = 5, /* what is sent so soon after a round began belongs to its beginning */
    TNL_FLIGHT_MARK = 2048,  /* so much of a piece must be acknowledged */
};

typedef struct tnl_flight {
    size_t bytes; /* unacknowledged */
    size_t cap;   /* nothing more is to be sent while bytes is as much */
    size_t most;  /* cap never exceeds it */
    uint64_t sent;
    uint64_t delivered;
    uint64_t now; /* of the latest call */
    uint64_t empty_since;
    /* The round that is under way. */
    bool round;
    bool limited; /* the cap or the path held it back */
    bool timed;   /* what it began with was acknowledged, */
    bool quick;   /* about as soon as can be */
    bool fresh;   /* nothing was unacknowledged when it began, in order to measure its trip */
    uint64_t began;
    uint64_t oldest; /* what is unacknowledged was sent after that */
    uint64_t spread; /* ms in which what was unacknowledged at its beginning had been sent */
    uint64_t mark;   /* value of sent - bytes at which the round is over */
    uint64_t marked; /* when that was sent */
    uint64_t base;   /* delivered at its beginning */
    /* Bytes a second: the greatest of the last seconds, and of those before them. */
    uint64_t rate;
    uint64_t rate_before;
    uint64_t rate_since;
    uint32_t trip; /* least round trip in ms, UINT32_MAX: none known */
    uint64_t trip_at;
    bool looking;
    uint64_t looking_since;
} tnl_flight;

void tnl_flight_init(tnl_flight *f, size_t most, uint64_t now);

/* There is room for more. */
static inline bool tnl_flight_open(const tnl_flight *f)
{
    return f->bytes < f->cap;
}

/* n bytes were sent; acknowledged; or are no concern of this link any more. */
void tnl_flight_sent(tnl_flight *f, size_t n, uint64_t now);
void tnl_flight_landed(tnl_flight *f, size_t n, uint64_t now);
void tnl_flight_left(tnl_flight *f, size_t n);

/* A PONG came after so many ms. */
void tnl_flight_trip(tnl_flight *f, uint32_t ms, uint64_t now);

#endif
