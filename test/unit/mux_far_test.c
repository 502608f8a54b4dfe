/* SPDX-License-Identifier: Apache-2.0 */
#include "mux/internal.h"
#include "unit/mux_bench.h"

/* Windows grow further for a peer that is far, and as much is kept for one that grants more. */
static void test_far_peers(void **state)
{
    (void)state;
    tnl_mux_config c = bench_config();
    c.max_window = 2 * WINDOW;
    c.far_window = 4 * WINDOW;
    c.surplus = 1 << 20;
    for (uint32_t rtt = TNL_MUX_FAR_MS - 1; rtt <= TNL_MUX_FAR_MS; rtt++) {
        uint64_t most = rtt < TNL_MUX_FAR_MS ? c.max_window : c.far_window;
        bench *b = bench_new(&c);
        tnl_mux_set_rtt(b->mux, b->link[0], rtt, b->now);
        assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
        uint64_t at = 0, limit = WINDOW;
        for (int i = 0; i < 6; i++) {
            uint64_t next = fill_window(b, 1, at, limit);
            at = limit;
            limit = next;
        }
        assert_int_equal(limit - at, most);
        tnl_stream *s = b->user[0].s;
        assert_int_equal(tnl_stream_room(s), TNL_MUX_MAX_UNSENT);
        /* The peer grants 600 KiB, and takes them: they are kept until it has acknowledged. */
        assert_int_equal(in_ack(b, 1, 0, 600 * 1024), 0);
        uint8_t piece[1024] = {1};
        size_t kept = 0;
        for (size_t n; (n = tnl_stream_write(s, piece, sizeof(piece))) > 0; out(b))
            kept += n;
        assert_int_equal(kept, 600 * 1024);
        assert_int_equal(b->mux->held, kept);
        user_release(&b->user[0]);
        bench_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_far_peers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
