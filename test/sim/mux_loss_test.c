/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One conversation of two ends, the same every time, with the link lost after each of its bytes in
 * turn, in each direction. Nothing of it may be missing, come twice or be left over, whether the
 * session waits for another link or has one already, which brings the later bytes first.
 *
 * SIM_STRIDE=N  bytes between the cuts of a long conversation (default: 61)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"
#include "support/check.h"
#include "support/memory.h"
#include "tunnel/error.h"

enum {
    ENDS = 2,
    WIRES = 2,
    QUEUE = 256 * 1024,
    MOST_GOT = 48 * 1024,
    MOST_ROUNDS = 400,
    RECORDS = 3,
    BULK_STRIDE = 61, /* between the cuts of what is too long to be cut at each byte */
};

/* What becomes of a stream, in the order of their conversations. */
typedef enum kind {
    TALK,    /* each end says something and ends */
    RESET,   /* the end it was opened to resets it when something has come */
    BREAK,   /* its opener breaks off behind what it said */
    REFUSED, /* nobody takes it */
    LEFT,    /* its opener releases it at once */
    BULK,    /* more than a window */
    KINDS,
} kind;

/* How the link is lost. */
typedef enum loss {
    PARKED,    /* it is the only one; another comes when both ends have noticed */
    ANOTHER,   /* there is a second one that goes on */
    OVERTAKEN, /* the same, and what is on its way in the first comes when the second has brought
                  what came later */
    LOSSES,
} loss;

typedef struct side {
    struct world *w;
    int end;
    kind kind;
    bool opener;
    tnl_stream *stream;
    uint64_t got;
    uint64_t said;
    int fins;
    int resets;
    uint32_t code;
    char text[8];
    bool over;
} side;

typedef struct wire {
    bool up;
    tnl_mux_link *link[ENDS];
    bool woken[ENDS];
    tnl_decoder decoder[ENDS];
    uint8_t queue[ENDS][QUEUE]; /* on its way to that end */
    size_t head[ENDS], tail[ENDS];
} wire;

typedef struct world {
    kind first, last; /* of the conversation */
    loss loss;
    int cut_to;      /* the end whose bytes are counted */
    uint64_t cut_at; /* so many reach it */
    uint64_t passed;
    bool cut;
    bool held; /* what is on the first wire waits */
    uint64_t now;
    tnl_mux *mux[ENDS];
    side side[KINDS][ENDS];
    int records[ENDS];
    int datagrams[ENDS];
    int events[ENDS];
    wire wire[WIRES]; /* the last: too large to be cleared each time */
} world;

static world the_world;

static const uint64_t amounts[KINDS][ENDS] = {
    /* the opener's, the other's */
    [TALK] = {300, 200}, [RESET] = {150, 70}, [BREAK] = {120, 0},
    [REFUSED] = {20, 0}, [LEFT] = {30, 0},    [BULK] = {40000, 20000},
};

static void failed(const world *w, const char *condition, int line)
{
    print_error("mux_loss_test.c:%d: %s\nstreams %d to %d, loss %d, after %" PRIu64
                " bytes to end %d\n",
                line, condition, w->first, w->last, w->loss, w->cut_at, w->cut_to);
    fail();
}

#define CHECK(w, condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            failed((w), #condition, __LINE__);                                                     \
    } while (0)

static uint8_t pattern(const side *from, uint64_t offset)
{
    return (uint8_t)(offset * 31 + offset / 251 + (uint64_t)from->kind * 7 + (uint64_t)from->end);
}

static side *other(const side *s)
{
    return &s->w->side[s->kind][!s->end];
}

/* --- streams ---------------------------------------------------------------------------------- */

static void say(side *s)
{
    uint64_t all = amounts[s->kind][!s->opener];
    while (s->stream && s->said < all) {
        uint8_t bytes[512];
        size_t n = all - s->said < sizeof(bytes) ? (size_t)(all - s->said) : sizeof(bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = pattern(s, s->said + i);
        size_t done = tnl_stream_write(s->stream, bytes, n);
        s->said += done;
        if (done < n) {
            tnl_stream_want_room(s->stream);
            return;
        }
    }
    if (s->stream && (s->kind == TALK || s->kind == BULK))
        tnl_stream_fin(s->stream);
}

static void let_go(side *s)
{
    tnl_stream *stream = s->stream;
    s->stream = NULL;
    s->over = true;
    if (stream)
        tnl_stream_release(stream);
}

static size_t on_data(void *user, const uint8_t *p, size_t n)
{
    side *s = user;
    for (size_t i = 0; i < n; i++)
        CHECK(s->w, p[i] == pattern(other(s), s->got + i));
    s->got += n;
    CHECK(s->w, s->stream && s->got <= other(s)->said && !s->fins && !s->resets);
    if (s->kind == RESET && !s->opener && s->got >= 100) {
        tnl_stream_reset(s->stream, TUNNEL_E_REFUSED, "why");
        let_go(s);
    }
    return n;
}

static void on_fin(void *user)
{
    side *s = user;
    s->fins++;
    CHECK(s->w, s->got == other(s)->said);
}

static void on_reset(void *user, uint32_t code, const char *text, size_t n)
{
    side *s = user;
    s->resets++;
    s->code = code;
    CHECK(s->w, n < sizeof(s->text));
    memcpy(s->text, text, n);
    let_go(s);
}

static void on_room(void *user)
{
    say(user);
}

static const tnl_stream_events stream_events = {
    .data = on_data, .fin = on_fin, .reset = on_reset, .room = on_room};

/* --- the session ------------------------------------------------------------------------------ */

typedef struct end_user {
    world *w;
    int end;
} end_user;

static void on_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    const end_user *u = user;
    world *w = u->w;
    CHECK(w, n == 1 && map[0] < KINDS);
    side *s = &w->side[map[0]][u->end];
    CHECK(w, !s->opener && !s->stream && !s->over);
    if (s->kind == REFUSED) {
        s->over = true;
        return;
    }
    s->stream = stream;
    tnl_stream_set_events(stream, &stream_events, s);
    say(s);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    const end_user *u = user;
    CHECK(u->w, type == u->w->records[u->end] && n == 3 && memcmp(p, "abc", 3) == 0);
    u->w->records[u->end]++;
    return 0;
}

static void on_event(void *user, const uint8_t *map, size_t n)
{
    const end_user *u = user;
    CHECK(u->w, n == 5 && memcmp(map, "event", 5) == 0);
    u->w->events[u->end]++;
}

static void on_datagram(void *user, const tnl_datagram *d)
{
    const end_user *u = user;
    CHECK(u->w, d->tunnel == 1 && d->flow == 9 && d->n == 8 && memcmp(d->p, "datagram", 8) == 0);
    u->w->datagrams[u->end]++;
}

static void on_wake(void *user, void *link_user)
{
    (void)user;
    *(bool *)link_user = true;
}

static const tnl_mux_events mux_events = {.open = on_open,
                                          .control = on_control,
                                          .event = on_event,
                                          .datagram = on_datagram,
                                          .wake = on_wake};

/* --- wires ------------------------------------------------------------------------------------ */

static void wire_add(world *w, wire *x)
{
    x->up = true;
    for (int end = 0; end < ENDS; end++) {
        x->woken[end] = false;
        x->head[end] = x->tail[end] = 0;
        tnl_decoder_init(&x->decoder[end], 65536);
        x->link[end] = tnl_mux_link_add(w->mux[end], TNL_MUX_MAX_FLIGHT, false, &x->woken[end]);
        CHECK(w, x->link[end]);
    }
}

static void wire_leave(world *w, wire *x, int end)
{
    tnl_mux_link *l = x->link[end];
    x->link[end] = NULL;
    tnl_decoder_free(&x->decoder[end]);
    if (l)
        tnl_mux_link_lost(w->mux[end], l);
}

typedef struct feeding {
    world *w;
    wire *x;
    int end;
} feeding;

static int on_frame(void *user, const tnl_frame *f)
{
    const feeding *d = user;
    int rc = tnl_mux_frame(d->w->mux[d->end], d->x->link[d->end], f, d->w->now);
    CHECK(d->w, rc == 0);
    return rc;
}

static bool deliver(world *w, wire *x, int end)
{
    size_t n = x->tail[end] - x->head[end];
    bool counted = x == &w->wire[0] && end == w->cut_to && !w->cut;
    if (counted && n > w->cut_at - w->passed)
        n = (size_t)(w->cut_at - w->passed);
    if (!x->link[end] || n == 0)
        return false;
    feeding d = {w, x, end};
    CHECK(w,
          tnl_decoder_feed(&x->decoder[end], x->queue[end] + x->head[end], n, on_frame, &d) == 0);
    x->head[end] += n;
    if (counted)
        w->passed += n;
    return true;
}

static bool pull(world *w, wire *x, int end)
{
    static uint8_t lost[4096];
    bool any = false;
    while (x->link[end] && x->woken[end]) {
        /* What an end sends that has not noticed is gone. */
        uint8_t *to = x->up ? x->queue[!end] + x->tail[!end] : lost;
        CHECK(w, !x->up || QUEUE - x->tail[!end] >= sizeof(lost));
        size_t n = tnl_mux_pull(w->mux[end], x->link[end], to, sizeof(lost), w->now);
        x->woken[end] = n > 0;
        x->tail[!end] += x->up ? n : 0;
        any = any || n;
    }
    return any;
}

/* Lets happen what can; false: nothing has. */
static bool turn(world *w)
{
    bool any = false;
    w->now += 20;
    for (int end = 0; end < ENDS; end++)
        tnl_mux_tick(w->mux[end], w->now);
    for (size_t i = 0; i < WIRES; i++)
        for (int end = 0; end < ENDS; end++)
            any = pull(w, &w->wire[i], end) || any;
    for (size_t i = 0; i < WIRES; i++)
        for (int end = 0; end < ENDS && !(i == 0 && w->held); end++)
            any = deliver(w, &w->wire[i], end) || any;
    return any;
}

/* Until nothing more comes for longer than an acknowledgement may wait. */
static void settle(world *w)
{
    int quiet = 0;
    for (int i = 0; quiet < 4; i++) {
        CHECK(w, i < MOST_ROUNDS);
        quiet = turn(w) ? 0 : quiet + 1;
        if (w->passed == w->cut_at && !w->cut)
            return;
    }
}

/* --- losing it -------------------------------------------------------------------------------- */

/* One end after the other notices; which of them is first takes turns. */
static void lose(world *w)
{
    wire *x = &w->wire[0];
    int first = (int)((w->cut_at + (uint64_t)w->cut_to) % ENDS);
    w->cut = true;
    if (w->loss == OVERTAKEN) {
        /* One end leaves it and sends all again over the other link; then what it had sent before
         * that comes, and then the other end notices. */
        w->held = true;
        x->up = false;
        wire_leave(w, x, first);
        settle(w);
        w->held = false;
        settle(w);
        wire_leave(w, x, !first);
        settle(w);
        return;
    }
    x->up = false;
    x->head[0] = x->tail[0] = x->head[1] = x->tail[1] = 0;
    wire_leave(w, x, first);
    settle(w);
    wire_leave(w, x, !first);
    settle(w);
    if (w->loss == PARKED)
        wire_add(w, &w->wire[1]);
}

/* --- the conversation ------------------------------------------------------------------------- */

static void open_stream(world *w, kind k)
{
    int end = (int)k % ENDS;
    uint8_t map = (uint8_t)k;
    for (int i = 0; i < ENDS; i++)
        w->side[k][i] = (side){.w = w, .end = i, .kind = k, .opener = i == end};
    side *s = &w->side[k][end];
    CHECK(w, tnl_mux_open(w->mux[end], &s->stream, &map, 1, &stream_events, s) == 0);
    say(s);
    if (k == BREAK)
        tnl_stream_break(s->stream, TUNNEL_E_TIMEOUT, "broke");
    if (k == BREAK || k == LEFT)
        let_go(s);
}

static void say_all(world *w)
{
    tnl_datagram d = {.tunnel = 1, .flow = 9, .p = (const uint8_t *)"datagram", .n = 8};
    for (uint8_t i = 0; i < RECORDS; i++) {
        for (int end = 0; end < ENDS; end++)
            CHECK(w, tnl_mux_control(w->mux[end], i, (const uint8_t *)"abc", 3) == 0);
        if (i == 1)
            for (kind k = w->first; k <= w->last; k++)
                open_stream(w, k);
        for (int end = 0; end < ENDS && i == 1; end++) {
            tnl_mux_event(w->mux[end], (const uint8_t *)"event", 5);
            CHECK(w, tnl_mux_datagram(w->mux[end], &d, w->now) == 0);
        }
    }
}

static bool was_reset(const side *s, int code, const char *text)
{
    return s->resets == 1 && s->code == (uint32_t)-code && strcmp(s->text, text) == 0;
}

static void check_stream(world *w, kind k)
{
    side *o = &w->side[k][k % ENDS], *a = &w->side[k][(k + 1) % ENDS];
    switch (k) {
    case TALK:
    case BULK:
        CHECK(w, o->fins == 1 && a->fins == 1 && o->resets == 0 && a->resets == 0);
        CHECK(w, a->got == amounts[k][0] && o->got == amounts[k][1]);
        break;
    case RESET:
        CHECK(w, was_reset(o, TUNNEL_E_REFUSED, "why") && a->resets == 0);
        break;
    case BREAK:
        CHECK(w, was_reset(a, TUNNEL_E_TIMEOUT, "broke") && a->got == amounts[k][0]);
        break;
    case REFUSED:
        CHECK(w, was_reset(o, TUNNEL_E_DENIED, ""));
        break;
    case LEFT:
        CHECK(w, was_reset(a, TUNNEL_E_CANCELED, "") && a->got <= amounts[k][0]);
        break;
    default:
        break;
    }
    let_go(o);
    let_go(a);
}

static void check_end(world *w, int end)
{
    const tnl_mux *m = w->mux[end];
    CHECK(w, w->records[end] == RECORDS);
    CHECK(w, w->datagrams[end] <= 1 && w->events[end] <= 1);
    /* Those of an uncut link come. */
    CHECK(w, w->cut || (w->datagrams[end] == 1 && w->events[end] == 1));
    CHECK(w, tnl_mux_stream_count(m) == 0 && m->local_count == 0 && m->remote_count == 0);
    CHECK(w, tnl_list_first(&m->all) == &m->control->all && m->all.next->next == &m->all);
    CHECK(w, m->surplus_used == 0 && m->held == 0 && m->datagram_bytes == 0);
    CHECK(w, tnl_list_empty(&m->unacked_opens) && tnl_list_empty(&m->orphans));
    for (const tnl_list *n = m->links.next; n != &m->links; n = n->next)
        CHECK(w, TNL_CONTAINER(n, tnl_mux_link, node)->flight.bytes == 0);
}

static void begin(world *w, const world *how)
{
    static end_user users[ENDS];
    tnl_limits l = {.max_frame = 1024, .max_streams = 16, .window = 16384};
    tnl_mux_config c = {.local = l, .remote = l, .max_window = 65536, .surplus = 1 << 20};
    memcpy(w, how, offsetof(world, wire));
    for (int end = 0; end < ENDS; end++) {
        c.server = end == 1;
        users[end] = (end_user){w, end};
        CHECK(w, tnl_mux_new(&w->mux[end], &c, &mux_events, &users[end]) == 0);
    }
    for (size_t i = 0; i < WIRES; i++)
        memset(&w->wire[i], 0, offsetof(wire, queue));
    wire_add(w, &w->wire[0]);
    if (w->loss != PARKED)
        wire_add(w, &w->wire[1]);
    /* All goes over the first one until that is lost. */
    for (int end = 0; end < ENDS && w->loss == OVERTAKEN; end++)
        tnl_mux_link_drain(w->mux[end], w->wire[1].link[end]);
}

/* Returns how many of the counted bytes there were, up to the cut. */
static uint64_t converse(const world *how)
{
    world *w = &the_world;
    begin(w, how);
    say_all(w);
    settle(w);
    if (w->passed == w->cut_at) {
        lose(w);
        settle(w);
    }
    for (kind k = w->first; k <= w->last; k++)
        check_stream(w, k);
    for (int end = 0; end < ENDS; end++)
        check_end(w, end);
    for (int end = 0; end < ENDS; end++) {
        for (size_t i = 0; i < WIRES; i++)
            tnl_decoder_free(&w->wire[i].decoder[end]);
        tnl_mux_free(w->mux[end]);
    }
    CHECK(w, memory.live == 0);
    return w->passed;
}

static void cut_everywhere(kind first, kind last, uint64_t stride)
{
    unsigned cuts = 0;
    for (int loss_kind = 0; loss_kind < LOSSES; loss_kind++)
        for (int end = 0; end < ENDS; end++) {
            world how = {.first = first,
                         .last = last,
                         .loss = (loss)loss_kind,
                         .cut_to = end,
                         .now = 1000000};
            while (converse(&how) == how.cut_at) {
                how.cut_at += stride;
                cuts++;
            }
        }
    print_message("%u cuts\n", cuts);
    assert_true(cuts > 1000);
}

static void test_every_byte(void **state)
{
    (void)state;
    cut_everywhere(TALK, LEFT, 1);
}

/* More than a window: credit is lost as well. */
static void test_bulk(void **state)
{
    (void)state;
    const char *stride = getenv("SIM_STRIDE");
    cut_everywhere(BULK, BULK, stride && atoi(stride) > 0 ? (uint64_t)atoi(stride) : BULK_STRIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_bulk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
