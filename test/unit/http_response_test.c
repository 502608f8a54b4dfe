/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/http_trace.h"

#define OK      "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"

static const trace_row plain[] = {
    {"length", TRACE_IN(OK "Content-Length: 5\r\n\r\nhello"), "200 1 keep len=5 [hello] ."},
    {"length 0", TRACE_IN(OK "Content-Length: 0\r\n\r\n"), "200 1 keep len=0 ."},
    {"two in a row", TRACE_IN(OK "Content-Length: 1\r\n\r\nx" OK "Content-Length: 1\r\n\r\ny"),
     "200 1 keep len=1 [x] . 200 1 keep len=1 [y] ."},
    {"close and then more",
     TRACE_IN(OK "Content-Length: 0\r\nConnection: close\r\n\r\n" OK "Content-Length: 0\r\n\r\n"),
     "200 1 close len=0 . 200 1 keep len=0 ."},
    {"chunked", TRACE_IN(CHUNKED "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
     "200 1 keep chunked [abcde] ."},
    {"trailers", TRACE_IN(CHUNKED "0\r\nServer-Timing: a\r\n\r\n"),
     "200 1 keep chunked {Server-Timing=a} ."},
    {"until close", TRACE_IN(OK "\r\nall the rest\r\n\r\n"),
     "200 1 close eof [all the rest\r\n\r\n] ."},
    {"until close, empty", TRACE_IN(OK "\r\n"), "200 1 close eof ."},
    {"until close, keep-alive", TRACE_IN(OK "Connection: keep-alive\r\n\r\nx"),
     "200 1 close eof [x] ."},
    {"until close, HTTP/1.0", TRACE_IN("HTTP/1.0 200 OK\r\n\r\nx"), "200 0 close eof [x] ."},
    {"HTTP/1.0 with length", TRACE_IN("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
     "200 0 close len=1 [x] ."},
    {"HTTP/1.0 keep-alive",
     TRACE_IN("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"),
     "200 0 keep len=1 [x] ."},
    {"upgrade offered",
     TRACE_IN(
         "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n"),
     "426 1 keep len=0 upgrade ."},
    {"empty reason", TRACE_IN("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"), "200 1 keep len=0 ."},
    {"no reason", TRACE_IN("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), "200 1 keep len=0 ."},
    {"reason beyond ASCII", TRACE_IN("HTTP/1.1 404 Introuv\xe9\tx\r\nContent-Length: 0\r\n\r\n"),
     "404 1 keep len=0 ."},
    {"status 999", TRACE_IN("HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n"),
     "999 1 keep len=0 ."},
    {"no content", TRACE_IN("HTTP/1.1 204 No Content\r\n\r\n" OK "Content-Length: 0\r\n\r\n"),
     "204 1 keep none . 200 1 keep len=0 ."},
    {"no content, length 0", TRACE_IN("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
     "204 1 keep none=0 ."},
    {"not modified", TRACE_IN("HTTP/1.1 304 Not Modified\r\n\r\n" OK "Content-Length: 0\r\n\r\n"),
     "304 1 keep none . 200 1 keep len=0 ."},
    {"not modified with a length",
     TRACE_IN("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n" OK
              "Content-Length: 0\r\n\r\n"),
     "304 1 keep none=9 . 200 1 keep len=0 ."},
    {"not modified, chunked",
     TRACE_IN("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n" OK
              "Content-Length: 0\r\n\r\n"),
     "304 1 keep none . 200 1 keep len=0 ."},
    {"reset content", TRACE_IN("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
     "205 1 keep len=0 ."},
    {"reset content, chunked",
     TRACE_IN("HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "205 1 keep chunked ."},
    {"interim", TRACE_IN("HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\nx"),
     "100 1 keep none 200 1 keep len=1 [x] ."},
    {"interim, several",
     TRACE_IN("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" CHUNKED
              "0\r\n\r\n"),
     "102 1 keep none 103 1 keep none 200 1 keep chunked ."},
    {"interim, cut behind it", TRACE_IN("HTTP/1.1 100 Continue\r\n\r\n"), "100 1 keep none cut"},
    {"cut in the head", TRACE_IN(OK), "cut"},
    {"cut in the body", TRACE_IN(OK "Content-Length: 5\r\n\r\nx"), "200 1 keep len=5 [x] cut"},
    {"cut in a chunk", TRACE_IN(CHUNKED "5\r\nx"), "200 1 keep chunked [x] cut"},
    {"cut before the last CRLF", TRACE_IN(CHUNKED "0\r\n"), "200 1 keep chunked cut"},
    {"one byte more", TRACE_IN(OK "Content-Length: 1\r\n\r\nxy"), "200 1 keep len=1 [x] . cut"},
};

static const trace_row refused[] = {
    {"empty line first", TRACE_IN("\r\n" OK "\r\n"), "!502 malformed status line"},
    {"garbage", TRACE_IN("hello\r\n"), "!502 malformed status line"},
    {"a request", TRACE_IN("GET / HTTP/1.1\r\n\r\n"), "!502 *"},
    {"HTTP/0.9", TRACE_IN("<html>\n"), "!502 line feed without carriage return"},
    {"HTTP/2.0", TRACE_IN("HTTP/2.0 200 OK\r\n\r\n"), "!502 HTTP version not supported"},
    {"HTTP/1.2", TRACE_IN("HTTP/1.2 200 OK\r\n\r\n"), "!502 HTTP version not supported"},
    {"lower case", TRACE_IN("http/1.1 200 OK\r\n\r\n"), "!502 malformed HTTP version"},
    {"ICY", TRACE_IN("ICY 200 OK\r\n\r\n"), "!502 malformed status line"},
    {"two spaces", TRACE_IN("HTTP/1.1  200 OK\r\n\r\n"), "!502 invalid status code"},
    {"status 099", TRACE_IN("HTTP/1.1 099 OK\r\n\r\n"), "!502 invalid status code"},
    {"status of two digits", TRACE_IN("HTTP/1.1 20 OK\r\n\r\n"), "!502 invalid status code"},
    {"status of four digits", TRACE_IN("HTTP/1.1 2000 OK\r\n\r\n"), "!502 malformed status line"},
    {"status no number", TRACE_IN("HTTP/1.1 2x0 OK\r\n\r\n"), "!502 invalid status code"},
    {"status with a sign", TRACE_IN("HTTP/1.1 +20 OK\r\n\r\n"), "!502 invalid status code"},
    {"control in the reason", TRACE_IN("HTTP/1.1 200 O\x01K\r\n\r\n"), "!502 control character"},
    {"bare CR in the reason", TRACE_IN("HTTP/1.1 200 O\rK\r\n\r\n"),
     "!502 carriage return without line feed"},
    {"bare LF", TRACE_IN("HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
     "!502 line feed without carriage return"},
    {"folded", TRACE_IN(OK "X: a\r\n b\r\n\r\n"), "!502 folded field line"},
    {"space before the colon", TRACE_IN(OK "Content-Length : 5\r\n\r\n"),
     "!502 white space in or after a field name"},
    {"two lengths", TRACE_IN(OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"), "!502 *"},
    {"list of lengths", TRACE_IN(OK "Content-Length: 1, 1\r\n\r\nx"), "!502 *"},
    {"length no number", TRACE_IN(OK "Content-Length: x\r\n\r\n"), "!502 *"},
    {"length +1", TRACE_IN(OK "Content-Length: +1\r\n\r\nx"), "!502 *"},
    {"length too large", TRACE_IN(OK "Content-Length: 9223372036854775808\r\n\r\n"),
     "!502 Content-Length too large"},
    {"two lengths with HEAD's status",
     TRACE_IN("HTTP/1.1 304 N\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "!502 *"},
    {"both", TRACE_IN(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "!502 *"},
    {"chunked in HTTP/1.0",
     TRACE_IN("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "!502 Transfer-Encoding in HTTP/1.0"},
    {"gzip", TRACE_IN(OK "Transfer-Encoding: gzip\r\n\r\n"), "!502 transfer coding not supported"},
    {"gzip and chunked", TRACE_IN(OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
     "!502 transfer coding not supported"},
    {"chunked twice",
     TRACE_IN(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), "!502 *"},
    {"chunk too long", TRACE_IN(CHUNKED "1\r\nxy\r\n0\r\n\r\n"),
     "200 1 keep chunked [x] !502 chunk data longer than its size"},
    {"forbidden trailer", TRACE_IN(CHUNKED "0\r\nSet-Cookie: a\r\n\r\n"),
     "200 1 keep chunked !502 field that must not be a trailer"},
    {"no content, but a length", TRACE_IN("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
     "!502 Content-Length in a response without content"},
    {"no content, but chunked",
     TRACE_IN("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "!502 Transfer-Encoding in a response without content"},
    {"reset content, but a length",
     TRACE_IN("HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\n"),
     "!502 Content-Length in a response without content"},
    {"reset content with content",
     TRACE_IN("HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
     "205 1 keep chunked !502 content in a response without content"},
    {"reset content until close", TRACE_IN("HTTP/1.1 205 Reset Content\r\n\r\nx"),
     "205 1 close eof !502 content in a response without content"},
    {"interim with a length", TRACE_IN("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n"),
     "!502 Content-Length in a response without content"},
    {"interim, chunked", TRACE_IN("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "!502 Transfer-Encoding in a response without content"},
    {"upgrade not asked for",
     TRACE_IN("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"),
     "!502 upgrade that was not asked for"},
};

static const trace_row to_head[] = {
    {"length", TRACE_IN(OK "Content-Length: 5\r\n\r\n" OK "Content-Length: 7\r\n\r\n"),
     "200 1 keep none=5 . 200 1 keep none=7 ."},
    {"chunked", TRACE_IN(OK "Transfer-Encoding: chunked\r\n\r\n" OK "\r\n"),
     "200 1 keep none . 200 1 keep none ."},
    {"no framing", TRACE_IN(OK "\r\n"), "200 1 keep none ."},
    {"no framing, HTTP/1.0", TRACE_IN("HTTP/1.0 200 OK\r\n\r\n"), "200 0 close none ."},
    {"interim before", TRACE_IN("HTTP/1.1 103 E\r\n\r\n" OK "Content-Length: 5\r\n\r\n"),
     "103 1 keep none 200 1 keep none=5 ."},
    {"a body all the same", TRACE_IN(OK "Content-Length: 5\r\n\r\nhello\r\n"),
     "200 1 keep none=5 . !502 *"},
    {"two lengths", TRACE_IN(OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), "!502 *"},
};

static const trace_row to_upgrade[] = {
    {"switched",
     TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw\r\n\0"),
     "101 1 keep tunnel upgrade +6"},
    {"switched, nothing behind",
     TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
     "101 1 keep tunnel upgrade"},
    {"switched with length 0",
     TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\nx"),
     "101 1 keep tunnel=0 upgrade +1"},
    {"interim before",
     TRACE_IN("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\nx"),
     "103 1 keep none 101 1 keep tunnel upgrade +1"},
    {"declined", TRACE_IN("HTTP/1.1 403 Forbidden\r\nContent-Length: 1\r\n\r\nx"),
     "403 1 keep len=1 [x] ."},
    {"to nothing", TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n"),
     "!502 upgrade to no protocol"},
    {"not nominated", TRACE_IN("HTTP/1.1 101 S\r\nUpgrade: a\r\n\r\n"),
     "!502 upgrade to no protocol"},
    {"to h2c", TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
     "!502 upgrade to no protocol"},
    {"in HTTP/1.0", TRACE_IN("HTTP/1.0 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"),
     "!502 upgrade to no protocol"},
    {"with a length",
     TRACE_IN("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n\r\n"),
     "!502 Content-Length in a response without content"},
};

#define CHECK(trace_, rows) trace_check_all(trace_, NULL, rows, sizeof rows / sizeof *rows)

static void test_plain(void **state)
{
    (void)state;
    CHECK((trace){0}, plain);
}

static void test_refused(void **state)
{
    (void)state;
    CHECK((trace){0}, refused);
}

static void test_to_head(void **state)
{
    (void)state;
    CHECK((trace){.head_request = true}, to_head);
}

static void test_to_upgrade(void **state)
{
    (void)state;
    CHECK((trace){.upgrade_asked = true}, to_upgrade);
}

static void check_interim(size_t n, const char *end, const char *expected_end)
{
    tnl_buf in, expected;
    tnl_buf_init(&in, 1 << 16);
    tnl_buf_init(&expected, 1 << 16);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tnl_buf_adds(&in, "HTTP/1.1 100 C\r\n\r\n"), 0);
        if (i < TNL_HTTP_MAX_INTERIM)
            assert_int_equal(tnl_buf_adds(&expected, "100 1 keep none "), 0);
    }
    assert_int_equal(tnl_buf_adds(&in, end), 0);
    assert_int_equal(tnl_buf_add(&expected, expected_end, strlen(expected_end) + 1), 0);
    trace_row row = {"interim", (const char *)tnl_buf_bytes(&in), tnl_buf_len(&in),
                     (const char *)tnl_buf_bytes(&expected)};
    trace_check_all((trace){0}, NULL, &row, 1);
    tnl_buf_free(&in);
    tnl_buf_free(&expected);
}

static void test_interim_flood(void **state)
{
    (void)state;
    check_interim(16, OK "Content-Length: 0\r\n\r\n", "200 1 keep len=0 .");
    check_interim(17, OK "Content-Length: 0\r\n\r\n", "!502 too many interim responses");
}

/* The counts and what was expected start anew with each message. */
static void test_next_forgets(void **state)
{
    trace t = {.head_request = true};
    tnl_http_parser *p;
    const char *input = "HTTP/1.1 100 C\r\n\r\n" OK "Content-Length: 3\r\n\r\n";
    size_t used;
    (void)state;

    tnl_buf_init(&t.text, 1024);
    assert_int_equal(tnl_http_parser_new(&p, false, NULL, &trace_events, &t), 0);
    tnl_http_expect(p, true, false);
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)input, 18, &used), 0);
    assert_false(tnl_http_idle(p));
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)input + 18, strlen(input) - 18, &used), 0);
    tnl_http_next(p);
    assert_true(tnl_http_idle(p));
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)input, strlen(input), &used), 0);
    assert_int_equal(tnl_http_eof(p), TUNNEL_E_EOF); /* this one has a body */
    tnl_http_parser_free(p);
    tnl_buf_free(&t.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_to_head),       cmocka_unit_test(test_to_upgrade),
        cmocka_unit_test(test_interim_flood), cmocka_unit_test(test_next_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
