/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer - the origin of the TCP and UDP benchmarks: one thread on epoll.
 *
 *   peer tcp PORT      does what a request of 9 bytes asks for, one after another:
 *                      'd' and a size: sends that many bytes
 *                      'u' and a size: reads that many bytes and answers with one
 *                      'c' and anything: answers with one byte and closes
 *   peer udp PORT      sends every datagram back
 *
 * The size is a number of 8 bytes, big-endian. PORT 0 picks a free one; "listening: 127.0.0.1:PORT"
 * says that it is ready. It talks only to what the benchmark started.
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

#define IO_SIZE      (256 * 1024)
#define REQUEST_SIZE 9
#define EVENTS_MAX   64
#define BATCH        32
#define DATAGRAM_MAX 65536

struct conn {
    int fd;
    uint32_t waits; /* EPOLLIN or EPOLLOUT */
    size_t have;    /* bytes of the request */
    uint64_t left;  /* to send or to read, once the request is there */
    unsigned char request[REQUEST_SIZE];
};

struct peer {
    int epoll;
    int fd; /* the listener, or the UDP socket */
    char *buf;
};

static void conn_close(struct conn *conn)
{
    close(conn->fd);
    free(conn);
}

static int conn_wait(struct peer *peer, struct conn *conn, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data = {.ptr = conn}};

    if (conn->waits == events)
        return 0;
    conn->waits = events;
    return epoll_ctl(peer->epoll, EPOLL_CTL_MOD, conn->fd, &ev);
}

/* Each step returns 1 to go on, 0 to wait for an event, -1 to close. */
static int step_request(struct conn *conn)
{
    ssize_t n = recv(conn->fd, conn->request + conn->have, REQUEST_SIZE - conn->have, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -1;
    conn->have += (size_t)n;
    if (conn->have < REQUEST_SIZE)
        return 0;
    conn->left = 0;
    for (int i = 1; i < REQUEST_SIZE; i++)
        conn->left = conn->left << 8 | conn->request[i];
    if (conn->request[0] != 'c')
        return 1;
    send(conn->fd, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    return -1;
}

static int step_body(struct peer *peer, struct conn *conn)
{
    size_t len = conn->left < IO_SIZE ? (size_t)conn->left : IO_SIZE;
    int down = conn->request[0] == 'd';
    ssize_t n = down ? send(conn->fd, peer->buf, len, MSG_NOSIGNAL | MSG_DONTWAIT)
                     : recv(conn->fd, peer->buf, len, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return conn_wait(peer, conn, down ? EPOLLOUT : EPOLLIN) == 0 ? 0 : -1;
    if (n <= 0)
        return -1;
    conn->left -= (uint64_t)n;
    if (conn->left > 0)
        return 1;
    conn->have = 0;
    if (!down && send(conn->fd, "u", 1, MSG_NOSIGNAL) != 1)
        return -1;
    return conn_wait(peer, conn, EPOLLIN) == 0 ? 0 : -1;
}

static void conn_ready(struct peer *peer, struct conn *conn)
{
    int again = 1;

    /* A few steps, so that one connection does not keep the others waiting. */
    for (int i = 0; i < 8 && again > 0; i++)
        again = conn->have < REQUEST_SIZE ? step_request(conn) : step_body(peer, conn);
    if (again > 0 && conn->have == REQUEST_SIZE && conn->request[0] == 'd')
        again = conn_wait(peer, conn, EPOLLOUT);
    if (again < 0)
        conn_close(conn);
}

static void accept_all(struct peer *peer)
{
    for (;;) {
        int fd = accept4(peer->fd, NULL, NULL, SOCK_CLOEXEC);
        struct epoll_event ev = {.events = EPOLLIN};
        struct conn *conn;
        int one = 1;

        if (fd < 0)
            return;
        conn = calloc(1, sizeof(*conn));
        if (conn == NULL)
            bench_die("out of memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        conn->fd = fd;
        conn->waits = EPOLLIN;
        ev.data.ptr = conn;
        if (epoll_ctl(peer->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
            conn_close(conn);
    }
}

static void serve_tcp(struct peer *peer)
{
    struct epoll_event events[EVENTS_MAX];

    for (;;) {
        int n = epoll_wait(peer->epoll, events, EVENTS_MAX, -1);

        if (n < 0 && errno != EINTR)
            bench_die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(peer);
            else
                conn_ready(peer, events[i].data.ptr);
        }
    }
}

static void serve_udp(struct peer *peer)
{
    struct mmsghdr msgs[BATCH] = {0};
    struct sockaddr_in from[BATCH];
    struct iovec iov[BATCH];

    for (;;) {
        int got;

        for (int i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){peer->buf + (size_t)i * DATAGRAM_MAX, DATAGRAM_MAX};
            msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                              .msg_namelen = sizeof(from[i]),
                                              .msg_iov = &iov[i],
                                              .msg_iovlen = 1};
        }
        got = recvmmsg(peer->fd, msgs, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0 && errno != EINTR && errno != ECONNREFUSED)
            bench_die("receiving: %s", strerror(errno));
        for (int i = 0; i < got; i++)
            iov[i].iov_len = msgs[i].msg_len;
        for (int sent = 0; sent < got;) {
            int n = sendmmsg(peer->fd, msgs + sent, (unsigned)(got - sent), 0);

            sent += n > 0 ? n : 1; /* one that cannot be sent is lost, as datagrams are */
        }
    }
}

static void open_socket(struct peer *peer, int type, const char *place)
{
    struct sockaddr_in addr = bench_place(place);
    struct epoll_event ev = {.events = EPOLLIN};
    socklen_t len = sizeof(addr);
    int one = 1;
    int room = 8 * 1024 * 1024;

    peer->epoll = epoll_create1(EPOLL_CLOEXEC);
    peer->fd = socket(AF_INET, type | SOCK_CLOEXEC | (type == SOCK_STREAM ? SOCK_NONBLOCK : 0), 0);
    if (peer->epoll < 0 || peer->fd < 0)
        bench_die("socket: %s", strerror(errno));
    setsockopt(peer->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (type == SOCK_DGRAM)
        setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (bind(peer->fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        (type == SOCK_STREAM && listen(peer->fd, 1024) != 0) ||
        getsockname(peer->fd, (struct sockaddr *)&addr, &len) != 0 ||
        epoll_ctl(peer->epoll, EPOLL_CTL_ADD, peer->fd, &ev) != 0)
        bench_die("listening on %s: %s", place, strerror(errno));
    printf("listening: %s:%u\n", inet_ntoa(addr.sin_addr), (unsigned)ntohs(addr.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct peer peer = {0};
    int udp = argc == 3 && strcmp(argv[1], "udp") == 0;

    if (!udp && (argc != 3 || strcmp(argv[1], "tcp") != 0))
        bench_die("usage: peer tcp|udp PORT");
    peer.buf = bench_bytes((size_t)BATCH * DATAGRAM_MAX); /* more than IO_SIZE */
    open_socket(&peer, udp ? SOCK_DGRAM : SOCK_STREAM, argv[2]);
    if (udp)
        serve_udp(&peer);
    else
        serve_tcp(&peer);
}
