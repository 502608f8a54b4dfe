/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer may not say: numbers that contradict others, ids that were never opened, too many of
 * anything. */
#include "mux/internal.h"
#include "unit/mux_bench.h"

static void test_contradictions(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    assert_int_equal(in_ack(b, 2, 4, 0), TUNNEL_E_PROTOCOL);
    tnl_stream_fin(u->s);
    assert_int_equal(in_ack(b, 2, 4, 0), TUNNEL_E_PROTOCOL); /* not sent yet */
    out(b);
    assert_int_equal(in_ack(b, 2, 5, 0), TUNNEL_E_PROTOCOL); /* of a RESET that there was not */
    assert_int_equal(in_ack(b, 2, 4, 0), 0);
    assert_int_equal(in_bytes(b, 2, 0, WINDOW + 1), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_bytes(b, 2, WINDOW, 1), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_bytes(b, 2, 0, 10), 0);
    assert_int_equal(in_bytes(b, 2, 20, 10), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, WINDOW + 1, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 29, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 29, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, WINDOW + 1, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 30, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 31, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_bytes(b, 2, 30, 1), TUNNEL_E_PROTOCOL);
    static char text[TNL_MUX_MAX_RESET_TEXT + 2];
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 30, text), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_FIN, 0, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_RESET, 0, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 0, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_HELLO, 0, 0, NULL), TUNNEL_E_UNSUPPORTED);
    assert_int_equal(u->fins + u->resets, 0);
    user_free(u);
    bench_free(b);
}

/* What was written is not what was sent; and what was sent once may be acknowledged for ever. */
static void test_acks_of_what_was_not_sent(void **state)
{
    (void)state;
    static const uint8_t bytes[WINDOW + 1000];
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    assert_int_equal(in_ack(b, 0, 1, 0), TUNNEL_E_PROTOCOL);
    out(b);
    assert_int_equal(in_ack(b, 2, WINDOW + 1, 2 * WINDOW), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_ack(b, 2, TNL_FRAME_MAX_OFFSET, 2 * WINDOW), TUNNEL_E_PROTOCOL);
    assert_int_equal(b->link[0]->flight.bytes, WINDOW);
    bench_lose(b, 0);
    bench_link(b, 0, 1 << 20);
    /* Before anything goes over the new link. */
    assert_int_equal(in_ack(b, 2, WINDOW + 1, WINDOW), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_ack(b, 2, WINDOW, WINDOW), 0);
    out(b);
    assert_null(frame_of(b, TNL_FRAME_DATA, 2));
    user_free(u);
    bench_free(b);
}

/* Of credits the greatest counts: an ACK that says less was overtaken by another one. */
static void test_credit_is_not_taken_back(void **state)
{
    (void)state;
    static const uint8_t bytes[WINDOW + 1000];
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, bytes, 10);
    out(b);
    assert_int_equal(in_ack(b, 2, 10, WINDOW + 500), 0);
    assert_int_equal(in_ack(b, 2, 10, WINDOW), 0);
    assert_int_equal(in_ack(b, 2, 5, 0), 0);
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    out(b);
    const tnl_frame *f = frame_of(b, TNL_FRAME_DATA, 2);
    assert_int_equal(f->offset, 10);
    assert_int_equal(b->link[0]->flight.bytes, WINDOW + 490);
    user_free(u);
    bench_free(b);
}

/* The user has made room, but the peer was not told yet. */
static void test_data_beyond_what_was_told(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in_bytes(b, 1, 0, WINDOW), 0);
    assert_int_equal(in_bytes(b, 1, WINDOW, 1), TUNNEL_E_PROTOCOL);
    out(b);
    uint64_t limit = frame_of(b, TNL_FRAME_ACK, 1)->limit;
    assert_in_range(limit, WINDOW + 1, 8 * WINDOW);
    assert_int_equal(in_bytes(b, 1, WINDOW, (size_t)limit - WINDOW), 0);
    assert_int_equal(in_bytes(b, 1, limit, 1), TUNNEL_E_PROTOCOL);
    user_release(&b->user[0]);
    bench_free(b);
}

static void test_ids_never_opened(void **state)
{
    (void)state;
    static const uint8_t types[] = {TNL_FRAME_DATA, TNL_FRAME_FIN, TNL_FRAME_RESET, TNL_FRAME_ACK};
    bench *b = bench_new(NULL);
    for (size_t i = 0; i < sizeof(types); i++) {
        assert_int_equal(in(b, types[i], 1, 0, "x"), TUNNEL_E_PROTOCOL);
        assert_int_equal(in(b, types[i], 2, 0, "x"), TUNNEL_E_PROTOCOL);
        assert_int_equal(in(b, types[i], UINT64_MAX, 0, "x"), TUNNEL_E_PROTOCOL);
        assert_int_equal(in(b, types[i], UINT64_MAX - 1, 0, "x"), TUNNEL_E_PROTOCOL);
    }
    assert_int_equal(in(b, TNL_FRAME_OPEN, 2, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, UINT64_MAX, 0, NULL), TUNNEL_E_PROTOCOL);
    /* Opened here, but the peer cannot know. */
    user *u = user_new(b);
    assert_int_equal(in_ack(b, 2, 0, 0), TUNNEL_E_PROTOCOL);
    out(b);
    assert_int_equal(in_ack(b, 2, 0, 0), 0);
    user_free(u);
    bench_free(b);
}

static void test_retired_ids(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->refuse = true;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_RESET, 1, 7, NULL), 0);
    assert_int_equal(in_ack(b, 1, 2, 0), 0);
    assert_int_equal(tnl_mux_stream_count(b->mux), 0);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "late"), 0);
    assert_int_equal(in_ack(b, 1, 2, 100), 0);
    assert_int_equal(out(b), 0);
    assert_int_equal(b->opens, 1);
    assert_int_equal(in(b, TNL_FRAME_FIN, 1, 7, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 1, 7, NULL), 0);
    assert_int_equal(out(b), 2);
    assert_int_equal(b->frame[0].f.offset, 8);
    assert_int_equal(b->frame[1].f.offset, 9);
    assert_int_equal(tnl_mux_get_stats(b->mux)->late, 5);
    /* Answers that nobody reads are not piled up without end. */
    int rc = 0, count = 0;
    while (!rc && count++ < 100000)
        rc = in(b, TNL_FRAME_FIN, 1, 7, NULL);
    assert_int_equal(rc, TUNNEL_E_PROTOCOL);
    assert_true(count < 1000);
    bench_free(b);
}

static void test_open_again_while_it_lives(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    tnl_mux_tick(b->mux, b->now + 100);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(b->opens, 1);
    assert_int_equal(out(b), 1);
    assert_non_null(frame_of(b, TNL_FRAME_ACK, 1));
    bench_free(b);
}

static void test_id_window(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.max_streams = c.local.max_streams = 8192;
    bench *b = bench_new(&c);
    /* Their index 1 is missing: 4095 more may come, in any order. */
    uint64_t most = 2 * TNL_MUX_ID_WINDOW - 1;
    b->refuse = true;
    assert_int_equal(in(b, TNL_FRAME_OPEN, most + 2, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, most, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_OPEN, most + 2, 0, NULL), TUNNEL_E_PROTOCOL);
    for (uint64_t id = most - 2; id > 1; id -= 2)
        assert_int_equal(in(b, TNL_FRAME_OPEN, id, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_ACK, 1, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 2 * most + 3, 0, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 2 * most + 1, 0, NULL), 0);
    assert_int_equal(b->opens, 4097);
    /* Ours: so far beyond the first that is not acknowledged, and no further. */
    tnl_stream *s;
    for (int i = 0; i < TNL_MUX_ID_WINDOW; i++)
        assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, &b->user[0]), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), TUNNEL_E_LIMIT);
    while (batch_on(b, 0, 65536))
        b->frames = 0;
    assert_int_equal(in_ack(b, 4, 0, 0), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), TUNNEL_E_LIMIT);
    assert_int_equal(in_ack(b, 2, 0, 0), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), TUNNEL_E_LIMIT);
    bench_free(b);
}

static void test_max_streams(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.local.max_streams = 2;
    c.remote.max_streams = 3;
    bench *b = bench_new(&c);
    tnl_stream *s;
    for (int i = 0; i < 3; i++)
        assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), 0);
    assert_int_equal(tnl_mux_open(b->mux, &s, NULL, 0, &bench_stream_events, NULL), TUNNEL_E_LIMIT);
    out(b);
    /* One too many is refused, the others live on, and when one of them ends there is room again.
     */
    for (uint64_t id = 1; id <= 5; id += 2)
        assert_int_equal(in(b, TNL_FRAME_OPEN, id, 0, NULL), 0);
    assert_int_equal(b->opens, 2);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 5)->code, -TUNNEL_E_LIMIT);
    assert_int_equal(in(b, TNL_FRAME_RESET, 5, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "ok"), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 1, 2, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 7, 0, NULL), 0);
    assert_int_equal(b->opens, 3);
    /* Who goes on and on without acknowledging the refusals is cut off. */
    int rc = 0;
    uint64_t id = 9;
    for (; !rc && id < 1000; id += 2)
        rc = in(b, TNL_FRAME_OPEN, id, 0, NULL);
    assert_int_equal(rc, TUNNEL_E_PROTOCOL);
    assert_true(id < 100);
    assert_int_equal(b->opens, 3);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_acks_of_what_was_not_sent),
        cmocka_unit_test(test_credit_is_not_taken_back),
        cmocka_unit_test(test_data_beyond_what_was_told),
        cmocka_unit_test(test_ids_never_opened),
        cmocka_unit_test(test_retired_ids),
        cmocka_unit_test(test_open_again_while_it_lives),
        cmocka_unit_test(test_id_window),
        cmocka_unit_test(test_max_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
