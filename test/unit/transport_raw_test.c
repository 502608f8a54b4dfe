/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <mbedtls/base64.h>
#include <mbedtls/sha1.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/ends.h"
#include "transport/transport.h"
#include "tunnel/error.h"

/* One end is a transport, the other one a bare socket in the hands of the test. */
typedef struct rig {
    test_loop l;
    tnl_ws *ws;
    unsigned logs;
    test_end e;
    int fd; /* the test's end */
    size_t n;
    bool ended; /* the transport's end of the connection is closed */
    uint8_t in[256 * 1024];
} rig;

static uint8_t big[80 * 1024];
static uint8_t wire[160 * 1024];

static rig *rig_open(void)
{
    rig *r = calloc(1, sizeof(*r));
    test_loop_open(&r->l);
    assert_int_equal(tnl_ws_new(&r->ws, r->l.loop, test_count_log, &r->logs), 0);
    r->fd = -1;
    memset(big, 'x', sizeof(big));
    return r;
}

static void rig_close(rig *r)
{
    if (r->fd >= 0)
        close(r->fd);
    tnl_ws_free(r->ws);
    test_loop_close(&r->l);
    free(r);
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

static void send_all(rig *r, const void *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t put = send(r->fd, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);
        if (put > 0)
            at += (size_t)put;
        else if (errno != EAGAIN || r->ended)
            return;
        received(r, SIZE_MAX);
        test_turn(&r->l);
    }
}

static void send_text(rig *r, const char *s)
{
    send_all(r, s, strlen(s));
}

static void consume(rig *r, size_t n)
{
    memmove(r->in, r->in + n, r->n - n);
    r->n -= n;
}

/* --- the client ------------------------------------------------------------------------------- */

static void client_connect(rig *r, const char *authorization)
{
    int fd[2];
    test_tcp_sockets(fd);
    r->fd = fd[1];
    r->n = 0;
    r->ended = false;
    test_end_init(&r->e);
    assert_int_equal(tnl_ws_connect(&r->e.t, r->ws, test_conn(&r->l, fd[0]), "tunnel.test:8080",
                                    "/__tunnel__/link", authorization, &test_end_events, &r->e),
                     0);
}

static void client_close(rig *r)
{
    close(r->fd);
    r->fd = -1;
    UNTIL(&r->l, r->e.closes);
}

static size_t request(rig *r)
{
    char *end = NULL;
    UNTIL(&r->l, received(r, SIZE_MAX) || (end = memmem(r->in, r->n, "\r\n\r\n", 4)));
    assert_non_null(end);
    return (size_t)(end - (char *)r->in) + 4;
}

static bool has(rig *r, size_t n, const char *text)
{
    return memmem(r->in, n, text, strlen(text)) != NULL;
}

static void the_request(void **state)
{
    (void)state;
    rig *r = rig_open();
    client_connect(r, "Bearer abc.def");
    size_t n = request(r);
    assert_true(has(r, n, "GET /__tunnel__/link HTTP/1.1\r\n"));
    assert_true(has(r, n, "Host: tunnel.test:8080\r\n"));
    assert_true(has(r, n, "uthorization: Bearer abc.def\r\n") ||
                has(r, n, "uthorization:Bearer abc.def\r\n"));
    assert_true(has(r, n, "Upgrade: websocket\r\n"));
    assert_true(has(r, n, "Sec-WebSocket-Version: 13\r\n"));
    assert_true(has(r, n, "Sec-WebSocket-Protocol: tunnel.v1\r\n"));
    assert_false(has(r, n, "xtensions"));
    assert_false(has(r, n, "Origin"));
    client_close(r);
    assert_int_equal(r->e.error, TUNNEL_E_EOF);
    assert_int_equal(r->e.opens, 0);
    rig_close(r);
}

static void bad_arguments(void **state)
{
    (void)state;
    static const char *const fields[][3] = {
        {"a\r\nb", "/", NULL}, {"a", "/\n", NULL}, {"a", "/", "Bearer x\r\nY: z"}};
    rig *r = rig_open();
    unsigned descriptors = 0;
    for (size_t i = 0; i < 6; i++) {
        int fd[2];
        const char *const *f = fields[i % 3];
        test_tcp_sockets(fd);
        tnl_transport *t;
        assert_int_equal(tnl_ws_connect(&t, r->ws, test_conn(&r->l, fd[0]), f[0], f[1], f[2],
                                        &test_end_events, &r->e),
                         TUNNEL_E_INVALID);
        assert_null(t);
        close(fd[1]);
        test_turn(&r->l);
        if (i == 2)
            descriptors = test_open_descriptors();
    }
    assert_int_equal(test_open_descriptors(), descriptors);
    rig_close(r);
}

typedef struct answer_case {
    const char *text;
    int error;
    int status;
    const char *detail;
    bool end; /* the server closes after it */
} answer_case;

#define JSON_HEAD(status) "HTTP/1.1 " status "\r\nContent-Type: application/json\r\n"

static const answer_case answers[] = {
    {JSON_HEAD("401 Unauthorized") "Content-Length: 51\r\n\r\n"
                                   "{\"error\":\"AUTH_FAILED\",\"message\":\"the token is bad\"}",
     TUNNEL_E_AUTH_FAILED, 401, "AUTH_FAILED: the token is bad", false},
    {JSON_HEAD("409 Conflict") "Content-Length: 999\r\n\r\n"
                               "{\"message\":\"a \\\"b\\\"\\n\\u0041\",\"x\":{\"error\":\"NO\"},"
                               "\"error\":\"NAME_TAKEN\"}",
     TUNNEL_E_NAME_TAKEN, 409, "NAME_TAKEN: a \"b\" A", true},
    {JSON_HEAD(
         "403 Forbidden") "Transfer-Encoding: chunked\r\n\r\n"
                          "27\r\n{\"error\":\"DENIED\",\"message\":\"not here\"}\r\n0\r\n\r\n",
     TUNNEL_E_DENIED, 403, "DENIED: not here", false},
    {"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", TUNNEL_E_NOT_TUNNEL, 404,
     "HTTP 404 Not Found", false},
    {"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>{\"error\":\"X\"}",
     TUNNEL_E_REFUSED, 502, "HTTP 502 Bad Gateway", false},
    {"HTTP/1.0 503\r\n\r\n", TUNNEL_E_REFUSED, 503, "HTTP 503", false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 200, "HTTP 200 OK",
     false},
    {"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 301,
     "HTTP 301 Moved", false},
    {"HTTP/1.1 401 No\x01\x7f\xff\r\n\r\n", TUNNEL_E_AUTH_FAILED, 401, "HTTP 401 No???", false},
    {JSON_HEAD("401 X") "Content-Length: 6\r\n\r\n[1, 2]", TUNNEL_E_AUTH_FAILED, 401, "HTTP 401 X",
     false},
    {JSON_HEAD("401 X") "Content-Length: 20\r\n\r\n{\"error\":\"AUTH_FAIL", TUNNEL_E_AUTH_FAILED,
     401, "HTTP 401 X", true},
    {"SSH-2.0-OpenSSH_9.2\r\n", TUNNEL_E_NOT_TUNNEL, 0, "the other end does not speak HTTP", false},
    {"\x15\x03\x01\x00\x02\x02\x46", TUNNEL_E_NOT_TUNNEL, 0, "the other end does not speak HTTP",
     false},
    {"HTTP/1.1 2x0 OK\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 0, "the other end does not speak HTTP", false},
    {"", TUNNEL_E_EOF, 0, "the server closed the connection without an answer", true},
    {"HTTP/1.1 101 Swit", TUNNEL_E_EOF, 0, "the server closed the connection without an answer",
     true},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", TUNNEL_E_NOT_TUNNEL, 101,
     "the answer is not a WebSocket upgrade", false},
    {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
     TUNNEL_E_NOT_TUNNEL, 101, "the WebSocket at the other end is not a tunnel server's", false},
    {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n"
     "Sec-WebSocket-Protocol: tunnel.v1\r\nSec-WebSocket-Extensions: x-deflate\r\n\r\n",
     TUNNEL_E_PROTOCOL, 101, "the server uses a WebSocket extension that was not offered", false},
    {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n"
     "Sec-WebSocket-Protocol: tunnel.v1\r\n\r\n",
     TUNNEL_E_PROTOCOL, 0, "the WebSocket handshake failed", false},
};

/* Each answer at once, and in pieces. */
static void refused_answers(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (size_t i = 0; i < 2 * sizeof(answers) / sizeof(answers[0]); i++) {
        const answer_case *a = &answers[i / 2];
        client_connect(r, NULL);
        request(r);
        for (const char *p = a->text; i % 2 && *p; p++) {
            send_all(r, p, 1);
            if ((p - a->text) % 29 == 0)
                test_turn(&r->l);
        }
        if (i % 2 == 0)
            send_text(r, a->text);
        if (a->end)
            shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.opens, 0);
        assert_string_equal(r->e.detail, a->detail);
        assert_int_equal(r->e.error, a->error);
        if (a->status)
            assert_int_equal(r->e.status, a->status);
        UNTIL(&r->l, received(r, SIZE_MAX)); /* and hangs up */
        client_close(r);
    }
    rig_close(r);
}

static void oversized_answers(void **state)
{
    (void)state;
    rig *r = rig_open();
    client_connect(r, NULL);
    request(r);
    send_text(r, "HTTP/1.1 200 OK\r\nX: ");
    send_all(r, big, 20000);
    UNTIL(&r->l, r->e.closes);
    assert_string_equal(r->e.detail, "the answer's head is too long");
    client_close(r);

    client_connect(r, NULL);
    request(r);
    send_text(r, JSON_HEAD("401 X") "\r\n{\"x\":\"");
    send_all(r, big, 20000);
    UNTIL(&r->l, r->e.closes);
    assert_string_equal(r->e.detail, "HTTP 401 X");
    client_close(r);

    client_connect(r, NULL);
    request(r);
    for (int i = 0; i < 100 && !r->e.closes; i++)
        send_text(r, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    UNTIL(&r->l, r->e.closes);
    assert_string_equal(r->e.detail, "too many interim answers");
    client_close(r);
    rig_close(r);
}

/* Nothing, half a head, half a body: all wait out the same ten seconds. */
static void silent_servers(void **state)
{
    (void)state;
    static const char *const starts[] = {"", "HTTP/1.1 4", JSON_HEAD("401 X") "\r\n{"};
    rig *r = rig_open();
    test_end ends[3];
    int fds[3];
    for (int i = 0; i < 3; i++) {
        int fd[2];
        test_tcp_sockets(fd);
        fds[i] = fd[1];
        test_end_init(&ends[i]);
        assert_int_equal(tnl_ws_connect(&ends[i].t, r->ws, test_conn(&r->l, fd[0]), "h", "/", NULL,
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

/* RFC 6455 section 4.2.2. */
static void accept_key(const char *key, char out[32])
{
    char text[128];
    uint8_t hash[20];
    size_t n;
    int m = snprintf(text, sizeof(text), "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    assert_int_equal(mbedtls_sha1((const uint8_t *)text, (size_t)m, hash), 0);
    assert_int_equal(mbedtls_base64_encode((uint8_t *)out, 32, &n, hash, sizeof(hash)), 0);
}

/* A server made by hand, for what a server must not do. */
static void client_upgrade(rig *r, const void *rest, size_t rest_n)
{
    char key[64] = "", head[512];
    char accept[32];
    client_connect(r, NULL);
    size_t n = request(r);
    r->in[n - 1] = '\0';
    char *at = strstr((char *)r->in, "Sec-WebSocket-Key: ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "Sec-WebSocket-Key: %63s", key), 1);
    accept_key(key, accept);
    int m = snprintf(head, sizeof(head),
                     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n"
                     "Server: x\r\nUPGRADE: WebSocket\r\nconnection: keep-alive, Upgrade\r\n"
                     "Set-Cookie: %0200d\r\n"
                     "sec-websocket-accept: %s\r\nSec-WebSocket-Protocol: tunnel.v1\r\n\r\n",
                     0, accept);
    memcpy(wire, head, (size_t)m);
    if (rest_n)
        memcpy(wire + m, rest, rest_n);
    send_all(r, wire, (size_t)m + rest_n);
    consume(r, n);
}

static void frames_behind_the_answer(void **state)
{
    (void)state;
    rig *r = rig_open();
    uint8_t data[70000], frames[70000];
    test_fill(data, 60100, 0);
    size_t n = test_frame(frames, 0x82, false, data, 100);
    n += test_frame(frames + n, 0x82, false, data + 100, 60000);
    client_upgrade(r, frames, n);
    UNTIL(&r->l, r->e.received == 60100);
    assert_int_equal(r->e.hash, test_sequence_hash(60100));
    client_close(r);
    assert_int_equal(r->e.error, TUNNEL_E_EOF);
    rig_close(r);
}

/* A masked frame, text, too much: the client closes with a code. */
static void frames_a_server_must_not_send(void **state)
{
    (void)state;
    static const struct {
        uint8_t first;
        bool masked;
        size_t n;
        int code;
    } cases[] = {
        {0x81, false, 5000, 1003}, {0x81, false, 8192, 1003}, {0x81, false, 9000, 1003},
        {0x82, true, 10, 1002},    {0x81, false, 10, 1003},   {0x82, false, 65537, 1009},
        {0x01, false, 10, 1003},   {0x83, false, 0, 0},       {0xc2, false, 10, 0},
        {0x80, false, 10, 0},      {0x09, false, 1, 0},       {0x89, false, 200, 0},
    };
    rig *r = rig_open();
    for (size_t i = 0; i < 4 * sizeof(cases) / sizeof(cases[0]); i++) {
        int code = cases[i / 4].code;
        client_upgrade(r, NULL, 0);
        UNTIL(&r->l, r->e.opens);
        size_t n = test_frame(wire, cases[i / 4].first, cases[i / 4].masked, big, cases[i / 4].n);
        send_all(r, wire, n);
        /* Alone, or with more behind it: a close frame, data, or data after our close frame. */
        if (i % 4 == 1)
            send_all(r, wire, test_frame(wire, 0x88, false, "\x03\xe8", 2));
        if (i % 4 == 2) {
            send_all(r, wire, test_frame(wire, 0x82, false, big, 60000));
            shutdown(r->fd, SHUT_WR);
        }
        bool alone = i % 4 == 0 || i % 4 == 3;
        UNTIL(&r->l, received(r, code && alone ? 8 : SIZE_MAX));
        if (code && alone) {
            assert_int_equal(r->in[0], 0x88);
            uint8_t *m = r->in + 2;
            assert_int_equal((m[0] ^ m[4]) << 8 | (m[1] ^ m[5]), code);
        }
        for (int k = 0; i % 4 == 3 && k < 5; k++)
            send_all(r, wire, test_frame(wire, 0x82, false, big, 60000));
        shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        if (code == 1003 || code == 1009)
            assert_int_equal(r->e.error, TUNNEL_E_PROTOCOL);
        else
            assert_true(r->e.error < 0);
        assert_int_equal(r->e.received, 0);
        client_close(r);
    }
    rig_close(r);
}

/* --- the server ------------------------------------------------------------------------------- */

static const char upgrade[] = "GET /__tunnel__/link HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "Sec-WebSocket-Extensions: permessage-deflate\r\n"
                              "Sec-WebSocket-Protocol: chat, tunnel.v1\r\n\r\n";

/* plain: libwebsockets has the socket itself; else through a bridge. */
static int server_start(rig *r, const char *head, const void *rest, size_t rest_n, bool plain)
{
    int fd[2];
    test_tcp_sockets(fd);
    r->fd = fd[1];
    r->n = 0;
    r->ended = false;
    test_end_init(&r->e);
    size_t n = strlen(head);
    memcpy(wire, head, n);
    if (rest_n)
        memcpy(wire + n, rest, rest_n);
    tnl_conn *c = test_conn(&r->l, fd[0]);
    if (!plain)
        c = test_wrap(c, 3);
    return tnl_ws_accept(&r->e.t, r->ws, c, wire, n + rest_n, &test_end_events, &r->e);
}

static void server_open(rig *r, const void *rest, size_t rest_n, bool plain)
{
    assert_int_equal(server_start(r, upgrade, rest, rest_n, plain), 0);
    size_t n = request(r);
    assert_true(has(r, n, "HTTP/1.1 101 "));
    assert_true(has(r, n, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert_true(has(r, n, "Sec-WebSocket-Protocol: tunnel.v1\r\n"));
    assert_false(has(r, n, "xtensions"));
    consume(r, n);
}

static void server_close(rig *r)
{
    close(r->fd);
    r->fd = -1;
    UNTIL(&r->l, r->e.closes);
}

static void heads_that_are_not_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        int error;
    } cases[] = {
        {"GET / HTTP/1.1\r\nSec-WebSocket-Protocol: tunnel.v1\r\n\r\n", TUNNEL_E_PROTOCOL},
        {"GET / HTTP/1.1\r\nSec-WebSocket-Protocol: tunnel.v1\r\nSec-WebSocket-Key:\r\n\r\n",
         TUNNEL_E_PROTOCOL},
        {"GET / HTTP/1.1\r\nSec-WebSocket-Key: abc\r\n", TUNNEL_E_PROTOCOL},
        {"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", TUNNEL_E_VERSION},
        {"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
         "Sec-WebSocket-Protocol: tunnel.v2\r\n\r\n",
         TUNNEL_E_VERSION},
    };
    rig *r = rig_open();
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(server_start(r, cases[i / 2].head, NULL, 0, i % 2), cases[i / 2].error);
        assert_null(r->e.t);
        shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, received(r, SIZE_MAX));
        if (cases[i / 2].error == TUNNEL_E_VERSION)
            assert_true(has(r, r->n, "HTTP/1.1 400 ") && has(r, r->n, "{\"error\":\"VERSION\""));
        close(r->fd);
        r->fd = -1;
        free(r->e.back);
        assert_int_equal(r->e.closes, 0);
    }
    rig_close(r);
}

static void frames_with_the_head(void **state)
{
    (void)state;
    static uint8_t data[70000], frames[80000];
    rig *r = rig_open();
    for (int plain = 0; plain < 2; plain++) {
        test_fill(data, 65536, 0);
        size_t n = test_frame(frames, 0x82, true, data, 100);
        n += test_frame(frames + n, 0x02, true, data + 100, 900);
        n += test_frame(frames + n, 0x89, true, "hi", 2); /* a ping in between */
        n += test_frame(frames + n, 0x80, true, data + 1000, 64000);
        n += test_frame(frames + n, 0x82, true, data, 0);
        /* Cut in the middle of a frame: the rest comes on the socket. */
        size_t cut = 30000;
        server_open(r, frames, cut, plain);
        send_all(r, frames + cut, n - cut);
        UNTIL(&r->l, r->e.received == 65000);
        assert_int_equal(r->e.hash, test_sequence_hash(65000));
        UNTIL(&r->l, received(r, 4));
        assert_memory_equal(r->in, "\x8a\x02hi", 4);
        consume(r, 4);
        test_end_send(&r->e, 5);
        UNTIL(&r->l, received(r, 7));
        assert_memory_equal(r->in, "\x82\x05", 2);
        /* The peer's close frame is answered, and the connection ends. */
        n = test_frame(wire, 0x88, true, "\x03\xe9", 2);
        send_all(r, wire, n);
        UNTIL(&r->l, received(r, SIZE_MAX));
        assert_memory_equal(r->in + 7, "\x88\x02\x03\xe9", 4);
        shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.error, TUNNEL_E_EOF);
        assert_string_equal(r->e.detail, "closed by the peer (WebSocket code 1001)");
        server_close(r);
    }
    rig_close(r);
}

typedef struct hostile {
    uint8_t first;
    size_t n;
    uint8_t second; /* continuation frames, until closed */
    size_t second_n;
    int code; /* of the close frame; 0: any or none */
} hostile;

static const hostile hostiles[] = {
    {0x81, 10, 0, 0, 1003},      {0x01, 10, 0, 0, 1003},
    {0x82, 65537, 0, 0, 1009},   {0x02, 60000, 0x00, 6000, 1009},
    {0x02, 1, 0x00, 1000, 1009}, {0x02, 65536, 0x80, 1, 1009},
    {0x83, 1, 0, 0, 0},          {0xf2, 1, 0, 0, 0},
    {0x80, 1, 0, 0, 0},          {0x09, 1, 0, 0, 0},
    {0x89, 126, 0, 0, 0},        {0x02, 1, 0x82, 1, 0},
    {0x88, 1, 0, 0, 0},          {0x8b, 1, 0, 0, 0},
};

static void hostile_clients(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (size_t i = 0; i < 2 * sizeof(hostiles) / sizeof(hostiles[0]); i++) {
        const hostile *h = &hostiles[i / 2];
        server_open(r, NULL, 0, i % 2);
        size_t n = test_frame(wire, h->first, true, big, h->n);
        send_all(r, wire, n);
        /* Continued until it is too much. */
        for (size_t sum = h->n; h->second_n && sum <= 65536; sum += h->second_n) {
            n = test_frame(wire, h->second, true, big, h->second_n);
            send_all(r, wire, n);
        }
        UNTIL(&r->l, received(r, h->code ? 4 : 1));
        if (h->code) {
            assert_int_equal(r->in[0], 0x88);
            assert_int_equal(r->in[2] << 8 | r->in[3], h->code);
        }
        shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        if (h->code)
            assert_int_equal(r->e.error, TUNNEL_E_PROTOCOL);
        else
            assert_true(r->e.error == TUNNEL_E_PROTOCOL || r->e.error == TUNNEL_E_EOF);
        assert_true(r->e.received <= 65536);
        server_close(r);
    }
    rig_close(r);
}

/* The length alone says that a message is too great: it is not waited for. */
static void a_huge_length(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int plain = 0; plain < 2; plain++) {
        static const uint8_t head[] = {0x82, 0xff, 0,    0, 0x7f, 0xff, 0xff,
                                       0xff, 0xff, 0xff, 1, 2,    3,    4};
        server_open(r, NULL, 0, plain);
        send_all(r, head, sizeof(head));
        send_all(r, big, 10);
        UNTIL(&r->l, received(r, 4));
        assert_memory_equal(r->in, "\x88\x02\x03\xf1", 4);
        shutdown(r->fd, SHUT_WR);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.error, TUNNEL_E_PROTOCOL);
        server_close(r);
    }
    rig_close(r);
}

/* RFC 6455 section 5.1 has the server close on a frame without mask; libwebsockets 4.3 takes it.
 * Harmless, as the mask protects proxies from browsers, not the server; what matters is that it is
 * read right. */
static void unmasked_frames(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int plain = 0; plain < 2; plain++) {
        uint8_t data[300];
        test_fill(data, sizeof(data), 0);
        server_open(r, NULL, 0, plain);
        size_t n = test_frame(wire, 0x82, false, data, sizeof(data));
        send_all(r, wire, n);
        UNTIL(&r->l, r->e.closes || r->e.received == sizeof(data));
        if (!r->e.closes)
            assert_int_equal(r->e.hash, test_sequence_hash(sizeof(data)));
        server_close(r);
    }
    rig_close(r);
}

/* Every prefix of a conversation, then the end or a reset. */
static void cut_short(void **state)
{
    (void)state;
    rig *r = rig_open();
    uint8_t frames[200];
    size_t n = test_frame(frames, 0x02, true, big, 20);
    n += test_frame(frames + n, 0x89, true, "x", 1);
    n += test_frame(frames + n, 0x80, true, big, 150 - n);
    for (size_t i = 0; i <= 4 * n; i++) {
        server_open(r, NULL, 0, i % 2);
        send_all(r, frames, i / 4);
        test_turn(&r->l);
        if (i % 4 < 2) {
            struct linger hard = {1, 0};
            setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        }
        server_close(r);
        assert_true(r->e.error == TUNNEL_E_EOF || r->e.error == TUNNEL_E_RESET);
    }
    rig_close(r);
}

/* Sends until nothing moves any more. */
static uint64_t get_stuck(rig *r)
{
    uint64_t before;
    test_end_send(&r->e, (uint64_t)1 << 40);
    do {
        before = r->e.sent;
        for (int k = 0; k < 20; k++)
            test_turn(&r->l);
    } while (r->e.sent != before);
    return before;
}

/* A peer that never answers the close frame, or does not even read, holds nothing for long. */
static void deaf_peers(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int i = 0; i < 2; i++) {
        server_open(r, NULL, 0, i);
        if (i) {
            get_stuck(r);
        }
        test_end_close(&r->e);
        UNTIL(&r->l, r->e.closes);
        assert_int_equal(r->e.error, 0);
        server_close(r);
    }
    rig_close(r);
}

/* The reason of an end reaches also a peer whose connection was full just then. */
static void last_words_wait_for_room(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int plain = 0; plain < 2; plain++) {
        int size = 32 * 1024;
        server_open(r, NULL, 0, plain);
        setsockopt(r->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        uint64_t before = get_stuck(r);
        test_end_close(&r->e);
        UNTIL(&r->l, (r->n = 0, received(r, SIZE_MAX), r->e.closes));
        assert_int_equal(r->e.error, 0);
        assert_true(r->e.sent > before);
        server_close(r);
    }
    rig_close(r);
}

/* The transport never takes more from its user than the other side makes room for. */
static void bounded_when_stuck(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int plain = 0; plain < 2; plain++) {
        int size = 32 * 1024;
        server_open(r, NULL, 0, plain);
        setsockopt(r->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        uint64_t before = get_stuck(r);
        assert_true(r->e.sent < 16 * 1024 * 1024); /* the kernel's buffers, mostly */
        /* And goes on when there is room. */
        UNTIL(&r->l, (r->n = 0, received(r, SIZE_MAX), r->e.sent > before));
        server_close(r);
    }
    rig_close(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_request),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(refused_answers),
        cmocka_unit_test(oversized_answers),
        cmocka_unit_test(silent_servers),
        cmocka_unit_test(frames_behind_the_answer),
        cmocka_unit_test(frames_a_server_must_not_send),
        cmocka_unit_test(heads_that_are_not_accepted),
        cmocka_unit_test(frames_with_the_head),
        cmocka_unit_test(hostile_clients),
        cmocka_unit_test(a_huge_length),
        cmocka_unit_test(unmasked_frames),
        cmocka_unit_test(cut_short),
        cmocka_unit_test(deaf_peers),
        cmocka_unit_test(last_words_wait_for_room),
        cmocka_unit_test(bounded_when_stuck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
