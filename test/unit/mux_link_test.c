/* SPDX-License-Identifier: Apache-2.0 */
/* Streams on links: lost and drained ones, what is in flight, turns; the control stream, events,
 * room, the end. */
#include "unit/mux_bench.h"

#include "mux/internal.h"

/* --- without a link, lost, drained ------------------------------------------------------------ */

static void test_streams_wait_for_a_link(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    bench_lose(b, 0);
    user *u = user_new(b);
    assert_int_equal(tnl_stream_write(u->s, "abc", 3), 3);
    tnl_stream_fin(u->s);
    assert_false(tnl_stream_flushed(u->s));
    bench_link(b, 1, 1000);
    out_on(b, 1);
    /* Of the control stream, which had a link, it is said again what has arrived. */
    ASSERT_TYPES(b, "ACK OPEN DATA FIN");
    assert_int_equal(b->frame[0].f.stream, 0);
    user_free(u);
    bench_free(b);
}

/* Loses the link after `acked` of a stream's DATA and terminal had been acknowledged; what is sent
 * again. */
static void lose_after(bool reset, uint64_t acked, const char *expected)
{
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    if (reset) {
        out(b);
        tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, "why");
    } else {
        tnl_stream_fin(u->s);
    }
    out(b);
    if (acked != UINT64_MAX)
        assert_int_equal(in_ack(b, 2, acked, 0), 0);
    bench_lose(b, 0);
    bench_link(b, 1, 1000);
    assert_null(b->link[0]);
    out_on(b, 1);
    ASSERT_TYPES(b, expected);
    const tnl_frame *f = frame_of(b, TNL_FRAME_DATA, 2);
    if (f)
        assert_int_equal(f->offset, acked == UINT64_MAX ? 0 : acked);
    user_free(u);
    bench_free(b);
}

static void test_a_lost_link(void **state)
{
    (void)state;
    /* The first ACK is the control stream's. A FIN that was sent before goes before the data. */
    lose_after(false, UINT64_MAX, "ACK OPEN FIN DATA");
    lose_after(false, 0, "ACK ACK FIN DATA");
    lose_after(false, 2, "ACK ACK FIN DATA");
    lose_after(false, 3, "ACK ACK FIN");
    lose_after(false, 4, "ACK ACK");
    lose_after(true, UINT64_MAX, "ACK OPEN RESET");
    lose_after(true, 0, "ACK ACK RESET");
    lose_after(true, 3, "ACK ACK RESET");
    lose_after(true, 5, "ACK ACK");
}

static void test_a_late_ack_spares_sending_again(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    bench_link(b, 1, 1 << 20);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abcdef", 6);
    out(b);
    ASSERT_TYPES(b, "OPEN DATA");
    bench_lose(b, 0);
    tnl_frame f = {.type = TNL_FRAME_ACK, .stream = 2, .offset = 4, .limit = WINDOW};
    assert_int_equal(tnl_mux_frame(b->mux, b->link[1], &f, b->now), 0);
    out_on(b, 1);
    assert_null(frame_of(b, TNL_FRAME_OPEN, 2));
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 4);
    assert_int_equal(b->mux->control->link == b->link[1], 1);
    user_free(u);
    bench_free(b);
}

static void test_drain(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "xyz"), 0);
    /* The only link goes on carrying what there is, new streams too. */
    tnl_mux_link_drain(b->mux, b->link[0]);
    user *v = user_new(b);
    tnl_stream_write(u->s, "def", 3);
    out(b);
    assert_non_null(frame_of(b, TNL_FRAME_OPEN, 4));
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 3);
    /* All move once there is another, and say all again: the old one may be lost at any time. */
    bench_link(b, 1, 1000);
    out_on(b, 1);
    assert_non_null(frame_of(b, TNL_FRAME_OPEN, 4));
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 0);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->rest_len, 6);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 3);
    tnl_stream_write(u->s, "ghi", 3);
    assert_int_equal(out(b), 0);
    assert_int_equal(out_on(b, 1), 1);
    /* What still arrives on the old one counts. */
    assert_int_equal(in_ack(b, 2, 9, 0), 0);
    bench_lose(b, 0);
    assert_int_equal(out_on(b, 1), 0);
    user_free(v);
    user_free(u);
    bench_free(b);
}

/* It carries streams and events only for want of another link, until it is known to bring them. */
static void test_a_link_that_is_not_proven(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    tnl_mux_link_drain(b->mux, b->link[0]);
    assert_non_null(b->link[1] = tnl_mux_link_add(b->mux, 1 << 20, true, &b->woken[1]));
    assert_int_equal(out_on(b, 1), 0);
    user *v = user_new(b);
    tnl_mux_event(b->mux, (const uint8_t *)"\x80", 1);
    assert_int_equal(out_on(b, 1), 0);
    out(b);
    ASSERT_TYPES(b, "EVENT OPEN");
    tnl_mux_event(b->mux, (const uint8_t *)"\x80", 1);
    tnl_mux_link_proven(b->mux, b->link[1]);
    assert_true(b->woken[1]);
    assert_int_equal(out(b), 0);
    out_on(b, 1);
    assert_non_null(frame_of(b, TNL_FRAME_EVENT, 0));
    assert_non_null(frame_of(b, TNL_FRAME_OPEN, 2));
    assert_non_null(frame_of(b, TNL_FRAME_OPEN, 4));
    user_free(v);
    user_free(u);
    bench_free(b);
}

static void test_better_than_none(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    assert_non_null(b->link[1] = tnl_mux_link_add(b->mux, 1 << 20, true, &b->woken[1]));
    out(b);
    bench_lose(b, 0);
    out_on(b, 1);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 0);
    /* And no longer, once there is another. */
    bench_link(b, 2, 1 << 20);
    assert_int_equal(out_on(b, 1), 0);
    out_on(b, 2);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 0);
    user_free(u);
    bench_free(b);
}

static void test_drain_with_another_link(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    tnl_stream_fin(u->s);
    out(b);
    bench_link(b, 1, 1000);
    tnl_mux_link_drain(b->mux, b->link[0]);
    assert_int_equal(out(b), 0);
    out_on(b, 1);
    ASSERT_TYPES(b, "ACK OPEN FIN DATA");
    user_free(u);
    bench_free(b);
}

/* A retired peer acknowledges the FIN alone: that must come through however little may be in
 * flight. */
static void test_fin_again_is_not_held_back(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *u = user_new(b);
    static uint8_t bytes[3 * TNL_MUX_QUANTUM];
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    tnl_stream_fin(u->s);
    out(b);
    assert_int_equal(in_ack(b, 2, 0, 0), 0);
    bench_lose(b, 0);
    bench_link(b, 1, 1);
    out_on(b, 1);
    assert_non_null(frame_of(b, TNL_FRAME_FIN, 2));
    user_free(u);
    bench_free(b);
}

/* Each copy of an end is acknowledged where it came from, the live stream's and the retired one's.
 */
static void test_ends_are_acknowledged_where_they_came_from(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    bench_link(b, 1, 1 << 20);
    bench_link(b, 2, 1 << 20);
    user *u = user_new(b);
    tnl_stream_fin(u->s);
    out(b);
    assert_non_null(frame_of(b, TNL_FRAME_FIN, 2));
    assert_int_equal(in_ack(b, 2, 1, 0), 0);
    assert_int_equal(in_on(b, 1, TNL_FRAME_FIN, 2, 3, NULL, 0), 0);
    assert_int_equal(in_on(b, 2, TNL_FRAME_FIN, 2, 3, NULL, 0), 0);
    assert_int_equal(out(b) + out_on(b, 1) + out_on(b, 2), 0);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 2, 0, "xyz", 3), 0);
    assert_int_equal(b->retired, 1);
    assert_int_equal(out(b), 0);
    assert_int_equal(out_on(b, 1), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 4);
    assert_int_equal(out_on(b, 2), 1);
    assert_int_equal(in_on(b, 0, TNL_FRAME_FIN, 2, 3, NULL, 0), 0);
    assert_int_equal(in_on(b, 2, TNL_FRAME_RESET, 2, 3, NULL, 0), 0);
    assert_int_equal(out_on(b, 1), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(out_on(b, 2), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 5);
    /* A lost link takes its answers with it. */
    assert_int_equal(in_on(b, 1, TNL_FRAME_FIN, 2, 3, NULL, 0), 0);
    bench_lose(b, 1);
    assert_int_equal(out(b) + out_on(b, 2), 0);
    user_free(u);
    bench_free(b);
}

static void test_number_of_links(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    static bool woken[TNL_MUX_MAX_LINKS];
    tnl_mux_link *l[TNL_MUX_MAX_LINKS];
    for (int i = 1; i < TNL_MUX_MAX_LINKS; i++)
        assert_non_null(l[i] = tnl_mux_link_add(b->mux, 1, false, &woken[i]));
    assert_null(tnl_mux_link_add(b->mux, 1, false, NULL));
    tnl_mux_link_lost(b->mux, l[7]);
    assert_non_null(tnl_mux_link_add(b->mux, 1, false, &woken[7]));
    assert_null(tnl_mux_link_add(b->mux, 1, false, NULL));
    bench_free(b);
}

static void lose_link(user *u, moment m)
{
    if (m == ON_ROOM)
        bench_lose(u->b, 0);
}

/* A callback of a pull loses the very link. */
static void test_link_lost_inside_a_pull(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *u = user_new(b);
    user *v = user_new(b);
    static uint8_t bytes[TNL_MUX_MAX_UNSENT + 1];
    u->hook = lose_link;
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes)), TNL_MUX_MAX_UNSENT);
    tnl_stream_write(v->s, "abc", 3);
    size_t cap = 1 << 18;
    uint8_t *out = malloc(cap);
    tnl_mux_link *l = b->link[0];
    assert_int_equal(tnl_mux_pull(b->mux, l, out, cap, b->now), 0);
    free(out);
    assert_null(b->link[0]);
    assert_int_equal(u->rooms, 1);
    bench_link(b, 1, 1000000);
    out_on(b, 1);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->offset, 0);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 4)->rest_len, 3);
    user_free(u);
    user_free(v);
    bench_free(b);
}

/* --- in flight, turns ------------------------------------------------------------------------- */

static void test_in_flight(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    c.remote.max_frame = 1024;
    bench *b = bench_new(&c);
    bench_lose(b, 0);
    bench_link(b, 0, 4096);
    user *big = user_new(b);
    static uint8_t bytes[100000];
    tnl_stream_write(big->s, bytes, sizeof(bytes));
    out(b);
    assert_int_equal(b->frames, 1 + 1 + 4);
    /* New streams and ends get through, and so does the control stream; data waits its turn. */
    user *small = user_new(b);
    tnl_stream_write(small->s, "abc", 3);
    user *gone = user_new(b);
    user_release(gone);
    assert_int_equal(tnl_mux_control(b->mux, 1, NULL, 0), 0);
    out(b);
    ASSERT_TYPES(b, "DATA OPEN OPEN RESET");
    assert_int_equal(out(b), 0);
    assert_int_equal(in_ack(b, 2, 1024, 1 << 20), 0);
    out(b);
    assert_int_equal(b->frames, 1);
    assert_int_equal(b->frame[0].f.stream, 2);
    assert_int_equal(in_ack(b, 2, 1030, 1 << 20), 0);
    out(b);
    assert_int_equal(b->frame[0].f.stream, 4);
    /* What waits in that line can be reset at once. */
    tnl_stream_reset(big->s, TUNNEL_E_TIMEOUT, NULL);
    out(b);
    ASSERT_TYPES(b, "RESET");
    uint64_t final = b->frame[0].f.offset;
    /* Its bytes are on their way all the same, until the reset has arrived behind them. */
    tnl_stream_write(small->s, bytes, 4093);
    out(b);
    assert_int_equal(b->frames, 0);
    assert_int_equal(in_ack(b, 2, final + 2, 0), 0);
    out(b);
    assert_int_equal(b->frames, 4);
    user_free(big);
    user_free(small);
    user_free(gone);
    bench_free(b);
}

static void test_turns(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *u[3];
    static uint8_t bytes[64 * 1024];
    for (int i = 0; i < 3; i++) {
        u[i] = user_new(b);
        tnl_stream_write(u[i]->s, bytes, i < 2 ? sizeof(bytes) : 100);
    }
    out(b);
    size_t sent[3] = {0, 0, 0};
    for (size_t i = 0; i < b->frames; i++) {
        if (b->frame[i].f.type != TNL_FRAME_DATA)
            continue;
        sent[b->frame[i].f.stream / 2 - 1] += b->frame[i].f.rest_len;
        assert_true(sent[0] <= sent[1] + TNL_MUX_QUANTUM && sent[1] <= sent[0] + TNL_MUX_QUANTUM);
        /* The small one is through after a turn of each. */
        assert_true(sent[2] == 100 || sent[0] + sent[1] <= 2 * TNL_MUX_QUANTUM);
    }
    assert_int_equal(sent[0] + sent[1] + sent[2], 2 * sizeof(bytes) + 100);
    for (int i = 0; i < 3; i++)
        user_free(u[i]);
    bench_free(b);
}

/* Streams that begin go ahead of one that is in the midst of much, but leave it a turn now and
 * then. */
static void test_beginners(void **state)
{
    (void)state;
    enum { MANY = 12, SMALL = 15000 };
    static uint8_t bytes[64 * 1024];
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *big = user_new(b), *u[MANY];
    tnl_stream_write(big->s, bytes, sizeof(bytes));
    out(b);
    tnl_stream_write(big->s, bytes, sizeof(bytes));
    for (int i = 0; i < MANY; i++) {
        u[i] = user_new(b);
        tnl_stream_write(u[i]->s, bytes, SMALL);
    }
    out(b);
    size_t small = 0, since = 0, first = 0, big_sent = 0;
    for (size_t i = 0; i < b->frames; i++) {
        const tnl_frame *f = &b->frame[i].f;
        if (f->type != TNL_FRAME_DATA)
            continue;
        if (f->stream == 2) {
            first = first ? first : small;
            big_sent += f->rest_len;
            since = 0;
        } else {
            small += f->rest_len;
            since += f->rest_len;
        }
        assert_true(since <= TNL_MUX_JUMP + TNL_MUX_QUANTUM || big_sent == sizeof(bytes));
    }
    assert_int_equal(small, MANY * SMALL);
    /* It has its turn when so many have begun; but not before that. */
    assert_in_range(first, TNL_MUX_JUMP - 1024, TNL_MUX_JUMP + TNL_MUX_QUANTUM);
    for (int i = 0; i < MANY; i++)
        user_free(u[i]);
    user_free(big);
    bench_free(b);
}

static void test_control_goes_first(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    assert_int_equal(tnl_mux_control(b->mux, 1, (const uint8_t *)"ctl", 3), 0);
    out(b);
    ASSERT_TYPES(b, "DATA OPEN DATA");
    assert_memory_equal(b->frame[0].rest, "\x01\0\0\003ctl", 7);
    user_free(u);
    bench_free(b);
}

/* --- control ---------------------------------------------------------------------------------- */

static void test_records_cut_anywhere(void **state)
{
    (void)state;
    static const uint8_t bytes[] = "\x05\0\0\003abc\x81\0\0\0\x82\0\0\001x";
    for (size_t cut = 0; cut < sizeof(bytes) - 1; cut++) {
        bench *b = bench_new(NULL);
        if (cut)
            assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, bytes, cut), 0);
        assert_int_equal(b->records, (cut >= 7) + (cut >= 11));
        assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, cut, bytes + cut, sizeof(bytes) - 1 - cut),
                         0);
        assert_int_equal(b->records, 3);
        assert_int_equal(b->record_type, 0x82);
        assert_int_equal(b->record_len, 1);
        bench_free(b);
    }
    bench *b = bench_new(NULL);
    for (size_t i = sizeof(bytes) - 2; i < sizeof(bytes); i--)
        assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, i, bytes + i, 1), 0);
    assert_int_equal(b->records, 3);
    bench_free(b);
}

static void test_records_of_every_size(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    static uint8_t bytes[TNL_CONTROL_HEADER + TNL_MESSAGE_MAX + 1];
    uint64_t at = 0;
    for (size_t n = 0; n <= TNL_MESSAGE_MAX; n = n * 2 + 1) {
        bytes[1] = 0;
        bytes[2] = (uint8_t)(n >> 8);
        bytes[3] = (uint8_t)n;
        assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, at, bytes, TNL_CONTROL_HEADER + n), 0);
        assert_int_equal(b->record_len, n);
        at += TNL_CONTROL_HEADER + n;
        out(b);
    }
    static const uint8_t most[] = {1, TNL_MESSAGE_MAX >> 16, TNL_MESSAGE_MAX >> 8 & 255,
                                   TNL_MESSAGE_MAX & 255};
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, at, most, 4), 0);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, at + 4, bytes, TNL_MESSAGE_MAX), 0);
    assert_int_equal(b->record_len, TNL_MESSAGE_MAX);
    at += 4 + TNL_MESSAGE_MAX;
    static const uint8_t head[] = {1, 0, (TNL_MESSAGE_MAX + 1) >> 8, (TNL_MESSAGE_MAX + 1) & 255};
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, at, head, 4), 0);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, at + 4, head, 1), TUNNEL_E_PROTOCOL);
    bench_free(b);
}

static void test_control_errors(void **state)
{
    (void)state;
    /* In order, and when the record is completed by bytes that had waited. */
    bench *b = bench_new(NULL);
    b->control_answer = TUNNEL_E_UNSUPPORTED;
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, "\x81\0\0\0", 4), TUNNEL_E_UNSUPPORTED);
    bench_free(b);
    b = bench_new(NULL);
    b->control_answer = TUNNEL_E_UNSUPPORTED;
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 2, "\0\0", 2), 0);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, "\x81\0", 2), TUNNEL_E_UNSUPPORTED);
    bench_free(b);
}

static void test_control_queue(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    static uint8_t body[TNL_MESSAGE_MAX + 1];
    assert_int_equal(tnl_mux_control(b->mux, 1, body, sizeof(body)), TUNNEL_E_INVALID);
    int count = 0;
    while (tnl_mux_control(b->mux, 1, body, TNL_MESSAGE_MAX) == 0)
        count++;
    assert_int_equal(count, TNL_MUX_MAX_UNSENT / (TNL_MESSAGE_MAX + 4));
    assert_int_equal(tnl_mux_control(b->mux, 1, body, TNL_MESSAGE_MAX), TUNNEL_E_LIMIT);
    /* It keeps to its credit, whatever the window of streams is. */
    out(b);
    size_t n = 0;
    for (size_t i = 0; i < b->frames; i++)
        n += b->frame[i].f.rest_len;
    assert_int_equal(n, TNL_MUX_CONTROL_WINDOW);
    assert_int_equal(in_ack(b, 0, n, 2 * n), 0);
    out(b);
    assert_int_equal(tnl_mux_control(b->mux, 1, body, TNL_MESSAGE_MAX), 0);
    bench_free(b);
}

static void test_control_credit(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    static uint8_t bytes[TNL_MUX_CONTROL_WINDOW + 1];
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, bytes, sizeof(bytes)), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, bytes, sizeof(bytes) - 1), 0);
    assert_int_equal(b->records, TNL_MUX_CONTROL_WINDOW / 4);
    assert_int_equal(out(b), 1);
    assert_int_equal(b->frame[0].f.offset, TNL_MUX_CONTROL_WINDOW);
    assert_int_equal(b->frame[0].f.limit, 2 * TNL_MUX_CONTROL_WINDOW);
    assert_int_equal(b->mux->surplus_used, 0);
    bench_free(b);
}

/* --- events ----------------------------------------------------------------------------------- */

static void test_events(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    static uint8_t map[TNL_MUX_MAX_EVENT + 1];
    tnl_mux_event(b->mux, map, sizeof(map));
    assert_int_equal(tnl_mux_get_stats(b->mux)->events_dropped, 1);
    size_t sent = 0;
    while (tnl_mux_get_stats(b->mux)->events_dropped == 1) {
        tnl_mux_event(b->mux, map, TNL_MUX_MAX_EVENT);
        sent++;
    }
    assert_int_equal(sent - 1, TNL_MUX_MAX_EVENTS / (TNL_MUX_MAX_EVENT + TNL_FRAME_HEADER));
    /* They go also in the smallest batches. */
    b->frames = 0;
    while (batch_on(b, 0, 2048))
        ;
    assert_int_equal(b->frames, sent - 1);
    assert_int_equal(b->frame[0].f.type, TNL_FRAME_EVENT);
    assert_int_equal(in(b, TNL_FRAME_EVENT, 0, 0, "map"), 0);
    assert_int_equal(b->events, 1);
    /* Those that wait go over the next link; without a link there are none. */
    tnl_mux_event(b->mux, map, 10);
    bench_lose(b, 0);
    tnl_mux_event(b->mux, map, 10);
    assert_int_equal(tnl_mux_get_stats(b->mux)->events_dropped, 3);
    bench_link(b, 1, 1000);
    out_on(b, 1);
    ASSERT_TYPES(b, "ACK EVENT");
    bench_free(b);
}

/* --- room ------------------------------------------------------------------------------------- */

static void test_room(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *u = user_new(b);
    static uint8_t bytes[TNL_MUX_MAX_UNSENT];
    uint8_t *p;
    assert_true(tnl_stream_space(u->s, 0, &p) > 0);
    assert_int_equal(tnl_stream_room(u->s), TNL_MUX_MAX_UNSENT);
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes) - 5), sizeof(bytes) - 5);
    assert_int_equal(tnl_stream_space(u->s, 100, &p), 5);
    tnl_stream_commit(u->s, 5);
    assert_int_equal(u->rooms, 0);
    assert_int_equal(tnl_stream_space(u->s, 100, &p), 0);
    out(b);
    assert_int_equal(u->rooms, 1);
    /* Not unless asked for. */
    uint64_t sent = sizeof(bytes), most = 4 << 20;
    assert_int_equal(in_ack(b, 2, sent, most), 0);
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes)), sizeof(bytes));
    out(b);
    assert_int_equal(u->rooms, 1);
    assert_int_equal(in_ack(b, 2, sent += sizeof(bytes), most), 0);
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes)), sizeof(bytes));
    tnl_stream_want_room(u->s);
    out(b);
    assert_int_equal(u->rooms, 2);
    assert_int_equal(in_ack(b, 2, sent += sizeof(bytes), most), 0);
    /* What is not acknowledged counts too. */
    size_t held = 0, n;
    while ((n = tnl_stream_write(u->s, bytes, sizeof(bytes)))) {
        held += n;
        out(b);
    }
    assert_int_equal(held, TNL_MUX_MAX_SEND);
    u->rooms = 0;
    assert_int_equal(in_ack(b, 2, sent + TNL_MUX_MAX_UNSENT / 2 - 1, most), 0);
    assert_int_equal(u->rooms, 0);
    assert_int_equal(in_ack(b, 2, sent + TNL_MUX_MAX_UNSENT / 2, most), 0);
    assert_int_equal(u->rooms, 1);
    tnl_stream_fin(u->s);
    assert_int_equal(tnl_stream_space(u->s, 100, &p), 0);
    tnl_stream_commit(u->s, 0);
    user_free(u);
    bench_free(b);
}

static void write_in_room(user *u, moment m)
{
    if (m != ON_ROOM)
        return;
    static uint8_t bytes[1000];
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    if (u->rooms == 3)
        tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, NULL);
    else
        tnl_stream_want_room(u->s);
}

static void test_writing_from_room(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.window = 1 << 20;
    bench *b = bench_new(&c);
    user *u = user_new(b);
    u->hook = write_in_room;
    tnl_stream_want_room(u->s);
    out(b);
    assert_int_equal(u->rooms, 3);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 2)->offset, 2000);
    user_free(u);
    bench_free(b);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void release_on_reset(user *u, moment m)
{
    if (m == ON_RESET)
        user_release(u);
}

/* One stream in each state. */
static void test_abort_and_free(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        bench *b = bench_new(NULL);
        user *u[6];
        for (int i = 0; i < 6; i++) {
            u[i] = user_new(b);
            u[i]->hook = how == 1 ? release_on_reset : NULL;
            tnl_stream_write(u[i]->s, "abc", 3);
        }
        tnl_stream_fin(u[1]->s);
        out(b);
        assert_int_equal(in(b, TNL_FRAME_FIN, 4, 0, NULL), 0);
        assert_int_equal(in_ack(b, 4, 4, 0), 0); /* retired, not released */
        assert_int_equal(b->retired, 1);
        assert_int_equal(in(b, TNL_FRAME_DATA, 6, 5, "beyond"), 0);
        u[3]->accept = 1;
        assert_int_equal(in(b, TNL_FRAME_DATA, 8, 0, "waiting"), 0);
        tnl_stream_reset(u[4]->s, TUNNEL_E_TIMEOUT, "text");
        user_release(u[5]);
        user *late = user_new(b);
        late->hook = u[0]->hook;
        if (how < 2) {
            tnl_mux_abort(b->mux, TUNNEL_E_REPLACED);
            for (int i = 0; i < 4; i++) {
                assert_int_equal(u[i]->resets, 1);
                assert_int_equal(u[i]->code, -TUNNEL_E_REPLACED);
                assert_string_equal(u[i]->text, tunnel_strerror(TUNNEL_E_REPLACED));
            }
            assert_int_equal(u[4]->resets + u[5]->resets, 0);
            assert_int_equal(late->resets, 1);
            tnl_stream *s;
            assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL),
                             TUNNEL_E_GONE);
            assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
            assert_int_equal(b->opens, 0);
            tnl_mux_abort(b->mux, TUNNEL_E_GONE);
            assert_int_equal(late->resets, 1);
        }
        bench_free(b);
        for (int i = 0; i < 6; i++)
            free(u[i]);
        free(late);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_wait_for_a_link),
        cmocka_unit_test(test_a_lost_link),
        cmocka_unit_test(test_a_late_ack_spares_sending_again),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_with_another_link),
        cmocka_unit_test(test_a_link_that_is_not_proven),
        cmocka_unit_test(test_better_than_none),
        cmocka_unit_test(test_fin_again_is_not_held_back),
        cmocka_unit_test(test_ends_are_acknowledged_where_they_came_from),
        cmocka_unit_test(test_number_of_links),
        cmocka_unit_test(test_link_lost_inside_a_pull),
        cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_beginners),
        cmocka_unit_test(test_control_goes_first),
        cmocka_unit_test(test_records_cut_anywhere),
        cmocka_unit_test(test_records_of_every_size),
        cmocka_unit_test(test_control_errors),
        cmocka_unit_test(test_control_queue),
        cmocka_unit_test(test_control_credit),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_writing_from_room),
        cmocka_unit_test(test_abort_and_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
