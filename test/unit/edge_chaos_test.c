/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

/*
 * Visitors, a client and its service do at random what they may do and what they may not. Nothing
 * must break, and no visitor may ever see an answer to another one. `edge_chaos_test SEED` replays
 * one run.
 */
enum { GUESTS = 6, STEPS = 1500, RUNS = 6 };

typedef struct chaos {
    test_edge e;
    test_service s;
    bool served;
    test_guest guests[GUESTS];
    unsigned asked[GUESTS];
    uint64_t random;
} chaos;

static unsigned pick(chaos *c, unsigned n)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    return (unsigned)(c->random >> 33) % n;
}

/* --- the service ------------------------------------------------------------------------------ */

/* The path of the request that the call got last: "/g3-17"; a NUL-terminated copy, or "". */
static const char *last_path(const test_call *call, char *out, size_t size)
{
    const char *found = NULL;
    out[0] = '\0';
    for (const char *p = call->text; p && (p = strstr(p, " /g")); p++)
        found = p + 1;
    if (found)
        snprintf(out, size, "%.*s", (int)strcspn(found, " "), found);
    return out;
}

/* As much as goes; a visitor may not be reading. */
static void write_some(test_call *call, const char *text, size_t n)
{
    if (call->stream)
        (void)tnl_stream_write(call->stream, text, n);
}

static void answer(chaos *c, test_call *call)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 200 OK\r\nX: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\nA: %d\r\n\r\ntag:%s;",
        "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;",
        "nonsense %d tag:%s;\r\n\r\n",
    };
    static const char *const chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\ntag:%s;\r\n0\r\nA: b\r\n\r\n";
    static const char *const surplus = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\ntag:%s;";
    char text[600], path[200];
    last_path(call, path, sizeof(path));
    int n = (int)strlen(path) + 5;
    if (pick(c, 4) == 0)
        snprintf(text, sizeof(text), chunked, n, path);
    else
        snprintf(text, sizeof(text), heads[pick(c, sizeof(heads) / sizeof(*heads))], n, path);
    size_t len = strlen(text);
    /* Sometimes only a part of it, sometimes surplus. */
    if (pick(c, 8) == 0)
        len = pick(c, (unsigned)len);
    write_some(call, text, len);
    bool whole = len == strlen(text);
    if (pick(c, 10) == 0) {
        snprintf(text, sizeof(text), surplus, n, path);
        write_some(call, text, strlen(text));
    }
    if (whole)
        test_call_forget(call);
}

static void big_answer(chaos *c, test_call *call)
{
    char head[100], path[200];
    unsigned n = 10000 + pick(c, 300000), sent = 0;
    char *body = calloc(1, n);
    last_path(call, path, sizeof(path));
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", n);
    write_some(call, head, strlen(head));
    for (int i = 0; i < 20 && call->stream && sent < n; i++, test_turn(&c->e.l))
        sent += (unsigned)tnl_stream_write(call->stream, body, n - sent);
    if (sent == n)
        test_call_forget(call);
    else if (pick(c, 2))
        test_call_fin(call);
    free(body);
}

static void serve(chaos *c)
{
    if (c->s.count == 0)
        return;
    test_call *call = &c->s.calls[pick(c, (unsigned)c->s.count)];
    if (!call->stream)
        return;
    switch (pick(c, 12)) {
    case 0:
        test_call_fin(call);
        break;
    case 1:
        test_call_reset(call, TUNNEL_E_REFUSED, "refused\r\nX: y");
        break;
    case 2:
        call->deaf = true;
        break;
    case 3:
        test_call_listen(call);
        break;
    case 4:
        big_answer(c, call);
        break;
    default:
        if (call->n)
            answer(c, call);
    }
}

/* --- visitors --------------------------------------------------------------------------------- */

/* A request that was cut makes odd paths, but they are the visitor's own. */
static void check_tags(const chaos *c, size_t i)
{
    const test_guest *g = &c->guests[i];
    for (const char *p = g->text; p && (p = memmem(p, g->n - (size_t)(p - g->text), "tag:/g", 6));
         p++)
        if (p[6] >= '0' && p[6] <= '9' && p[7] == '-' && p[6] != (char)('0' + i))
            fail_msg("visitor %zu got %.30s", i, p);
}

static void ask(chaos *c, size_t i)
{
    static const char *const requests[] = {
        "GET %s HTTP/1.1\r\nHost: demo.test\r\n\r\n",
        "GET %s HTTP/1.1\r\nHost: demo.test\r\n\r\n",
        "HEAD %s HTTP/1.1\r\nHost: demo.test\r\n\r\n",
        "POST %s HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 5\r\n\r\n12345",
        "POST %s HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        "POST %s HTTP/1.1\r\nHost: demo.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n12345",
        "GET %s HTTP/1.1\r\nHost: demo.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nmore",
        "GET %s HTTP/1.0\r\nHost: demo.test\r\nConnection: keep-alive\r\n\r\n",
        "GET %s HTTP/1.1\r\nHost: nobody.test\r\n\r\n",
        "GET %s HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n",
        "GET /__tunnel__/health/live?%s HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST %s HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 500000\r\n\r\n",
        "nonsense%s\r\n\r\n",
    };
    char path[32], text[300];
    snprintf(path, sizeof(path), "/g%zu-%u", i, c->asked[i]++);
    snprintf(text, sizeof(text), requests[pick(c, sizeof(requests) / sizeof(*requests))], path);
    size_t n = strlen(text);
    if (pick(c, 8) == 0)
        n = pick(c, (unsigned)n) + 1;
    test_guest_say_some(&c->guests[i], text, n);
}

static void visit(chaos *c)
{
    static const char filler[60000];
    size_t i = pick(c, GUESTS);
    test_guest *g = &c->guests[i];
    if (g->fd < 0) {
        test_guest_free(g);
        if (pick(c, 2))
            test_guest_open(g, &c->e);
        else
            test_guest_open_narrow(g, &c->e);
        return;
    }
    switch (pick(c, 20)) {
    case 0:
        test_guest_shutdown(g);
        break;
    case 1:
    case 2:
        test_guest_leave(g, pick(c, 2));
        break;
    case 3:
        g->slow = !g->slow;
        break;
    case 4:
        test_guest_say_some(g, filler, pick(c, sizeof(filler)));
        break;
    default:
        ask(c, i);
    }
    test_guest_hears(g, "x");
    check_tags(c, i);
    if (test_guest_ended(g) && pick(c, 2))
        test_guest_leave(g, false);
}

/* --- the client ------------------------------------------------------------------------------- */

static void serve_again(chaos *c)
{
    if (c->served)
        test_service_close(&c->s);
    test_service_open(&c->s, &c->e, "demo");
    c->served = true;
}

static void step(chaos *c)
{
    switch (pick(c, 60)) {
    case 0:
        test_service_unpublish(&c->s, 1);
        test_turn(&c->e.l);
        test_service_publish(&c->s, 1, "demo");
        break;
    case 1:
        if (pick(c, 8) == 0)
            serve_again(c);
        break;
    default:
        if (pick(c, 2))
            serve(c);
        else
            visit(c);
    }
    if (c->s.count == TEST_CALLS || !c->s.session)
        serve_again(c);
    if (pick(c, 3) == 0)
        test_turn(&c->e.l);
}

static void run(uint64_t seed)
{
    chaos *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    print_message("seed %llu\n", (unsigned long long)seed);
    c->random = seed * 0x9e3779b97f4a7c15ULL + 1;
    assert_int_equal(test_edge_open(&c->e, NULL), 0);
    for (size_t i = 0; i < GUESTS; i++)
        c->guests[i].fd = -1;
    serve_again(c);
    for (int i = 0; i < STEPS; i++)
        step(c);
    if (pick(c, 2)) {
        test_edge_close_server(&c->e);
        for (int i = 0; i < 5; i++)
            test_turn(&c->e.l);
    }
    test_service_close(&c->s);
    for (size_t i = 0; i < GUESTS; i++)
        test_guest_free(&c->guests[i]);
    test_edge_close(&c->e);
    free(c);
}

static uint64_t first_seed = 1;
static unsigned runs = RUNS;

static void nothing_breaks(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < runs; i++)
        run(first_seed + i);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    if (argc > 1) {
        first_seed = strtoull(argv[1], NULL, 10);
        runs = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_breaks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
