/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of streams: opening, credit, ends, ids, limits, what is refused. Links are in
 * mux_link_test.c. */
#include "unit/mux_bench.h"

#include "mux/internal.h"

/* --- opening and data ------------------------------------------------------------------------- */

static void test_open_and_data_go_in_one_batch(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    assert_int_equal(tnl_stream_id(u->s), 2);
    assert_int_equal(tnl_stream_write(u->s, "hello", 5), 5);
    tnl_stream_fin(u->s);
    assert_true(b->woken[0]);
    assert_true(batch_on(b, 0, 2048) > 0);
    ASSERT_TYPES(b, "OPEN DATA FIN");
    assert_int_equal(b->frame[0].f.rest_len, 1);
    assert_memory_equal(b->frame[1].rest, "hello", 5);
    assert_int_equal(b->frame[2].f.offset, 5);
    assert_true(tnl_stream_flushed(u->s));
    assert_int_equal(batch_on(b, 0, 2048), 0);
    user_free(u);
    bench_free(b);
}

static void test_peer_opens(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, "map"), 0);
    assert_int_equal(b->opens, 1);
    assert_int_equal(b->map_len, 3);
    assert_memory_equal(b->map, "map", 3);
    assert_int_equal(tnl_stream_id(b->user[0].s), 1);
    assert_ptr_equal(tnl_stream_user(b->user[0].s), &b->user[0]);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "ab"), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 2, "cd"), 0);
    assert_memory_equal(b->user[0].got, "abcd", 4);
    /* It is acknowledged when the time has come, with one frame. */
    assert_false(b->woken[0]);
    assert_int_equal(tnl_mux_expiry(b->mux), b->now + TNL_MUX_ACK_DELAY_MS);
    tnl_mux_tick(b->mux, b->now + TNL_MUX_ACK_DELAY_MS - 1);
    assert_false(b->woken[0]);
    tnl_mux_tick(b->mux, b->now + TNL_MUX_ACK_DELAY_MS);
    assert_int_equal(tnl_mux_expiry(b->mux), UINT64_MAX);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->offset, 4);
    user_release(&b->user[0]);
    bench_free(b);
}

static void test_acks_when_the_clock_is_set_back(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->now = 3600000;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, "map"), 0);
    tnl_mux_tick(b->mux, 1000);
    assert_int_equal(tnl_mux_expiry(b->mux), 1000 + TNL_MUX_ACK_DELAY_MS);
    tnl_mux_tick(b->mux, 1000 + TNL_MUX_ACK_DELAY_MS);
    assert_int_equal(out(b), 1);
    bench_free(b);
}

static void test_acks_follow_the_bytes_of_all_streams(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    for (uint64_t id = 1; id <= 31; id += 2)
        assert_int_equal(in(b, TNL_FRAME_OPEN, id, 0, NULL), 0);
    /* Far less than a quarter of the window on each, but much altogether. */
    for (uint64_t id = 1; id <= 27; id += 2)
        assert_int_equal(in_bytes(b, id, 0, 1100), 0);
    assert_int_equal(out(b), 0);
    assert_int_equal(in_bytes(b, 29, 0, 1100), 0);
    assert_int_equal(out(b), 16);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->offset, 1100);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 31)->offset, 0);
    bench_free(b);
}

static void test_open_is_refused(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->refuse = true;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "early"), 0);
    assert_true(out(b) > 0);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 1)->code, -TUNNEL_E_DENIED);
    assert_int_equal(in_ack(b, 1, 2, 0), 0);
    assert_int_equal(b->retired, 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 1, 5, NULL), 0);
    assert_int_equal(b->retired, 1);
    assert_int_equal(tnl_mux_stream_count(b->mux), 0);
    bench_free(b);
}

static void test_open_arguments(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    uint8_t map[TNL_MUX_MAX_OPEN_MAP + 1] = {0};
    tnl_stream *s;
    assert_int_equal(tnl_mux_open(b->mux, &s, map, sizeof(map), &bench_stream_events, NULL),
                     TUNNEL_E_INVALID);
    assert_int_equal(tnl_mux_open(b->mux, &s, map, sizeof(map) - 1, &bench_stream_events, NULL), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(b->frame[0].f.rest_len, TNL_MUX_MAX_OPEN_MAP);
    bench_free(b);
    tnl_mux *m;
    tnl_mux_config c = bench_config();
    c.local.window = 16383;
    assert_int_equal(tnl_mux_new(&m, &c, &bench_events, NULL), TUNNEL_E_INVALID);
    c = bench_config();
    c.remote.max_frame = 65537;
    assert_int_equal(tnl_mux_new(&m, &c, &bench_events, NULL), TUNNEL_E_INVALID);
    c = bench_config();
    c.max_window = WINDOW - 1;
    assert_int_equal(tnl_mux_new(&m, &c, &bench_events, NULL), TUNNEL_E_INVALID);
    tnl_mux_free(NULL);
}

/* Every order of five pieces, overlapping, gives the same bytes. */
static void test_out_of_order(void **state)
{
    (void)state;
    static const struct {
        uint64_t from;
        size_t n;
    } pieces[] = {{0, 10}, {8, 1000}, {1008, 1}, {1005, 3000}, {4005, 100}};
    for (unsigned order = 0; order < 3125; order++) {
        unsigned digits[5], used = 0;
        for (unsigned i = 0, x = order; i < 5; i++, x /= 5)
            used |= 1u << (digits[i] = x % 5);
        if (used != 31)
            continue;
        bench *b = bench_new(NULL);
        assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
        assert_int_equal(in(b, TNL_FRAME_FIN, 1, 4105, NULL), 0);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(in_bytes(b, 1, pieces[digits[i]].from, pieces[digits[i]].n), 0);
        assert_pattern(&b->user[0], 4105);
        assert_int_equal(b->user[0].fins, 1);
        out(b);
        assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->offset, 4106);
        bench_free(b);
    }
}

static void test_too_many_pieces(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    for (uint64_t i = 0; i < TNL_MUX_MAX_RANGES; i++)
        assert_int_equal(in_bytes(b, 1, 10 + 20 * i, 10), 0);
    assert_int_equal(in_bytes(b, 1, 10 + 20 * TNL_MUX_MAX_RANGES, 10), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_bytes(b, 1, 0, 20 * TNL_MUX_MAX_RANGES), 0);
    assert_pattern(&b->user[0], 10 + 20 * TNL_MUX_MAX_RANGES - 10);
    bench_free(b);
}

static void test_duplicates(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in_bytes(b, 1, 0, 100), 0);
    tnl_mux_tick(b->mux, b->now + 100);
    out(b);
    assert_int_equal(in_bytes(b, 1, 0, 100), 0);
    assert_int_equal(in_bytes(b, 1, 50, 60), 0);
    assert_pattern(&b->user[0], 110);
    assert_int_equal(tnl_mux_get_stats(b->mux)->duplicate, 150);
    assert_int_equal(tnl_mux_get_stats(b->mux)->data_in, 110);
    /* The peer does not know that it arrived. */
    tnl_mux_tick(b->mux, b->now + 200);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->offset, 110);
    bench_free(b);
}

/* --- credit ----------------------------------------------------------------------------------- */

static void test_sender_keeps_to_credit(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    static uint8_t bytes[100000];
    assert_int_equal(tnl_stream_write(u->s, bytes, sizeof(bytes)), sizeof(bytes));
    out(b);
    ASSERT_TYPES(b, "OPEN DATA");
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->rest_len, WINDOW);
    assert_false(tnl_stream_flushed(u->s));
    assert_int_equal(in_ack(b, 2, 0, WINDOW + 1), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->rest_len, 1);
    /* It is never taken back. */
    assert_int_equal(in_ack(b, 2, 10, 0), 0);
    assert_int_equal(in_ack(b, 2, 10, WINDOW + 3), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 2)->rest_len, 2);
    user_free(u);
    bench_free(b);
}

static void test_frames_keep_to_max_frame(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.remote.max_frame = 1024;
    bench *b = bench_new(&c);
    user *u = user_new(b);
    static uint8_t bytes[WINDOW];
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    assert_int_equal(out(b), 17);
    for (size_t i = 1; i < b->frames; i++)
        assert_int_equal(b->frame[i].f.rest_len, 1024);
    user_free(u);
    bench_free(b);
}

static void test_credit_moves_with_use(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    user *u = &b->user[0];
    u->accept = 0;
    assert_int_equal(in_bytes(b, 1, 0, WINDOW), 0);
    tnl_mux_tick(b->mux, b->now + 100);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->offset, WINDOW);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->limit, WINDOW);
    assert_int_equal(in_bytes(b, 1, WINDOW, 1), TUNNEL_E_PROTOCOL);
    /* Less than a quarter is not worth a frame. */
    u->accept = WINDOW / 4 - 1;
    tnl_stream_resume(u->s);
    assert_int_equal(out(b), 0);
    u->accept = 1;
    tnl_stream_resume(u->s);
    assert_int_equal(out(b), 1);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 1)->limit, WINDOW + WINDOW / 4);
    assert_int_equal(in_bytes(b, 1, WINDOW, WINDOW / 4), 0);
    u->accept = SIZE_MAX;
    tnl_stream_resume(u->s);
    assert_pattern(u, WINDOW + WINDOW / 4);
    bench_free(b);
}

static void test_window_grows(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    /* In small pieces, as over a long path: what counts is that the peer stopped at its limit. */
    for (uint64_t at = 0; at < WINDOW; at += 1024) {
        assert_int_equal(b->mux->surplus_used, 0);
        assert_int_equal(in_bytes(b, 1, at, 1024), 0);
        if (at + 1024 < WINDOW)
            out(b);
    }
    out(b);
    uint64_t limit = frame_of(b, TNL_FRAME_ACK, 1)->limit;
    assert_int_equal(limit, WINDOW + 2 * WINDOW);
    for (uint64_t window = 2 * WINDOW, at = WINDOW; window < 8 * WINDOW; window *= 2) {
        uint64_t next = fill_window(b, 1, at, limit);
        assert_int_equal(next, limit + 2 * window);
        at = limit;
        limit = next;
    }
    assert_int_equal(b->mux->surplus_used, 7 * WINDOW);
    /* Not beyond max_window. */
    uint64_t next = fill_window(b, 1, limit - 8 * WINDOW, limit);
    assert_int_equal(next, limit + 8 * WINDOW);
    /* And all is given back. */
    user_release(&b->user[0]);
    assert_int_equal(b->mux->surplus_used, 0);
    bench_free(b);
}

static void test_window_does_not_grow(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.surplus = WINDOW + 5;
    bench *b = bench_new(&c);
    for (uint64_t id = 1; id <= 5; id += 2)
        assert_int_equal(in(b, TNL_FRAME_OPEN, id, 0, NULL), 0);
    /* The user has something waiting. */
    b->user[0].accept = WINDOW - 1;
    assert_int_equal(in_bytes(b, 1, 0, WINDOW), 0);
    b->user[0].accept = SIZE_MAX;
    tnl_stream_resume(b->user[0].s);
    assert_int_equal(b->mux->surplus_used, 0);
    /* The peer did not stop at the limit. */
    assert_int_equal(in_bytes(b, 3, 0, WINDOW - 1), 0);
    out(b);
    assert_int_equal(in_bytes(b, 3, WINDOW - 1, 2), 0);
    assert_int_equal(b->mux->surplus_used, 0);
    /* The budget is for all: the first takes it, the second gets none. */
    assert_int_equal(in_bytes(b, 5, 0, WINDOW), 0);
    assert_int_equal(b->mux->surplus_used, WINDOW);
    out(b);
    uint64_t limit = frame_of(b, TNL_FRAME_ACK, 5)->limit;
    assert_int_equal(fill_window(b, 5, WINDOW, limit), limit + 2 * WINDOW);
    assert_int_equal(b->mux->surplus_used, WINDOW);
    bench_free(b);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void test_fin_both_ways(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        bench *b = bench_new(NULL);
        user *u = user_new(b);
        tnl_stream_write(u->s, "abc", 3);
        if (first == 0) {
            tnl_stream_fin(u->s);
            tnl_stream_fin(u->s);
        }
        out(b);
        assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "xy"), 0);
        assert_int_equal(in(b, TNL_FRAME_FIN, 2, 2, NULL), 0);
        assert_int_equal(u->fins, 1);
        out(b);
        assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 3);
        tnl_stream_fin(u->s);
        out(b);
        assert_int_equal(tnl_stream_write(u->s, "more", 4), 0);
        assert_int_equal(in_ack(b, 2, 3, 0), 0);
        assert_int_equal(b->retired, 0);
        assert_int_equal(in_ack(b, 2, 4, 0), 0);
        assert_int_equal(b->retired, 1);
        assert_int_equal(tnl_mux_stream_count(b->mux), 0);
        /* The user may hold on to it as long as it likes. */
        assert_int_equal(tnl_stream_write(u->s, "more", 4), 0);
        tnl_stream_fin(u->s);
        tnl_stream_resume(u->s);
        tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, NULL);
        assert_int_equal(out(b), 0);
        assert_int_equal(u->resets, 0);
        user_free(u);
        bench_free(b);
    }
}

static void test_fin_waits_for_the_user(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    u->accept = 1;
    tnl_stream_fin(u->s);
    out(b);
    assert_int_equal(in_ack(b, 2, 1, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "xyz"), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 3, NULL), 0);
    assert_int_equal(out(b), 1);
    assert_int_equal(b->frame[0].f.offset, 4);
    assert_int_equal(u->fins + b->retired, 0);
    u->accept = SIZE_MAX;
    tnl_stream_resume(u->s);
    assert_int_equal(u->fins, 1);
    assert_int_equal(b->retired, 1);
    user_free(u);
    bench_free(b);
}

static void test_reset_by_this_end(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    static uint8_t bytes[WINDOW + 5];
    tnl_stream_write(u->s, bytes, sizeof(bytes));
    out(b);
    char text[300];
    memset(text, 'x', sizeof(text));
    memcpy(text + TNL_MUX_MAX_RESET_TEXT - 2, "\xe2\x82\xac", 4);
    tnl_stream_reset(u->s, TUNNEL_E_UPSTREAM, text);
    assert_int_equal(out(b), 1);
    const tnl_frame *f = frame_of(b, TNL_FRAME_RESET, 2);
    assert_int_equal(f->offset, WINDOW);
    assert_int_equal(f->code, -TUNNEL_E_UPSTREAM);
    assert_int_equal(f->rest_len, TNL_MUX_MAX_RESET_TEXT - 2);
    /* What still comes is counted, not delivered; no event comes any more. */
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "late"), 0);
    assert_int_equal(in_ack(b, 2, WINDOW, 0), 0);
    assert_int_equal(in_ack(b, 2, WINDOW + 2, 0), 0);
    assert_int_equal(b->retired, 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 4, "why not"), 0);
    assert_int_equal(b->retired, 1);
    assert_int_equal(u->got_len + (size_t)u->resets, 0);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 6);
    user_free(u);
    bench_free(b);
}

static void test_reset_by_the_peer(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "xyz"), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 10, "gone away"), 0);
    assert_int_equal(u->resets, 1);
    assert_int_equal(u->code, -TUNNEL_E_REFUSED);
    assert_string_equal(u->text, "gone away");
    /* Acknowledged, and answered, as our direction is not over. */
    out(b);
    ASSERT_TYPES(b, "ACK RESET");
    assert_int_equal(b->frame[0].f.offset, 12);
    assert_int_equal(b->frame[1].f.offset, 3);
    assert_int_equal(tnl_stream_write(u->s, "more", 4), 0);
    /* Late data is dropped; again is acknowledged again; another final contradicts. */
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 3, "1234567"), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 10, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 10, NULL), 0);
    assert_int_equal(u->resets, 1);
    assert_int_equal(out(b), 2);
    assert_int_equal(b->frame[1].f.offset, 12);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 11, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 3, "12345678"), TUNNEL_E_PROTOCOL);
    assert_int_equal(in_ack(b, 2, 5, 0), 0);
    assert_int_equal(b->retired, 1);
    user_free(u);
    bench_free(b);
}

static void test_reset_after_own_fin(void **state)
{
    (void)state;
    /* An acknowledged FIN stays; one that is not becomes a RESET with the same final. */
    for (int acked = 0; acked < 2; acked++) {
        bench *b = bench_new(NULL);
        user *u = user_new(b);
        tnl_stream_write(u->s, "abc", 3);
        tnl_stream_fin(u->s);
        out(b);
        if (acked)
            assert_int_equal(in_ack(b, 2, 4, 0), 0);
        assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
        assert_int_equal(u->resets, 1);
        out(b);
        assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 2);
        if (acked) {
            assert_int_equal(b->frames, 1);
        } else {
            assert_int_equal(frame_of(b, TNL_FRAME_RESET, 2)->offset, 3);
            assert_int_equal(in_ack(b, 2, 4, 0), 0);
            assert_int_equal(b->retired, 0);
            assert_int_equal(in_ack(b, 2, 5, 0), 0);
        }
        assert_int_equal(b->retired, 1);
        user_free(u);
        bench_free(b);
    }
}

static void test_reset_follows_fin_of_the_peer(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "abc"), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 2, 3, NULL), 0);
    assert_int_equal(u->fins, 1);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 4, NULL), TUNNEL_E_PROTOCOL);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 3, NULL), 0);
    assert_int_equal(u->resets, 1);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_ACK, 2)->offset, 5);
    user_free(u);
    bench_free(b);
}

static void test_resets_cross(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abc", 3);
    out(b);
    tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, NULL);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
    out(b);
    ASSERT_TYPES(b, "ACK RESET");
    assert_int_equal(b->frame[1].f.code, -TUNNEL_E_TIMEOUT);
    assert_int_equal(u->resets, 0);
    user_release(u);
    assert_int_equal(b->retired, 0);
    assert_int_equal(in_ack(b, 2, 5, 0), 0);
    assert_int_equal(b->retired, 1);
    user_free(u);
    bench_free(b);
}

static void test_an_old_ack_takes_nothing_back(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_fin(u->s);
    out(b);
    tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, NULL);
    out(b);
    assert_int_equal(in_ack(b, 2, 2, 0), 0);
    /* Of the FIN; it was overtaken on another link. */
    assert_int_equal(in_ack(b, 2, 1, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
    assert_int_equal(b->retired, 1);
    user_free(u);
    bench_free(b);
}

/* --- release ---------------------------------------------------------------------------------- */

enum {
    FIN_OUT = 1,
    FIN_OUT_ACKED = 2,
    DATA_IN = 4,
    FIN_IN = 8,
    RESET_IN = 16,
    UNREAD = 32,
    SENT = 64
};

/* What comes out after a release in that state; whether it is a RESET. */
static bool release_resets(unsigned how)
{
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    uint64_t final = how & DATA_IN ? 3 : 0;
    u->accept = how & UNREAD ? 1 : SIZE_MAX;
    tnl_stream_write(u->s, "abcd", 4);
    if (how & FIN_OUT)
        tnl_stream_fin(u->s);
    if (how & SENT)
        out(b);
    if (how & FIN_OUT_ACKED)
        assert_int_equal(in_ack(b, 2, 5, 0), 0);
    if (how & DATA_IN)
        assert_int_equal(in(b, TNL_FRAME_DATA, 2, 0, "abc"), 0);
    if (how & FIN_IN)
        assert_int_equal(in(b, TNL_FRAME_FIN, 2, final, NULL), 0);
    if (how & RESET_IN)
        assert_int_equal(in(b, TNL_FRAME_RESET, 2, final, NULL), 0);
    out(b);
    user_release(u);
    out(b);
    const tnl_frame *f = frame_of(b, TNL_FRAME_RESET, 2);
    bool reset = f != NULL;
    if (f) {
        assert_int_equal(f->offset, 4);
        assert_int_equal(f->code, -TUNNEL_E_CANCELED);
        assert_int_equal(in_ack(b, 2, 6, 0), 0);
    } else if (b->retired == 0) {
        assert_int_equal(in_ack(b, 2, how & RESET_IN ? 6 : 5, 0), 0);
    }
    if (!(how & (FIN_IN | RESET_IN)))
        assert_int_equal(in(b, TNL_FRAME_RESET, 2, final, NULL), 0);
    assert_int_equal(b->retired, 1);
    assert_int_equal(tnl_mux_stream_count(b->mux), 0);
    user_free(u);
    bench_free(b);
    return reset;
}

static void test_release_in_every_state(void **state)
{
    (void)state;
    for (unsigned in_state = 0; in_state < 4; in_state++) {
        static const unsigned ins[] = {0, DATA_IN, DATA_IN | UNREAD, DATA_IN | FIN_IN};
        unsigned in_bits = ins[in_state] | SENT;
        assert_true(release_resets(in_bits));
        bool over = ins[in_state] & FIN_IN;
        assert_int_equal(release_resets(in_bits | FIN_OUT), !over);
        assert_int_equal(release_resets(in_bits | FIN_OUT | FIN_OUT_ACKED), !over);
    }
    assert_true(release_resets(SENT | FIN_OUT | DATA_IN | FIN_IN | UNREAD));
    assert_true(release_resets(SENT | FIN_OUT | FIN_OUT_ACKED | DATA_IN | FIN_IN | UNREAD));
    assert_false(release_resets(SENT | RESET_IN));
    assert_false(release_resets(SENT | FIN_OUT | RESET_IN));
    assert_false(release_resets(SENT | FIN_OUT | FIN_OUT_ACKED | RESET_IN));
}

static void test_release_before_anything_was_sent(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    user *u = user_new(b);
    tnl_stream_write(u->s, "abcd", 4);
    user_release(u);
    /* The id is used up, so the peer learns of it. */
    out(b);
    ASSERT_TYPES(b, "OPEN RESET");
    assert_int_equal(b->frame[1].f.offset, 0);
    assert_int_equal(in_ack(b, 2, 2, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 2, 0, NULL), 0);
    assert_int_equal(tnl_mux_stream_count(b->mux), 0);
    user_free(u);
    bench_free(b);
}

/* --- callbacks -------------------------------------------------------------------------------- */

static void release_at(user *u, moment m, moment when)
{
    if (m == when && u->s)
        user_release(u);
}

static void release_on_open(user *u, moment m)
{
    release_at(u, m, ON_OPEN);
}

static void release_on_data(user *u, moment m)
{
    release_at(u, m, ON_DATA);
}

static void release_on_fin(user *u, moment m)
{
    release_at(u, m, ON_FIN);
}

static void release_on_reset(user *u, moment m)
{
    release_at(u, m, ON_RESET);
}

static void release_on_retired(user *u, moment m)
{
    release_at(u, m, ON_RETIRED);
}

static void reset_on_open(user *u, moment m)
{
    if (m == ON_OPEN)
        tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, "on open");
}

static void reset_on_data(user *u, moment m)
{
    if (m == ON_DATA)
        tnl_stream_reset(u->s, TUNNEL_E_TIMEOUT, NULL);
}

static void fin_on_fin(user *u, moment m)
{
    if (m == ON_FIN)
        tnl_stream_fin(u->s);
}

static void open_more(user *u, moment m)
{
    (void)m;
    tnl_stream *s;
    if (tnl_mux_open(u->b->mux, &s, NULL, 0, &bench_stream_events, u) == 0)
        tnl_stream_release(s);
}

static void resume_at_once(user *u, moment m)
{
    if (m == ON_DATA)
        tnl_stream_resume(u->s);
}

/* A whole life of a stream that the peer opened, under a hook. */
static void live(void (*hook)(user *u, moment m), bool reset)
{
    bench *b = bench_new(NULL);
    b->hook = hook;
    user *u = &b->user[0];
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 2, "cd"), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "ab"), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 0, 0, "\x01\0\0\0"), 0);
    out(b);
    assert_int_equal(in(b, reset ? TNL_FRAME_RESET : TNL_FRAME_FIN, 1, 4, NULL), 0);
    if (u->s)
        tnl_stream_fin(u->s);
    out(b);
    uint64_t end = frame_of(b, TNL_FRAME_RESET, 1) ? 2 : 1;
    if (b->retired == 0)
        in_ack(b, 1, end, 0);
    if (b->retired == 0) {
        assert_int_equal(in_ack(b, 1, 2, 0), 0);
        if (!reset)
            assert_int_equal(in(b, TNL_FRAME_RESET, 1, 4, NULL), 0);
    }
    assert_true(b->retired >= 1);
    if (u->s)
        user_release(u);
    out(b);
    bench_free(b);
}

static void test_callbacks_may_do_anything(void **state)
{
    (void)state;
    static void (*const hooks[])(user * u, moment m) = {
        NULL,           release_on_open,  release_on_data,
        release_on_fin, release_on_reset, release_on_retired,
        reset_on_open,  reset_on_data,    fin_on_fin,
        open_more,      resume_at_once,
    };
    for (size_t i = 0; i < sizeof(hooks) / sizeof(*hooks); i++) {
        live(hooks[i], false);
        live(hooks[i], true);
    }
}

/* Reset from inside open(), then let go of much later: it stays the user's until then. */
static void test_reset_inside_open(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->hook = reset_on_open;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_RESET, 1)->code, -TUNNEL_E_TIMEOUT);
    assert_int_equal(in_ack(b, 1, 2, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_RESET, 1, 0, NULL), 0);
    assert_int_equal(b->retired, 1);
    user_release(&b->user[0]);
    bench_free(b);
}

static void other_released(user *u, moment m)
{
    bench *b = u->b;
    if (m == ON_DATA && u == &b->user[0] && b->user[1].s)
        user_release(&b->user[1]);
}

static void test_one_stream_releases_another(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->hook = other_released;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    assert_int_equal(in(b, TNL_FRAME_OPEN, 3, 0, NULL), 0);
    tnl_stream_fin(b->user[1].s);
    out(b);
    assert_int_equal(in(b, TNL_FRAME_FIN, 3, 0, NULL), 0);
    assert_int_equal(in_ack(b, 3, 1, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "x"), 0);
    assert_null(b->user[1].s);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_and_data_go_in_one_batch),
        cmocka_unit_test(test_peer_opens),
        cmocka_unit_test(test_acks_when_the_clock_is_set_back),
        cmocka_unit_test(test_acks_follow_the_bytes_of_all_streams),
        cmocka_unit_test(test_open_is_refused),
        cmocka_unit_test(test_open_arguments),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_too_many_pieces),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_sender_keeps_to_credit),
        cmocka_unit_test(test_frames_keep_to_max_frame),
        cmocka_unit_test(test_credit_moves_with_use),
        cmocka_unit_test(test_window_grows),
        cmocka_unit_test(test_window_does_not_grow),
        cmocka_unit_test(test_fin_both_ways),
        cmocka_unit_test(test_fin_waits_for_the_user),
        cmocka_unit_test(test_reset_by_this_end),
        cmocka_unit_test(test_reset_by_the_peer),
        cmocka_unit_test(test_reset_after_own_fin),
        cmocka_unit_test(test_reset_follows_fin_of_the_peer),
        cmocka_unit_test(test_resets_cross),
        cmocka_unit_test(test_an_old_ack_takes_nothing_back),
        cmocka_unit_test(test_release_in_every_state),
        cmocka_unit_test(test_release_before_anything_was_sent),
        cmocka_unit_test(test_callbacks_may_do_anything),
        cmocka_unit_test(test_reset_inside_open),
        cmocka_unit_test(test_one_stream_releases_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
