/* SPDX-License-Identifier: Apache-2.0 */
/* The parser and the writers when memory runs out at any of their allocations, and what an idle
 * parser keeps. */
#include <stdlib.h>

#include "base/mem.h"
#include "http/head_write.h"
#include "unit/http_trace.h"

static size_t allocations; /* so far */
static size_t fail_at;     /* the one that fails, counted from 1; 0: none */
static size_t live;        /* not yet freed */

static bool fails(void)
{
    return ++allocations == fail_at;
}

void *tnl_malloc(size_t size)
{
    void *p = fails() ? NULL : malloc(size);
    live += p != NULL;
    return p;
}

void *tnl_calloc(size_t count, size_t size)
{
    void *p = fails() ? NULL : calloc(count, size);
    live += p != NULL;
    return p;
}

void *tnl_realloc(void *p, size_t size)
{
    if (fails())
        return NULL;
    live += p == NULL;
    return realloc(p, size);
}

void tnl_free(void *p)
{
    live -= p != NULL;
    free(p);
}

static int write_both(void *user, const tnl_http_head *h)
{
    tnl_buf *out = user;
    int rc = tnl_http_write_request(out, h, &(tnl_http_request_options){.pass_upgrade = true});
    return rc ? rc : tnl_http_write_page(out, &(tnl_http_reply){.status = 502}, "text");
}

static int body(void *user, const uint8_t *p, size_t n)
{
    return tnl_http_write_chunk(user, p, n);
}

static int trailers(void *user, const tnl_http_field *f, size_t n)
{
    return tnl_http_write_last_chunk(user, f, n);
}

static int end(void *user)
{
    (void)user;
    return 0;
}

static const char input[] =
    "POST http://a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "3\r\nabc\r\n0\r\nA: b\r\n\r\n";

static int run(size_t step)
{
    static const tnl_http_events events = {write_both, body, trailers, end};
    tnl_http_parser *p;
    tnl_buf out;
    size_t used;

    tnl_buf_init(&out, 65536);
    int rc = tnl_http_parser_new(&p, true, NULL, &events, &out);
    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < sizeof input - 1; i += step) {
        size_t n = sizeof input - 1 - i;
        rc = tnl_http_feed(p, (const uint8_t *)input + i, n < step ? n : step, &used);
    }
    if (!rc) {
        size_t before = live;
        tnl_http_next(p);
        assert_true(tnl_http_idle(p));
        assert_true(live < before);
        assert_int_equal(live, out.data ? 2 : 1); /* the parser itself, and what was written */
    } else {
        assert_int_equal(tnl_http_error_status(p), 500);
    }
    tnl_http_parser_free(p);
    tnl_buf_free(&out);
    return rc;
}

static void check(size_t step)
{
    int rc;
    fail_at = 0;
    do {
        allocations = 0;
        fail_at++;
        rc = run(step);
        assert_int_equal(live, 0);
        assert_true(rc == 0 || rc == TUNNEL_E_NOMEM);
        assert_int_equal(rc != 0, allocations >= fail_at);
    } while (rc);
    assert_true(fail_at > 5);
}

static void test_whole(void **state)
{
    (void)state;
    check(sizeof input);
}

static void test_pieces(void **state)
{
    (void)state;
    check(1);
    check(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
