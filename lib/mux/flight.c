/* SPDX-License-Identifier: Apache-2.0 */
#include "mux/flight.h"

enum { MOST_TRIP = 60000 };

void tnl_flight_init(tnl_flight *f, size_t most, uint64_t now)
{
    *f = (tnl_flight){.most = most,
                      .cap = most < TNL_FLIGHT_FIRST ? most : TNL_FLIGHT_FIRST,
                      .now = now,
                      .empty_since = now,
                      .rate_since = now,
                      .trip = UINT32_MAX,
                      .trip_at = now};
}

/* Times of a clock that was set back mean nothing any more. */
static void set_now(tnl_flight *f, uint64_t now)
{
    if (now < f->now) {
        f->round = false;
        f->empty_since = f->began = f->oldest = now;
        f->rate_since = f->trip_at = f->looking_since = now;
    }
    f->now = now;
}

static uint64_t trip_with_slack(const tnl_flight *f)
{
    return (f->trip == UINT32_MAX ? 0 : f->trip) + (uint64_t)TNL_FLIGHT_SLACK_MS;
}

static void set_cap(tnl_flight *f)
{
    uint64_t rate = f->rate > f->rate_before ? f->rate : f->rate_before;
    uint64_t cap = rate > UINT32_MAX ? f->most : 2 * rate * trip_with_slack(f) / 1000;
    if (f->looking)
        return;
    if (cap < TNL_FLIGHT_LEAST)
        cap = TNL_FLIGHT_LEAST;
    /* Nothing waits in the path, and yet there could be more: that is not its rate. */
    if (f->limited && f->quick && cap < 2 * (uint64_t)f->cap)
        cap = 2 * (uint64_t)f->cap;
    if (!f->limited && cap < f->cap)
        return;
    f->cap = cap < f->most ? (size_t)cap : f->most;
}

/* --- the round trip --------------------------------------------------------------------------- */

static void set_trip(tnl_flight *f, uint64_t ms, bool sure)
{
    if (!sure && ms > f->trip)
        return;
    f->trip = ms < MOST_TRIP ? (uint32_t)ms : MOST_TRIP;
    f->trip_at = f->now;
}

void tnl_flight_trip(tnl_flight *f, uint32_t ms, uint64_t now)
{
    set_now(f, now);
    set_trip(f, ms, f->bytes == 0);
}

static void stop_looking(tnl_flight *f)
{
    f->looking = false;
    set_cap(f);
}

static void maybe_look(tnl_flight *f)
{
    if (f->looking || !f->limited || f->cap == f->most || f->now - f->trip_at < TNL_FLIGHT_LOOK_MS)
        return;
    f->looking = true;
    f->looking_since = f->now;
    f->cap = 1;
}

/* --- rounds ----------------------------------------------------------------------------------- */

static void begin_round(tnl_flight *f)
{
    f->round = true;
    f->limited = f->timed = f->quick = false;
    f->fresh = f->looking && f->bytes == 0;
    if (f->bytes == 0)
        f->oldest = f->now;
    f->spread = f->now - f->oldest;
    f->began = f->now;
    f->base = f->delivered;
    if (f->fresh)
        stop_looking(f);
}

void tnl_flight_sent(tnl_flight *f, size_t n, uint64_t now)
{
    set_now(f, now);
    bool first = !f->round || (f->bytes == 0 && now - f->empty_since > TNL_FLIGHT_ROUND_MS);
    if (first)
        begin_round(f);
    if (first || (!f->fresh && !f->timed && now - f->began <= TNL_FLIGHT_BURST_MS)) {
        f->mark = f->sent + (n < TNL_FLIGHT_MARK ? n : TNL_FLIGHT_MARK);
        f->marked = now;
    }
    f->sent += n;
    f->bytes += n;
    if (!tnl_flight_open(f))
        f->limited = true;
}

/* The first bytes of the round have come back. */
static void time_round(tnl_flight *f)
{
    uint64_t ms = f->now - f->marked;
    f->timed = true;
    /* Bytes that found nothing in front of them say nothing of how much there may be. */
    f->quick = !f->fresh && f->trip != UINT32_MAX && ms <= f->trip + TNL_FLIGHT_SLACK_MS / 2;
    set_trip(f, ms, f->fresh);
    /* They had to wait: so the rate is the path's, whatever else held the sender back. */
    if (ms > 2 * trip_with_slack(f))
        f->limited = true;
}

static void take_sample(tnl_flight *f, uint64_t rate)
{
    if (f->limited && f->now - f->rate_since >= TNL_FLIGHT_KEEP_MS) {
        f->rate_before = f->rate;
        f->rate = 0;
        f->rate_since = f->now;
    }
    if (rate > f->rate)
        f->rate = rate;
}

static void end_round(tnl_flight *f, uint64_t ms)
{
    take_sample(f, (f->delivered - f->base) * 1000 / ms);
    f->round = false;
    set_cap(f);
    maybe_look(f);
}

static void maybe_end_round(tnl_flight *f)
{
    uint64_t ms = f->now - f->began;
    bool over = f->sent - f->bytes >= f->mark;
    if (over && !f->timed)
        time_round(f);
    if (over && ms >= TNL_FLIGHT_ROUND_MS) {
        f->oldest = f->began;
        end_round(f, ms > f->spread ? ms : f->spread);
    } else if (ms > 4 * trip_with_slack(f)) {
        f->limited = true;
        end_round(f, ms);
    }
}

void tnl_flight_landed(tnl_flight *f, size_t n, uint64_t now)
{
    if (n == 0)
        return;
    set_now(f, now);
    f->bytes -= n;
    f->delivered += n;
    if (f->bytes == 0)
        f->empty_since = now;
    if (f->looking && now - f->looking_since >= TNL_FLIGHT_DRAIN_MS) {
        f->trip_at = now;
        stop_looking(f);
    }
    if (f->round)
        maybe_end_round(f);
}

void tnl_flight_left(tnl_flight *f, size_t n)
{
    if (n == 0)
        return;
    f->bytes -= n;
    f->round = false;
    if (f->bytes == 0)
        f->empty_since = f->now;
}
