/* SPDX-License-Identifier: Apache-2.0 */
/* A lane against a bare socket: its request, answers that are none, what a server must not do. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/ends.h"
#include "transport/transport.h"
#include "tunnel/error.h"

#define ACCEPTED                                                                                   \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tunnel-lane.v1\r\nConnection: upgrade\r\n\r\n"

typedef struct rig {
    test_loop l;
    test_end e;
    int fd; /* the test's end */
    size_t n;
    bool ended; /* the lane's end of the connection is closed */
    uint8_t in[256 * 1024];
} rig;

static uint8_t big[64 * 1024];

static rig *rig_open(void)
{
    rig *r = calloc(1, sizeof(*r));
    test_loop_open(&r->l);
    memset(big, 'x', sizeof(big));
    r->fd = -1;
    return r;
}

static void rig_close(rig *r)
{
    if (r->fd >= 0)
        close(r->fd);
    test_loop_close(&r->l);
    free(r);
}

static tnl_conn *begin(rig *r)
{
    int fd[2];
    test_tcp_sockets(fd);
    r->fd = fd[1];
    r->n = 0;
    r->ended = false;
    test_end_init(&r->e);
    return test_conn(&r->l, fd[0]);
}

static void client_connect(rig *r)
{
    assert_int_equal(tnl_lane_connect(&r->e.t, begin(r), "tunnel.test:8080", "/__tunnel__/lane",
                                      "Bearer abc.def", &test_end_events, &r->e),
                     0);
}

/* Takes what has come; true once there are n bytes in all, or the end. */
static bool received(rig *r, size_t n)
{
    while (!r->ended && r->n < sizeof(r->in)) {
        ssize_t got = read(r->fd, r->in + r->n, sizeof(r->in) - r->n);
        if (got > 0)
            r->n += (size_t)got;
        else if (got < 0 && errno == EAGAIN)
            break;
        else
            r->ended = true;
    }
    return r->ended || r->n >= n;
}

static void give(rig *r, const void *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t put = send(r->fd, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);
        if (put > 0)
            at += (size_t)put;
        else if (errno != EAGAIN)
            return;
        test_turn(&r->l);
    }
}

static void end(rig *r)
{
    close(r->fd);
    r->fd = -1;
    UNTIL(&r->l, r->e.closes);
}

static void request(rig *r)
{
    UNTIL(&r->l, received(r, SIZE_MAX) || memmem(r->in, r->n, "\r\n\r\n", 4));
    assert_false(r->ended);
}

static void the_request(void **state)
{
    static const char expected[] =
        "GET /__tunnel__/lane HTTP/1.1\r\nHost: tunnel.test:8080\r\nUpgrade: tunnel-lane.v1\r\n"
        "Connection: Upgrade\r\nAuthorization: Bearer abc.def\r\n\r\n";
    (void)state;
    rig *r = rig_open();
    client_connect(r);
    request(r);
    assert_int_equal(r->n, sizeof(expected) - 1);
    assert_memory_equal(r->in, expected, r->n);
    /* Nothing goes behind it before the answer. */
    test_end_send(&r->e, 1000);
    for (int i = 0; i < 5; i++)
        test_turn(&r->l);
    assert_false(received(r, sizeof(expected)));
    end(r);
    assert_int_equal(r->e.error, TUNNEL_E_EOF);
    assert_int_equal(r->e.opens, 0);
    rig_close(r);
}

static void bad_arguments(void **state)
{
    static const char *const fields[][3] = {
        {"a\r\nb", "/", NULL}, {"a", "/\n", NULL}, {"a", "/", "Bearer x\r\nY: z"}};
    (void)state;
    rig *r = rig_open();
    for (size_t i = 0; i < 3; i++) {
        tnl_transport *t = (tnl_transport *)r;
        const char *const *f = fields[i];
        assert_int_equal(tnl_lane_connect(&t, begin(r), f[0], f[1], f[2], &test_end_events, &r->e),
                         TUNNEL_E_INVALID);
        assert_null(t);
        UNTIL(&r->l, received(r, SIZE_MAX)); /* hung up */
        assert_int_equal(r->n, 0);
        close(r->fd);
        free(r->e.back);
    }
    r->fd = -1;
    rig_close(r);
}

typedef struct answer_case {
    const char *text;
    int error;
    int status;
    const char *detail;
    bool end; /* the server closes after it */
} answer_case;

static const answer_case answers[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 200, "HTTP 200 OK",
     false},
    {"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 301,
     "HTTP 301 Moved", false},
    {"HTTP/1.1 400 Bad Request\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 400, "HTTP 400 Bad Request", false},
    {"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\r\n", TUNNEL_E_VERSION, 426,
     "HTTP 426 Upgrade Required", false},
    {"HTTP/1.1 401 X\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
     "{\"error\":\"AUTH_FAILED\",\"message\":\"no\"}",
     TUNNEL_E_AUTH_FAILED, 401, "AUTH_FAILED: no", true},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 101,
     "the answer is not a lane's", false},
    {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", TUNNEL_E_NOT_TUNNEL,
     101, "the answer is not a lane's", false},
    {"HTTP/1.1 101 X\r\nUpgrade: tunnel-lane.v11\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 101,
     "the answer is not a lane's", false},
    {"\x92garbage", TUNNEL_E_NOT_TUNNEL, 0, "the other end does not speak HTTP", false},
    {"", TUNNEL_E_EOF, 0, "the server closed the connection without an answer", true},
    {"HTTP/1.1 101 Swit", TUNNEL_E_EOF, 0, "the server closed the connection without an answer",
     true},
};

/* Each at once, and in pieces. */
static void refused_answers(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (size_t i = 0; i < 2 * sizeof(answers) / sizeof(answers[0]); i++) {
        const answer_case *a = &answers[i / 2];
        client_connect(r);
        request(r);
        for (const char *p = a->text; i % 2 && *p; p++)
            give(r, p, 1);
        if (i % 2 == 0)
            give(r, a->text, strlen(a->text));
        if (a->end)
            shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.opens, 0);
        assert_string_equal(r->e.detail, a->detail);
        assert_int_equal(r->e.error, a->error);
        assert_int_equal(r->e.status, a->status);
        UNTIL(&r->l, received(r, SIZE_MAX)); /* and hangs up */
        end(r);
    }
    rig_close(r);
}

static void endless_heads(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int i = 0; i < 2; i++) {
        client_connect(r);
        request(r);
        give(r, "HTTP/1.1 101 X\r\nX: ", 19);
        for (int j = 0; j < 100 && !r->e.closes; j++)
            give(r, i ? "HTTP/1.1 103 Hint\r\n\r\n" : (char *)big, i ? 21 : 1000);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.error, TUNNEL_E_NOT_TUNNEL);
        assert_int_equal(r->e.opens, 0);
        end(r);
    }
    rig_close(r);
}

/* Nothing, half a head, half a body: all wait out the same ten seconds. */
static void silent_servers(void **state)
{
    static const char *const starts[] = {
        "", "HTTP/1.1 1", "HTTP/1.1 401 X\r\nContent-Type: application/json\r\n\r\n{"};
    (void)state;
    rig *r = rig_open();
    test_end ends[3];
    int fds[3];
    for (int i = 0; i < 3; i++) {
        int fd[2];
        test_tcp_sockets(fd);
        fds[i] = fd[1];
        test_end_init(&ends[i]);
        assert_int_equal(tnl_lane_connect(&ends[i].t, test_conn(&r->l, fd[0]), "h", "/", NULL,
                                          &test_end_events, &ends[i]),
                         0);
        assert_int_equal(write(fds[i], starts[i], strlen(starts[i])), (ssize_t)strlen(starts[i]));
    }
    for (int i = 0; i < 3; i++) {
        UNTIL(&r->l, ends[i].closes);
        assert_int_equal(ends[i].error, i == 2 ? TUNNEL_E_AUTH_FAILED : TUNNEL_E_TIMEOUT);
        assert_int_equal(ends[i].status, i == 2 ? 401 : 0);
        close(fds[i]);
    }
    rig_close(r);
}

/* Bytes that came with the answer are the first; none is lost and none counted as an answer. */
static void bytes_behind_the_answer(void **state)
{
    enum { MANY = 70000 };
    static uint8_t text[sizeof(ACCEPTED) + MANY];
    (void)state;
    rig *r = rig_open();
    memcpy(text, ACCEPTED, sizeof(ACCEPTED) - 1);
    test_fill(text + sizeof(ACCEPTED) - 1, MANY, 0);
    for (size_t cut = 0; cut < sizeof(ACCEPTED) + 40; cut += 13) {
        client_connect(r);
        request(r);
        give(r, text, cut);
        give(r, text + cut, sizeof(ACCEPTED) - 1 + MANY - cut);
        UNTIL(&r->l, r->e.received == MANY);
        assert_int_equal(r->e.hash, test_sequence_hash(MANY));
        r->n = 0;
        test_end_send(&r->e, MANY);
        UNTIL(&r->l, received(r, MANY));
        assert_memory_equal(r->in, text + sizeof(ACCEPTED) - 1, MANY);
        end(r);
        assert_int_equal(r->e.error, TUNNEL_E_EOF);
    }
    rig_close(r);
}

/* The server's end: what came with the request's head, and what comes before it is open. */
static void bytes_behind_the_request(void **state)
{
    enum { EARLY = 32000, LATE = 20000 };
    static uint8_t bytes[EARLY + LATE];
    (void)state;
    rig *r = rig_open();
    test_fill(bytes, sizeof(bytes), 0);
    for (int early = 0; early < 2; early++) {
        size_t n = early ? EARLY : 0;
        tnl_conn *c = begin(r);
        give(r, bytes + n, sizeof(bytes) - n);
        assert_int_equal(tnl_lane_accept(&r->e.t, c, bytes, n, &test_end_events, &r->e), 0);
        assert_int_equal(r->e.opens, 0);
        UNTIL(&r->l, r->e.received == sizeof(bytes));
        assert_int_equal(r->e.hash, test_sequence_hash(sizeof(bytes)));
        test_end_close(&r->e);
        UNTIL(&r->l, received(r, SIZE_MAX));
        end(r);
        assert_int_equal(r->e.error, 0);
    }
    rig_close(r);
}

static void accepted_and_reset(void **state)
{
    static const struct linger reset = {1, 0};
    (void)state;
    rig *r = rig_open();
    for (int pending = 0; pending < 2; pending++) {
        client_connect(r);
        request(r);
        give(r, ACCEPTED, sizeof(ACCEPTED) - 1);
        UNTIL(&r->l, r->e.opens);
        if (pending) /* more than the sockets hold */
            test_end_send(&r->e, 64 << 20);
        for (int i = 0; i < 20; i++)
            test_turn(&r->l);
        setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        end(r);
        assert_true(r->e.error < 0);
        assert_int_equal(r->e.status, 0);
    }
    rig_close(r);
}

/* A peer that reads nothing cannot keep a closed lane. */
static void closed_against_a_wall(void **state)
{
    (void)state;
    rig *r = rig_open();
    client_connect(r);
    request(r);
    give(r, ACCEPTED, sizeof(ACCEPTED) - 1);
    UNTIL(&r->l, r->e.opens);
    test_end_send(&r->e, 64 << 20);
    for (int i = 0; i < 50; i++)
        test_turn(&r->l);
    assert_true(r->e.sent < 64 << 20);
    test_end_close(&r->e);
    UNTIL(&r->l, r->e.closes);
    assert_int_equal(r->e.error, 0);
    end(r);
    rig_close(r);
}

/* Nor is anything of it left for the kernel to send, as there is with a close. */
static void given_up_against_a_wall(void **state)
{
    (void)state;
    rig *r = rig_open();
    client_connect(r);
    request(r);
    give(r, ACCEPTED, sizeof(ACCEPTED) - 1);
    UNTIL(&r->l, r->e.opens);
    test_end_send(&r->e, 64 << 20);
    for (int i = 0; i < 50; i++)
        test_turn(&r->l);
    tnl_transport_abort(r->e.t);
    UNTIL(&r->l, r->e.closes);
    assert_int_equal(r->e.error, 0);
    ssize_t got;
    while ((got = read(r->fd, r->in, sizeof(r->in))) > 0)
        ;
    assert_int_equal(got, -1);
    assert_int_equal(errno, ECONNRESET);
    end(r);
    rig_close(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_request),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(refused_answers),
        cmocka_unit_test(endless_heads),
        cmocka_unit_test(silent_servers),
        cmocka_unit_test(bytes_behind_the_answer),
        cmocka_unit_test(bytes_behind_the_request),
        cmocka_unit_test(accepted_and_reset),
        cmocka_unit_test(closed_against_a_wall),
        cmocka_unit_test(given_up_against_a_wall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
