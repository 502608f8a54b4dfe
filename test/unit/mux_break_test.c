/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that break: a reset that stays behind what was said before it. */
#include "unit/mux_bench.h"

/* --- this end breaks -------------------------------------------------------------------------- */

static void what_was_written_goes_first(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    static uint8_t bytes[WINDOW + 5];
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    out(b);
    tnl_stream_break(u->s, TUNNEL_E_UPSTREAM, "broken");
    user_release(u); /* does not hurry it */
    assert_int_equal(out(b), 0);
    assert_int_equal(in_ack(b, 2, WINDOW, WINDOW + 100), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->rest_len, 5);
    assert_int_equal(in_ack(b, 2, WINDOW + 4, 0), 0);
    assert_int_equal(out(b), 0);
    assert_int_equal(in_ack(b, 2, WINDOW + 5, 0), 0);
    assert_int_equal(out(b), 1);
    const tnl_frame *f = frame_of(b, TNL_FRAME_RESET, 2);
    assert_int_equal(f->offset, WINDOW + 5);
    assert_int_equal(f->code, -TUNNEL_E_UPSTREAM);
    assert_memory_equal(f->rest, "broken", 6);
    assert_int_equal(in_ack(b, 2, WINDOW + 7, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
    assert_int_equal(b->retired, 1);
    assert_int_equal(u->got_len + (size_t)(u->fins + u->resets + u->rooms), 0);
    user_free(u);
    bench_free(b);
}

static void so_does_the_end(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    tnl_stream_fin(u->s);
    tnl_stream_break(u->s, TUNNEL_E_RESET, NULL);
    out(b);
    ASSERT_TYPES(b, "OPEN DATA FIN");
    assert_int_equal(in_ack(b, 2, 3, 0), 0);
    assert_int_equal(out(b), 0);
    assert_int_equal(in_ack(b, 2, 4, 0), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 2)->offset, 3);
    /* A link that is lost changes nothing. */
    bench_lose(b, 0);
    bench_link(b, 0, 1 << 20);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 2)->code, -TUNNEL_E_RESET);
    user_free(u);
    bench_free(b);
}

static void nothing_to_wait_for(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    assert_int_equal(in_ack(b, 2, 3, 0), 0);
    tnl_stream_break(u->s, TUNNEL_E_RESET, "now");
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 2)->offset, 3);
    tnl_stream_break(u->s, TUNNEL_E_UPSTREAM, "again");
    assert_int_equal(out(b), 0);
    user_free(u);
    bench_free(b);
}

/* For who does not want to wait, and when the peer does not. */
static void waiting_can_be_cut_short(void **state)
{
    (void)state;
    for (int peer = 0; peer < 2; peer++) {
        bench *b = bench_new(NULL);
        user *u = user_new(b);
        tnl_stream_write(u->s, "abc", 3);
        out(b);
        tnl_stream_break(u->s, TUNNEL_E_RESET, "slow");
        assert_int_equal(out(b), 0);
        if (peer)
            assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
        else
            tnl_stream_reset(u->s, TUNNEL_E_CANCELED, NULL);
        out(b);
        const tnl_frame *f = frame_of(b, TNL_FRAME_RESET, 2);
        assert_non_null(f);
        assert_int_equal(f->offset, 3);
        assert_int_equal(f->code, peer ? -TUNNEL_E_REFUSED : -TUNNEL_E_CANCELED);
        assert_int_equal(u->resets, 0);
        user_free(u);
        bench_free(b);
    }
}

/* Both break with more to say than the other's window takes: each goes on giving credit for what it
 * drops. */
static void both_break(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    static uint8_t bytes[2 * WINDOW];
    u->accept = 0;
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes)), sizeof(bytes));
    out(b);
    assert_int_equal(in_bytes(b, 2, 0, WINDOW / 2), 0);
    tnl_stream_break(u->s, TUNNEL_E_RESET, NULL);
    out(b);
    assert_non_null(frame_of(b, TNL_FRAME_ACK, 2));
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->limit, WINDOW / 2 + WINDOW);
    assert_int_equal(in_bytes(b, 2, WINDOW / 2, WINDOW), 0);
    out(b);
    assert_non_null(frame_of(b, TNL_FRAME_ACK, 2));
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->limit, WINDOW / 2 + 2 * WINDOW);
    user_free(u);
    bench_free(b);
}

/* --- the peer breaks -------------------------------------------------------------------------- */

static user *held_back(bench *b)
{
    user *u = user_new(b);
    out(b);
    u->accept = 2;
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "abcdef"), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 6, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 6, "gone"), 0);
    assert_int_equal(u->resets + u->fins, 0);
    out(b);
    assert_int_equal(frame_nth(b, TNL_FRAME_ACK, 2, 0)->offset, 7);
    assert_int_equal(frame_nth(b, TNL_FRAME_ACK, 2, 1)->offset, 8);
    assert_non_null(frame_of(b, TNL_FRAME_RESET, 2));
    assert_int_equal(in_ack(b, 2, 2, 0), 0);
    assert_int_equal(b->retired, 0);
    return u;
}

static void what_a_fin_covers_is_told_before_the_reset(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = held_back(b);
    u->accept = 1;
    tnl_stream_resume(u->s);
    assert_int_equal(u->resets + u->fins, 0);
    u->accept = SIZE_MAX;
    tnl_stream_resume(u->s);
    assert_memory_equal(u->got, "abcdef", 6);
    assert_int_equal(u->fins, 1);
    assert_int_equal(u->resets, 1);
    assert_int_equal(u->code, -TUNNEL_E_REFUSED);
    assert_int_equal(b->retired, 1);
    user_free(u);
    bench_free(b);
}

static void who_leaves_needs_no_more_of_it(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        bench *b = bench_new(NULL);
        user *u = held_back(b);
        if (how)
            tnl_stream_reset(u->s, TUNNEL_E_CANCELED, NULL);
        user_release(u);
        assert_int_equal(b->retired, 1);
        assert_int_equal(u->fins + u->resets, 0);
        user_free(u);
        bench_free(b);
    }
}

/* A FIN that bytes are missing of covers nothing yet. */
static void an_incomplete_end_is_dropped(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 6, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 6, NULL), 0);
    assert_int_equal(u->fins, 0);
    assert_int_equal(u->resets, 1);
    user_free(u);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_goes_first),
        cmocka_unit_test(so_does_the_end),
        cmocka_unit_test(nothing_to_wait_for),
        cmocka_unit_test(both_break),
        cmocka_unit_test(waiting_can_be_cut_short),
        cmocka_unit_test(what_a_fin_covers_is_told_before_the_reset),
        cmocka_unit_test(who_leaves_needs_no_more_of_it),
        cmocka_unit_test(an_incomplete_end_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
