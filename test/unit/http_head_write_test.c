/* SPDX-License-Identifier: Apache-2.0 */
#include "http/head_write.h"

#include "unit/http_trace.h"

/* What is to be done with a head that was parsed. */
typedef struct job {
    tnl_buf *out;
    const tnl_http_request_options *request;
    const tnl_http_response_options *response;
    int rc;
} job;

static int write_head(void *user, const tnl_http_head *h)
{
    job *j = user;
    if (j->request)
        j->rc = tnl_http_write_request(j->out, h, j->request);
    else
        j->rc = tnl_http_write_response(j->out, h, j->response);
    return 0;
}

static int no_body(void *user, const uint8_t *p, size_t n)
{
    (void)user;
    (void)p;
    (void)n;
    return 0;
}

static int no_end(void *user)
{
    (void)user;
    return 0;
}

static int rewrite(job *j, const char *in, bool head_request)
{
    static const tnl_http_events events = {.head = write_head, .body = no_body, .end = no_end};
    tnl_http_parser *p;
    size_t used;
    assert_int_equal(tnl_http_parser_new(&p, j->request != NULL, NULL, &events, j), 0);
    tnl_http_expect(p, head_request, true);
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)in, strlen(in), &used), 0);
    tnl_http_parser_free(p);
    return j->rc;
}

/* Checks the text and leaves the buffer empty. */
static void expect(tnl_buf *b, const char *text)
{
    assert_int_equal(tnl_buf_add(b, "", 1), 0);
    assert_string_equal((const char *)tnl_buf_bytes(b), text);
    tnl_buf_free(b);
}

static void check_request(const char *in, const tnl_http_request_options *o, const char *expected)
{
    tnl_buf out;
    tnl_buf_init(&out, 65536);
    assert_int_equal(rewrite(&(job){.out = &out, .request = o}, in, false), 0);
    expect(&out, expected);
}

static void check_response(const char *in, bool head_request, const tnl_http_response_options *o,
                           const char *expected)
{
    tnl_buf out;
    tnl_buf_init(&out, 65536);
    assert_int_equal(rewrite(&(job){.out = &out, .response = o}, in, head_request), 0);
    expect(&out, expected);
}

static tnl_http_span span(const char *s)
{
    return (tnl_http_span){s, strlen(s)};
}

static const tnl_http_request_options nothing;

static void test_request(void **state)
{
    (void)state;
    check_request(
        "GET /a?b HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nCookie: a=b\r\n\r\n", &nothing,
        "GET /a?b HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nCookie: a=b\r\nConnection: keep-alive\r\n\r\n");
    check_request("GET http://b/c HTTP/1.1\r\nhost: a\r\n\r\n", &nothing,
                  "GET /c HTTP/1.1\r\nHost: b\r\nConnection: keep-alive\r\n\r\n");
    check_request("GET / HTTP/1.0\r\n\r\n",
                  &(tnl_http_request_options){.host = span("local:3000"), .close = true},
                  "GET / HTTP/1.1\r\nHost: local:3000\r\nConnection: close\r\n\r\n");
    check_request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &nothing,
                  "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
}

static void test_request_forwarded(void **state)
{
    const tnl_http_request_options o = {.forwarded_for = span("192.0.2.1"),
                                        .forwarded_host = span("a:8080"),
                                        .forwarded_proto = span("https")};
    (void)state;
    check_request(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\n"
        "X-FORWARDED_PROTO: http\r\nX-Forwarded-Prefix: /x\r\nX-Forwarded-Host: b\r\nForwarded: for=1\r\n"
        "X-Real-IP: 1.2.3.4\r\nX_Real_IP: 1.2.3.4\r\nX-Forwarded: no\r\nProxy: http://evil\r\n\r\n",
        &o,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded: no\r\nX-Forwarded-For: 192.0.2.1\r\n"
        "X-Forwarded-Host: a:8080\r\nX-Forwarded-Proto: https\r\nConnection: keep-alive\r\n\r\n");
    /* Nominating a field of ours does not make it go away. */
    check_request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for, host, X-Mine\r\nX-Mine: 1\r\n\r\n",
        &o,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n"
        "X-Forwarded-Host: a:8080\r\nX-Forwarded-Proto: https\r\nConnection: keep-alive\r\n\r\n");
}

static void test_request_by_path(void **state)
{
    static const char *const paths[][2] = {
        {"", "/"}, {"?x", "/?x"}, {"/", "/"}, {"/a?b", "/a?b"}, {"//", "//"}};
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        char want[200];
        const tnl_http_request_options o = {.path = {paths[i][0], strlen(paths[i][0])},
                                            .forwarded_prefix = span("/id"),
                                            .loop = span("t1.ab")};
        snprintf(want, sizeof(want),
                 "GET %s HTTP/1.1\r\nHost: a\r\nCDN-Loop: cdn; x\r\nX-Forwarded-Prefix: /id\r\n"
                 "CDN-Loop: t1.ab\r\nConnection: keep-alive\r\n\r\n",
                 paths[i][1]);
        check_request("GET /id/zzz HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /evil\r\n"
                      "CDN-Loop: cdn; x\r\n\r\n",
                      &o, want);
    }
}

static void test_request_hop_by_hop(void **state)
{
    (void)state;
    check_request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Foo\r\nconnection: x-bar\r\nKeep-Alive: 5\r\n"
        "Proxy-Connection: x\r\nProxy-Authorization: x\r\nX-FOO: 1\r\nX-Bar: 2\r\nX-Foo-Bar: 3\r\n"
        "Transfer_Encoding: chunked\r\nContent_Length: 5\r\nTE: gzip\r\nTrailer: X\r\n\r\n",
        &nothing, "GET / HTTP/1.1\r\nHost: a\r\nX-Foo-Bar: 3\r\nConnection: keep-alive\r\n\r\n");
    check_request(
        "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n", &nothing,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, TE\r\nTE: trailers\r\n\r\n");
}

static void test_request_upgrade(void **state)
{
    const char *websocket =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: k\r\n\r\n";
    const tnl_http_request_options pass = {.pass_upgrade = true};
    (void)state;
    check_request(
        websocket, &pass,
        "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    check_request(
        websocket, &nothing,
        "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: keep-alive\r\n\r\n");
    check_request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AA\r\n\r\n",
        &pass, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    check_request(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        "Content-Length: 2\r\n\r\nhi",
        &pass,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
}

static void test_request_body(void **state)
{
    (void)state;
    check_request(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nExpect: 100-continue\r\nTrailer: X\r\n\r\n",
        &nothing,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n");
    check_request(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &nothing,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
    check_request(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\nTrailer: X\r\n\r\n",
        &(tnl_http_request_options){.pass_expect = true},
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
        "Connection: keep-alive\r\n\r\n");
}

static void test_response(void **state)
{
    const tnl_http_response_options new = {.minor = 1}, last = {.minor = 1, .close = true},
                                    old = {.minor = 0};
    const char *length =
        "HTTP/1.1 200 Fine\r\nDate: d\r\nContent-Length: 5\r\nConnection: close, X\r\nX: y\r\n"
        "Keep-Alive: timeout=5\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n";
    const char *chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n";
    const char *until_close = "HTTP/1.0 200 OK\r\n\r\n";
    (void)state;

    check_response(
        length, false, &new,
        "HTTP/1.1 200 Fine\r\nDate: d\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 5\r\n\r\n");
    check_response(
        length, false, &last,
        "HTTP/1.1 200 Fine\r\nDate: d\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
    check_response(
        length, false, &old,
        "HTTP/1.1 200 Fine\r\nDate: d\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
    check_response(chunked, false, &new,
                   "HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n");
    check_response(chunked, false, &old, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    check_response(until_close, false, &new,
                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    check_response(until_close, false, &last,
                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    check_response(until_close, false, &old, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

static void test_response_without_body(void **state)
{
    const tnl_http_response_options new = {.minor = 1}, old = {.minor = 0};
    (void)state;
    check_response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, &new,
                   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    check_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, &old,
                   "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n");
    check_response("HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", false, &new,
                   "HTTP/1.1 204 N\r\n\r\n");
    check_response("HTTP/1.1 304 N\r\nETag: e\r\nContent-Length: 9\r\n\r\n", false, &new,
                   "HTTP/1.1 304 N\r\nETag: e\r\nContent-Length: 9\r\n\r\n");
    check_response("HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n", false, &new,
                   "HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n");
    check_response("HTTP/1.1 103 Early Hints\r\nLink: l\r\nConnection: close\r\n\r\n", false, &new,
                   "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n");
    check_response("HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n", false, &old, "");
    check_response(
        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        false, &new,
        "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    check_response(
        "HTTP/1.1 426 U\r\nUpgrade: websocket\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        false, &new,
        "HTTP/1.1 426 U\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n");
    check_response("HTTP/1.1 426 U\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", false, &new,
                   "HTTP/1.1 426 U\r\nContent-Length: 0\r\n\r\n");
    check_response("HTTP/1.1 400 B\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", false, &new,
                   "HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n");
}

/* What is written for a request parses to the same request, and is then written the same. */
static void test_round_trip(void **state)
{
    static const char *const requests[] = {
        "GET /a HTTP/1.1\r\nHost: a\r\nX:\r\nY: \xff\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nTE: trailers\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a, b/1\r\nUpgrade: c\r\n\r\n",
    };
    const tnl_http_request_options o = {.pass_upgrade = true, .pass_expect = true};
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        tnl_buf first, second;
        tnl_buf_init(&first, 65536);
        tnl_buf_init(&second, 65536);
        assert_int_equal(rewrite(&(job){.out = &first, .request = &o}, requests[i], false), 0);
        assert_int_equal(tnl_buf_add(&first, "", 1), 0);
        assert_int_equal(rewrite(&(job){.out = &second, .request = &o},
                                 (const char *)tnl_buf_bytes(&first), false),
                         0);
        expect(&second, (const char *)tnl_buf_bytes(&first));
        tnl_buf_free(&first);
    }
}

static void test_reply(void **state)
{
    tnl_http_field allow = {span("Allow"), span("GET, HEAD")};
    tnl_http_reply r = {
        .status = 405, .fields = &allow, .field_count = 1, .minor = 1, .close = true};
    tnl_buf out;
    (void)state;

    tnl_buf_init(&out, 4096);
    assert_int_equal(tnl_http_write_reply(&out, &r, "no\n", 3), 0);
    expect(
        &out,
        "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 3\r\nConnection: close\r\n\r\nno\n");
    r = (tnl_http_reply){.status = 200, .content_type = "application/json", .head_request = true};
    assert_int_equal(tnl_http_write_reply(&out, &r, "{}", 2), 0);
    expect(
        &out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n");
    r = (tnl_http_reply){.status = 100, .minor = 1};
    assert_int_equal(tnl_http_write_reply(&out, &r, NULL, 0), 0);
    expect(&out, "HTTP/1.1 100 Continue\r\n\r\n");
    r = (tnl_http_reply){.status = 204, .minor = 1};
    assert_int_equal(tnl_http_write_reply(&out, &r, "x", 1), 0);
    expect(&out, "HTTP/1.1 204 No Content\r\n\r\n");
}

static void test_page(void **state)
{
    tnl_http_reply r = {.status = 502, .minor = 1};
    trace t = {0};
    tnl_buf out;
    (void)state;

    tnl_buf_init(&out, 65536);
    assert_int_equal(tnl_http_write_page(&out, &r, "<b>\"Tom\" & 'Jerry'</b>\n\nsecond"), 0);
    trace_run(&t, NULL, tnl_buf_bytes(&out), tnl_buf_len(&out), 0);
    const char *text = (const char *)tnl_buf_bytes(&t.text);
    assert_ptr_equal(strstr(text, "502 1 keep len="), text);
    assert_non_null(strstr(
        text,
        "<h1>502 Bad Gateway</h1>\n<p>&lt;b&gt;&quot;Tom&quot; &amp; &#39;Jerry&#39;&lt;/b&gt;</p>\n"
        "<p>second</p>\n</body>"));
    assert_string_equal(text + strlen(text) - strlen("</html>\n] ."), "</html>\n] .");
    tnl_buf_free(&t.text);

    /* For HEAD the same without the page. */
    size_t whole = tnl_buf_len(&out);
    r.head_request = true;
    tnl_buf_clear(&out);
    assert_int_equal(tnl_http_write_page(&out, &r, "x"), 0);
    assert_true(tnl_buf_len(&out) < whole);
    assert_memory_equal(tnl_buf_bytes(&out) + tnl_buf_len(&out) - 4, "\r\n\r\n", 4);
    tnl_buf_free(&out);
}

static void test_chunks(void **state)
{
    char head[TNL_HTTP_CHUNK_HEAD_MAX];
    tnl_http_field f = {span("A"), span("b")};
    tnl_buf out;
    (void)state;

    assert_int_equal(tnl_http_chunk_head(head, 1), 3);
    assert_memory_equal(head, "1\r\n", 3);
    assert_int_equal(tnl_http_chunk_head(head, 0x10), 4);
    assert_memory_equal(head, "10\r\n", 4);
    assert_int_equal(tnl_http_chunk_head(head, SIZE_MAX), 18);
    assert_memory_equal(head, "ffffffffffffffff\r\n", 18);

    tnl_buf_init(&out, 256);
    assert_int_equal(tnl_http_write_chunk(&out, "0123456789", 10), 0);
    assert_int_equal(tnl_http_write_chunk(&out, "", 0), 0);
    assert_int_equal(tnl_http_write_last_chunk(&out, &f, 1), 0);
    expect(&out, "a\r\n0123456789\r\n0\r\nA: b\r\n\r\n");
    assert_int_equal(tnl_http_write_last_chunk(&out, NULL, 0), 0);
    expect(&out, "0\r\n\r\n");
}

/* Without room nothing is written, and what was there stays. */
static void test_all_or_nothing(void **state)
{
    const char *request = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    (void)state;
    for (size_t max = 3; max < 60; max++) {
        tnl_buf out;
        tnl_buf_init(&out, max);
        assert_int_equal(tnl_buf_adds(&out, "abc"), 0);
        assert_int_equal(rewrite(&(job){.out = &out, .request = &nothing}, request, false),
                         TUNNEL_E_LIMIT);
        assert_int_equal(tnl_http_write_page(&out, &(tnl_http_reply){.status = 502}, "x"),
                         TUNNEL_E_LIMIT);
        assert_int_equal(tnl_buf_len(&out), 3);
        assert_memory_equal(tnl_buf_bytes(&out), "abc", 3);
        tnl_buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_request_forwarded),
        cmocka_unit_test(test_request_by_path),
        cmocka_unit_test(test_request_hop_by_hop),
        cmocka_unit_test(test_request_upgrade),
        cmocka_unit_test(test_request_body),
        cmocka_unit_test(test_response),
        cmocka_unit_test(test_response_without_body),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
