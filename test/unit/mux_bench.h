/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_UNIT_MUX_BENCH_H
#define TEST_UNIT_MUX_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"
#include "mux/mux.h"
#include "support/check.h"
#include "tunnel/error.h"

/*
 * One mux on a bench: frames are put in by hand, frames that come out are kept to be looked at.
 * Every stream has a user that notes what it is told, and does what its hook says.
 */
enum { BENCH_LINKS = 3, BENCH_FRAMES = 512, BENCH_GOT = 256 * 1024, WINDOW = 16384 };

typedef struct bench bench;
typedef struct user user;

typedef enum moment {
    ON_OPEN,
    ON_DATA,
    ON_FIN,
    ON_RESET,
    ON_ROOM,
    ON_RETIRED,
    ON_CONTROL,
    ON_DATAGRAM,
} moment;

struct user {
    bench *b;
    tnl_stream *s;
    uint8_t got[BENCH_GOT];
    size_t got_len;
    size_t accept; /* bytes it still uses up */
    int fins;
    int resets;
    int rooms;
    uint32_t code;
    char text[TNL_MUX_MAX_RESET_TEXT + 1];
    void (*hook)(user *u, moment m);
};

typedef struct bench_frame {
    tnl_frame f;
    size_t link;
    uint8_t rest[64]; /* the beginning of it */
} bench_frame;

struct bench {
    tnl_mux *mux;
    tnl_mux_link *link[BENCH_LINKS];
    bool woken[BENCH_LINKS];
    uint64_t now;
    int opens;
    int retired;
    bool refuse; /* streams are not taken */
    uint8_t map[TNL_MUX_MAX_OPEN_MAP];
    size_t map_len;
    int records;
    uint8_t record_type;
    uint8_t record[TNL_MESSAGE_MAX];
    size_t record_len;
    int control_answer;
    int events;
    int datagrams;
    tnl_datagram datagram;           /* the last one, without its bytes */
    uint64_t datagram_sum;           /* of its bytes */
    uint64_t dropped;                /* datagrams, as it was told */
    user user[4];                    /* of streams that the peer opened, in order */
    void (*hook)(user *u, moment m); /* what those users are given */
    bench_frame frame[BENCH_FRAMES];
    size_t frames;
};

static inline size_t bench_on_data(void *arg, const uint8_t *p, size_t n)
{
    user *u = arg;
    size_t used = n < u->accept ? n : u->accept;
    assert_true(u->got_len + used <= BENCH_GOT);
    memcpy(u->got + u->got_len, p, used);
    u->got_len += used;
    if (u->accept != SIZE_MAX)
        u->accept -= used;
    if (u->hook)
        u->hook(u, ON_DATA);
    return used;
}

static inline void bench_on_fin(void *arg)
{
    user *u = arg;
    u->fins++;
    if (u->hook)
        u->hook(u, ON_FIN);
}

static inline void bench_on_reset(void *arg, uint32_t code, const char *text, size_t n)
{
    user *u = arg;
    assert_true(n <= TNL_MUX_MAX_RESET_TEXT);
    u->resets++;
    u->code = code;
    memcpy(u->text, text, n);
    u->text[n] = '\0';
    if (u->hook)
        u->hook(u, ON_RESET);
}

static inline void bench_on_room(void *arg)
{
    user *u = arg;
    u->rooms++;
    if (u->hook)
        u->hook(u, ON_ROOM);
}

static const tnl_stream_events bench_stream_events = {
    .data = bench_on_data, .fin = bench_on_fin, .reset = bench_on_reset, .room = bench_on_room};

static inline void user_init(user *u, bench *b)
{
    memset(u, 0, sizeof(*u));
    u->b = b;
    u->accept = SIZE_MAX;
}

static inline void bench_on_open(void *arg, tnl_stream *s, const uint8_t *map, size_t n)
{
    bench *b = arg;
    memcpy(b->map, map, n);
    b->map_len = n;
    user *u = &b->user[b->opens++ % 4];
    user_init(u, b);
    u->hook = b->hook;
    u->s = s;
    if (!b->refuse)
        tnl_stream_set_events(s, &bench_stream_events, u);
    if (u->hook)
        u->hook(u, ON_OPEN);
}

static inline int bench_on_control(void *arg, uint8_t type, const uint8_t *p, size_t n)
{
    bench *b = arg;
    b->records++;
    b->record_type = type;
    memcpy(b->record, p, n);
    b->record_len = n;
    if (b->hook)
        b->hook(&b->user[0], ON_CONTROL);
    return b->control_answer;
}

static inline void bench_on_event(void *arg, const uint8_t *map, size_t n)
{
    bench *b = arg;
    (void)map;
    (void)n;
    b->events++;
}

static inline void bench_on_datagram(void *arg, const tnl_datagram *d)
{
    bench *b = arg;
    b->datagrams++;
    b->datagram = *d;
    b->datagram.p = NULL;
    b->datagram_sum = 0;
    for (size_t i = 0; i < d->n; i++)
        b->datagram_sum = b->datagram_sum * 31 + d->p[i];
    if (b->hook)
        b->hook(&b->user[0], ON_DATAGRAM);
}

static inline void bench_on_dropped(void *arg, uint64_t count)
{
    bench *b = arg;
    b->dropped += count;
}

static inline void bench_on_wake(void *arg, void *link_user)
{
    (void)arg;
    bool *woken = link_user;
    assert_false(*woken);
    *woken = true;
}

static inline void bench_on_retired(void *arg)
{
    bench *b = arg;
    b->retired++;
    if (b->hook)
        b->hook(&b->user[0], ON_RETIRED);
}

static const tnl_mux_events bench_events = {.open = bench_on_open,
                                            .control = bench_on_control,
                                            .event = bench_on_event,
                                            .datagram = bench_on_datagram,
                                            .dropped = bench_on_dropped,
                                            .wake = bench_on_wake,
                                            .retired = bench_on_retired};

static inline tnl_mux_config bench_config(void)
{
    tnl_limits l = {.max_frame = 65536, .max_streams = 16, .window = WINDOW};
    return (tnl_mux_config){
        .server = true, .local = l, .remote = l, .max_window = 8 * WINDOW, .surplus = 1 << 20};
}

static inline void bench_link(bench *b, size_t i, size_t inflight)
{
    assert_null(b->link[i]);
    b->woken[i] = false;
    b->link[i] = tnl_mux_link_add(b->mux, inflight, false, &b->woken[i]);
    assert_non_null(b->link[i]);
    b->link[i]->flight.cap = inflight; /* as of a link that is known to be fast */
}

/* A server's end with one link; the client is the test. */
static inline bench *bench_new(const tnl_mux_config *config)
{
    tnl_mux_config usual = bench_config();
    bench *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    b->now = 1000;
    assert_int_equal(tnl_mux_new(&b->mux, config ? config : &usual, &bench_events, b), 0);
    bench_link(b, 0, 1 << 20);
    return b;
}

static inline void bench_free(bench *b)
{
    tnl_mux_free(b->mux);
    free(b);
}

static inline void bench_lose(bench *b, size_t i)
{
    tnl_mux_link *l = b->link[i];
    b->link[i] = NULL;
    tnl_mux_link_lost(b->mux, l);
}

/* --- frames in -------------------------------------------------------------------------------- */

static inline int in_on(bench *b, size_t link, uint8_t type, uint64_t stream, uint64_t offset,
                        const void *p, size_t n)
{
    /* Of their own size, so that a sanitizer sees a read past the end. */
    uint8_t *rest = malloc(n ? n : 1);
    if (n)
        memcpy(rest, p, n);
    tnl_frame f = {.type = type, .stream = stream, .offset = offset, .rest = rest, .rest_len = n};
    f.code = (uint32_t)-TUNNEL_E_REFUSED;
    int rc = tnl_mux_frame(b->mux, b->link[link], &f, b->now);
    free(rest);
    return rc;
}

static inline int in(bench *b, uint8_t type, uint64_t stream, uint64_t offset, const char *text)
{
    return in_on(b, 0, type, stream, offset, text, text ? strlen(text) : 0);
}

static inline int in_ack(bench *b, uint64_t stream, uint64_t received, uint64_t limit)
{
    tnl_frame f = {.type = TNL_FRAME_ACK, .stream = stream, .offset = received, .limit = limit};
    return tnl_mux_frame(b->mux, b->link[0], &f, b->now);
}

/* n bytes of a counting pattern from offset on. */
static inline int in_bytes(bench *b, uint64_t stream, uint64_t offset, size_t n)
{
    uint8_t *p = malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((offset + i) % 251);
    int rc = in_on(b, 0, TNL_FRAME_DATA, stream, offset, p, n);
    free(p);
    return rc;
}

static inline void assert_pattern(const user *u, size_t n)
{
    assert_int_equal(u->got_len, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(u->got[i], i % 251);
}

/* --- frames out ------------------------------------------------------------------------------- */

typedef struct bench_sink {
    bench *b;
    size_t link;
} bench_sink;

static inline int bench_take_frame(void *arg, const tnl_frame *f)
{
    bench_sink *k = arg;
    if (k->b->frames == BENCH_FRAMES)
        return 0;
    bench_frame *o = &k->b->frame[k->b->frames++];
    o->f = *f;
    o->link = k->link;
    memcpy(o->rest, f->rest, f->rest_len < sizeof(o->rest) ? f->rest_len : sizeof(o->rest));
    o->f.rest = o->rest;
    return 0;
}

/* One batch. Returns its length. */
static inline size_t batch_on(bench *b, size_t link, size_t cap)
{
    uint8_t *bytes = malloc(cap);
    size_t n = tnl_mux_pull(b->mux, b->link[link], bytes, cap, b->now);
    assert_true(n <= cap);
    if (n == 0)
        b->woken[link] = false;
    tnl_decoder d;
    bench_sink k = {b, link};
    tnl_decoder_init(&d, 65536);
    assert_int_equal(tnl_decoder_feed(&d, bytes, n, bench_take_frame, &k), 0);
    assert_int_equal(d.left, 0);
    tnl_decoder_free(&d);
    free(bytes);
    return n;
}

/* All that there is to send, as long as the link was woken. Forgets what came before. */
static inline size_t out_on(bench *b, size_t link)
{
    b->frames = 0;
    while (b->woken[link] && batch_on(b, link, 65536))
        ;
    return b->frames;
}

static inline size_t out(bench *b)
{
    return out_on(b, 0);
}

/* The nth frame of a type and stream among those that came out; NULL. */
static inline const tnl_frame *frame_nth(const bench *b, uint8_t type, uint64_t stream, size_t nth)
{
    for (size_t i = 0; i < b->frames; i++)
        if (b->frame[i].f.type == type && b->frame[i].f.stream == stream && nth-- == 0)
            return &b->frame[i].f;
    return NULL;
}

static inline const tnl_frame *frame_of(const bench *b, uint8_t type, uint64_t stream)
{
    return frame_nth(b, type, stream, 0);
}

/* The types that came out, in order: "OPEN DATA FIN". */
static inline const char *types_of(const bench *b, char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; i < b->frames; i++)
        snprintf(text + strlen(text), size - strlen(text), "%s%s", i ? " " : "",
                 tnl_frame_name(b->frame[i].f.type));
    return text;
}

#define ASSERT_TYPES(b, expected)                                                                  \
    do {                                                                                           \
        char types_[1024];                                                                         \
        assert_string_equal(types_of((b), types_, sizeof(types_)), (expected));                    \
    } while (0)

/* --- streams ---------------------------------------------------------------------------------- */

static inline void user_open(user *u, bench *b)
{
    user_init(u, b);
    assert_int_equal(
        tnl_mux_open(b->mux, &u->s, (const uint8_t *)"\x80", 1, &bench_stream_events, u), 0);
}

static inline user *user_new(bench *b)
{
    user *u = malloc(sizeof(*u));
    assert_non_null(u);
    user_open(u, b);
    return u;
}

static inline void user_free(user *u)
{
    if (u->s)
        tnl_stream_release(u->s);
    free(u);
}

static inline void user_release(user *u)
{
    tnl_stream *s = u->s;
    u->s = NULL;
    tnl_stream_release(s);
}

/* The peer fills the window, the user uses it up; returns the credit it then has. */
static inline uint64_t fill_window(bench *b, uint64_t id, uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t n = to - from < 40000 ? (size_t)(to - from) : 40000;
        assert_int_equal(in_bytes(b, id, from, n), 0);
        from += n;
    }
    out(b);
    b->user[0].got_len = 0;
    const tnl_frame *f = frame_of(b, TNL_FRAME_ACK, id);
    assert_non_null(f);
    return f->limit;
}

#endif
