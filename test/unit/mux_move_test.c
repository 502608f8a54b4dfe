/* SPDX-License-Identifier: Apache-2.0 */
/* A stream moves to another link while its OPEN is not acknowledged. */
#include "mux/mux.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef struct endpoint {
    tnl_mux *mux;
    tnl_mux_link *link[2];
    tnl_stream *stream;
    char got[64];
    size_t got_len;
    uint8_t
        order[64]; /* types of the frames that arrived for streams other than the control stream */
    size_t order_len;
} endpoint;

typedef struct arrival {
    endpoint *to;
    tnl_mux_link *link;
} arrival;

static size_t on_data(void *user, const uint8_t *p, size_t n)
{
    endpoint *e = user;
    assert_true(e->got_len + n < sizeof(e->got));
    memcpy(e->got + e->got_len, p, n);
    e->got_len += n;
    return n;
}

static const tnl_stream_events stream_events = {.data = on_data};

static void on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n)
{
    endpoint *e = user;
    assert_null(e->stream);
    assert_int_equal(n, 1);
    assert_int_equal(map[0], 0x80);
    e->stream = s;
    tnl_stream_set_events(s, &stream_events, e);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    (void)user;
    (void)type;
    (void)p;
    (void)n;
    return 0;
}

static void on_wake(void *user, void *link_user)
{
    (void)user;
    (void)link_user;
}

static const tnl_mux_events mux_events = {.open = on_open, .control = on_control, .wake = on_wake};

static void start(endpoint *e, bool server)
{
    tnl_limits limits = {.max_frame = 65536, .max_streams = 10, .window = 65536};
    tnl_mux_config config = {
        .server = server, .local = limits, .remote = limits, .max_window = 65536};
    memset(e, 0, sizeof(*e));
    assert_int_equal(tnl_mux_new(&e->mux, &config, &mux_events, e), 0);
    for (size_t i = 0; i < 2; i++) {
        e->link[i] = tnl_mux_link_add(e->mux, 1 << 20, false, NULL);
        assert_non_null(e->link[i]);
    }
}

static int on_frame(void *user, const tnl_frame *f)
{
    arrival *a = user;
    if (f->stream && a->to->order_len < sizeof(a->to->order))
        a->to->order[a->to->order_len++] = f->type;
    return tnl_mux_frame(a->to->mux, a->link, f, 1);
}

static void deliver(endpoint *to, size_t link, const uint8_t *p, size_t n)
{
    tnl_decoder d;
    arrival a = {to, to->link[link]};
    tnl_decoder_init(&d, 65536);
    assert_int_equal(tnl_decoder_feed(&d, p, n, on_frame, &a), 0);
    tnl_decoder_free(&d);
}

static void carry(endpoint *from, endpoint *to, size_t link)
{
    uint8_t bytes[4096];
    for (size_t n; (n = tnl_mux_pull(from->mux, from->link[link], bytes, sizeof(bytes), 1000));)
        deliver(to, link, bytes, n);
}

static void finish(endpoint *e)
{
    tnl_stream_release(e->stream);
    tnl_mux_free(e->mux);
}

static void test_move(bool lost)
{
    endpoint a, b;
    uint8_t under_way[4096];
    start(&a, true);
    start(&b, false);
    assert_int_equal(tnl_mux_open(a.mux, &a.stream, (const uint8_t *)"\x80", 1, &stream_events, &a),
                     0);
    assert_int_equal(tnl_stream_write(a.stream, "hello ", 6), 6);

    /* The stream is pinned to the first link, where OPEN and DATA are under way when it has to
     * leave. */
    size_t n = tnl_mux_pull(a.mux, a.link[0], under_way, sizeof(under_way), 1000);
    assert_true(n > 0);
    if (lost)
        tnl_mux_link_lost(a.mux, a.link[0]);
    else
        tnl_mux_link_drain(a.mux, a.link[0]);
    assert_int_equal(tnl_stream_write(a.stream, "world", 5), 5);
    carry(&a, &b, 1);
    assert_non_null(b.stream);
    assert_int_equal(b.order[0], TNL_FRAME_OPEN);
    if (!lost)
        deliver(&b, 0, under_way, n);
    assert_int_equal(b.got_len, 11);
    assert_memory_equal(b.got, "hello world", 11);
    finish(&a);
    finish(&b);
}

static void test_lost(void **state)
{
    (void)state;
    test_move(true);
}

static void test_drained(void **state)
{
    (void)state;
    test_move(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lost), cmocka_unit_test(test_drained)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
