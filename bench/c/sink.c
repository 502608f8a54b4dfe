/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink - the origin for uploads: one thread on epoll that reads request bodies and drops them.
 *
 *   sink PORT        (0 picks a free port; prints "listening: 127.0.0.1:PORT" when ready)
 *
 * nginx can only take a body by spooling it to a file or by handing it on, so as an upload origin
 * it would measure itself. This answers each request with the number of body bytes it has read.
 */
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE  (256 * 1024)
#define CONNS_MAX  256
#define EVENTS_MAX 64

struct conn {
    int fd;
    int64_t body;    /* Content-Length of the request being read; -1 while its head is read */
    int64_t left;    /* body bytes still to come */
    size_t head_len; /* bytes collected in head */
    char head[BENCH_HEAD_MAX];
};

struct sink {
    int epoll;
    int listener;
    unsigned conns;
    char buf[READ_SIZE];
};

static void conn_close(struct sink *sink, struct conn *conn)
{
    close(conn->fd);
    free(conn);
    sink->conns--;
}

/* The answers are far smaller than an empty socket buffer: a short write means a broken peer. */
static int conn_answer(struct conn *conn, const char *status, int64_t count)
{
    char body[32];
    char out[160];
    int body_len = snprintf(body, sizeof(body), "%lld\n", (long long)count);
    int len = snprintf(out, sizeof(out),
                       "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
                       status, body_len, body);

    return send(conn->fd, out, (size_t)len, MSG_NOSIGNAL) == len ? 0 : -1;
}

/* Returns the bytes of the body that came along with the end of the head, or -1 to close. */
static int head_done(struct conn *conn, size_t head_end)
{
    size_t extra = conn->head_len - head_end;
    int is_get = strncmp(conn->head, "GET ", 4) == 0 || strncmp(conn->head, "HEAD ", 5) == 0;

    conn->body = bench_content_length(conn->head, head_end);
    if (conn->body < 0 && is_get)
        conn->body = 0;
    if (conn->body < 0 || (int64_t)extra > conn->body) {
        conn_answer(conn, "411 Length Required", 0);
        return -1;
    }
    conn->head_len = 0;
    conn->left = conn->body;
    return (int)extra;
}

/* Takes `len` bytes at `data`; returns -1 when the connection is to be closed. */
static int conn_take(struct conn *conn, const char *data, size_t len)
{
    int64_t body_bytes = (int64_t)len;

    if (conn->body < 0) {
        size_t end;
        int extra;

        if (len > sizeof(conn->head) - conn->head_len) {
            /* Only body bytes can follow a head, and then the head is in what fits. */
            len = sizeof(conn->head) - conn->head_len;
        }
        memcpy(conn->head + conn->head_len, data, len);
        conn->head_len += len;
        end = bench_head_length(conn->head, conn->head_len);
        if (end == 0)
            return conn->head_len == sizeof(conn->head) ? -1 : 0;
        body_bytes -= (int64_t)len;
        extra = head_done(conn, end);
        if (extra < 0)
            return -1;
        body_bytes += extra;
    }
    if (body_bytes > conn->left)
        return -1;
    conn->left -= body_bytes;
    if (conn->left > 0)
        return 0;
    if (conn_answer(conn, "200 OK", conn->body) != 0)
        return -1;
    conn->body = -1;
    return 0;
}

static void conn_readable(struct sink *sink, struct conn *conn)
{
    ssize_t got = recv(conn->fd, sink->buf, sizeof(sink->buf), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || conn_take(conn, sink->buf, (size_t)got) != 0)
        conn_close(sink, conn);
}

static void accept_one(struct sink *sink)
{
    int fd = accept4(sink->listener, NULL, NULL, SOCK_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    struct conn *conn = NULL;
    int one = 1;

    if (fd < 0)
        return;
    if (sink->conns < CONNS_MAX)
        conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    conn->fd = fd;
    conn->body = -1;
    sink->conns++;
    ev.data.ptr = conn;
    if (epoll_ctl(sink->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
        conn_close(sink, conn);
}

static void listen_on(struct sink *sink, uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event ev = {.events = EPOLLIN};
    socklen_t len = sizeof(addr);
    int one = 1;

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sink->epoll = epoll_create1(EPOLL_CLOEXEC);
    sink->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sink->epoll < 0 || sink->listener < 0)
        bench_die("socket: %s", strerror(errno));
    setsockopt(sink->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(sink->listener, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        listen(sink->listener, 128) != 0 ||
        getsockname(sink->listener, (struct sockaddr *)&addr, &len) != 0 ||
        epoll_ctl(sink->epoll, EPOLL_CTL_ADD, sink->listener, &ev) != 0)
        bench_die("listening on 127.0.0.1:%u: %s", (unsigned)port, strerror(errno));
    printf("listening: 127.0.0.1:%u\n", (unsigned)ntohs(addr.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    struct sink *sink = calloc(1, sizeof(*sink));

    if (argc != 2)
        bench_die("usage: sink PORT");
    if (sink == NULL)
        bench_die("out of memory");
    listen_on(sink, (uint16_t)bench_number(argv[1], 0, 65535, "PORT"));
    for (;;) {
        int n = epoll_wait(sink->epoll, events, EVENTS_MAX, -1);

        if (n < 0 && errno != EINTR)
            bench_die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_one(sink);
            else
                conn_readable(sink, events[i].data.ptr);
        }
    }
}
