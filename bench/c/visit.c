/* SPDX-License-Identifier: Apache-2.0 */
/*
 * visit - the visitor of the TCP and UDP benchmarks; talks to c/peer.c, or to what stands before
 * it.
 *
 *   visit down    PORT SIZE MS LIMIT        has SIZE bytes sent, again and again, over one
 * connection visit up      PORT SIZE MS LIMIT        sends them visit connect PORT CONNECTIONS MS
 * connects, asks for a byte, reads to the end, and again; that many at the same time visit udp PORT
 * FLOWS WINDOW SIZE MS datagrams that come back: FLOWS sockets with WINDOW datagrams under way each
 *   visit flows   PORT COUNT                a datagram there and back on each of COUNT sockets;
 * then prints "ready" and keeps them until a line is read
 *
 * `down` and `up` start again while fewer than MS milliseconds have passed and fail after LIMIT
 * seconds. The result is one line of JSON:
 *   {"count": bodies, connections or datagrams, "bytes": ..., "lost": datagrams, "seconds": wall
 * time} An answer that was meant for another socket, or that was changed, ends the program.
 */
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define IO_SIZE      (256 * 1024)
#define REQUEST_SIZE 9
#define EVENTS_MAX   64
#define CONNS_MAX    1024
#define FLOWS_MAX    16384
#define WINDOW_MAX   64
#define HEAD_SIZE    8 /* of a datagram: the flow, and a number */
#define LOST_AFTER   0.2

struct totals {
    uint64_t count;
    uint64_t bytes;
    uint64_t lost;
    double start;
    double end; /* when not to start again */
};

static void totals_begin(struct totals *totals, uint64_t ms)
{
    *totals = (struct totals){.start = bench_now()};
    totals->end = totals->start + (double)ms / 1000.0;
}

static void report(const struct totals *totals)
{
    printf("{\"count\": %llu, \"bytes\": %llu, \"lost\": %llu, \"seconds\": %.6f}\n",
           (unsigned long long)totals->count, (unsigned long long)totals->bytes,
           (unsigned long long)totals->lost, bench_now() - totals->start);
}

static void make_request(unsigned char *out, char what, uint64_t size)
{
    out[0] = (unsigned char)what;
    for (int i = 0; i < 8; i++)
        out[1 + i] = (unsigned char)(size >> (56 - 8 * i));
}

/* --- down, up ----------------------------------------------------------------------------------
 */

static void check_limit(const struct totals *totals, unsigned limit)
{
    if (bench_now() > totals->start + limit)
        bench_die("too slow: the time limit passed in the middle of a body");
}

/* argv: down|up PORT SIZE MS LIMIT */
static void run_bulk(char **argv, int up)
{
    uint64_t size = bench_number(argv[3], 1, (uint64_t)1 << 40, "SIZE");
    uint64_t ms = bench_number(argv[4], 0, 3600000, "MS");
    unsigned limit = (unsigned)bench_number(argv[5], 1, 3600, "LIMIT");
    int fd = bench_dial(argv[2], limit);
    char *buf = bench_bytes(IO_SIZE);
    unsigned char request[REQUEST_SIZE];
    struct totals totals;

    make_request(request, up ? 'u' : 'd', size);
    totals_begin(&totals, ms);
    do {
        bench_send_all(fd, request, sizeof(request));
        for (uint64_t left = size; left > 0;) {
            size_t n = left < IO_SIZE ? (size_t)left : IO_SIZE;

            if (up)
                bench_send_all(fd, buf, n);
            else
                n = bench_receive(fd, buf, n);
            left -= n;
            check_limit(&totals, limit);
        }
        if (up && (bench_receive(fd, buf, IO_SIZE) != 1 || buf[0] != 'u'))
            bench_die("an upload was answered with something else");
        totals.count++;
        totals.bytes += size;
    } while (bench_now() < totals.end);
    report(&totals);
    close(fd);
    free(buf);
}

/* --- connect -----------------------------------------------------------------------------------
 */

struct caller {
    int fd;
    int asked;
    int answered;
};

static void caller_dial(int epoll, struct caller *caller, const char *place)
{
    struct sockaddr_in addr = bench_place(place);
    struct epoll_event ev = {.events = EPOLLOUT, .data = {.ptr = caller}};

    *caller = (struct caller){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (caller->fd < 0 ||
        (connect(caller->fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 && errno != EINPROGRESS))
        bench_die("connecting to %s: %s", place, strerror(errno));
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, caller->fd, &ev) != 0)
        bench_die("epoll_ctl: %s", strerror(errno));
}

/* Returns 1 when the connection has ended as it should. */
static int caller_ready(int epoll, struct caller *caller)
{
    struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = caller}};
    unsigned char request[REQUEST_SIZE];
    char answer[16];
    ssize_t n;

    if (!caller->asked) {
        make_request(request, 'c', 0);
        if (send(caller->fd, request, sizeof(request), MSG_NOSIGNAL) != REQUEST_SIZE ||
            epoll_ctl(epoll, EPOLL_CTL_MOD, caller->fd, &ev) != 0)
            bench_die("a connection failed: %s", strerror(errno));
        caller->asked = 1;
        return 0;
    }
    n = recv(caller->fd, answer, sizeof(answer), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        bench_die("a connection broke: %s", strerror(errno));
    if (n == 0 && !caller->answered)
        bench_die("a connection was closed without an answer");
    if (n == 0)
        return 1;
    if (caller->answered || n != 1 || answer[0] != 'c')
        bench_die("a connection was answered with something else");
    caller->answered = 1;
    return 0;
}

/* argv: connect PORT CONNECTIONS MS */
static void run_connect(char **argv)
{
    static struct caller callers[CONNS_MAX];
    struct epoll_event events[EVENTS_MAX];
    size_t live = (size_t)bench_number(argv[3], 1, CONNS_MAX, "CONNECTIONS");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct totals totals;

    totals_begin(&totals, bench_number(argv[4], 0, 3600000, "MS"));
    for (size_t i = 0; i < live; i++)
        caller_dial(epoll, &callers[i], argv[2]);
    while (live > 0) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, 30000);

        if (n == 0)
            bench_die("no answer within 30 seconds");
        for (int i = 0; i < n; i++) {
            struct caller *caller = events[i].data.ptr;

            if (!caller_ready(epoll, caller))
                continue;
            close(caller->fd);
            totals.count++;
            totals.bytes++;
            if (bench_now() < totals.end)
                caller_dial(epoll, caller, argv[2]);
            else
                live--;
        }
    }
    report(&totals);
    close(epoll);
}

/* --- udp, flows --------------------------------------------------------------------------------
 */

struct flow {
    int fd;
    uint32_t index;
    uint32_t next;     /* number of the next datagram */
    unsigned underway; /* not yet back, as far as known */
    double heard;
};

struct udp {
    struct flow *flows;
    size_t count;
    unsigned window;
    size_t size;
    char *buf; /* WINDOW_MAX datagrams */
    struct totals totals;
};

static void flows_open(struct udp *udp, const char *place)
{
    struct sockaddr_in addr = bench_place(place);
    struct rlimit files;
    int room = 4 * 1024 * 1024;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    udp->flows = calloc(udp->count, sizeof(*udp->flows));
    udp->buf = bench_bytes(WINDOW_MAX * udp->size);
    if (udp->flows == NULL)
        bench_die("out of memory");
    for (size_t i = 0; i < udp->count; i++) {
        struct flow *flow = &udp->flows[i];

        flow->index = (uint32_t)i;
        flow->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (flow->fd < 0 || connect(flow->fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
            bench_die("socket: %s", strerror(errno));
        setsockopt(flow->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    }
}

static void flow_send(struct udp *udp, struct flow *flow, unsigned count)
{
    struct mmsghdr msgs[WINDOW_MAX] = {0};
    struct iovec iov[WINDOW_MAX];

    for (unsigned i = 0; i < count; i++) {
        char *at = udp->buf + i * udp->size;

        memcpy(at, &flow->index, 4);
        memcpy(at + 4, &flow->next, 4);
        flow->next++;
        iov[i] = (struct iovec){at, udp->size};
        msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    /* What the system does not take counts as sent and lost. */
    (void)sendmmsg(flow->fd, msgs, count, 0);
    flow->underway += count;
}

/* Takes what has come back; returns how many. */
static unsigned flow_receive(struct udp *udp, struct flow *flow)
{
    struct mmsghdr msgs[WINDOW_MAX] = {0};
    struct iovec iov[WINDOW_MAX];
    char heads[WINDOW_MAX][HEAD_SIZE];
    int got;

    for (unsigned i = 0; i < WINDOW_MAX; i++) {
        iov[i] = (struct iovec){heads[i], HEAD_SIZE};
        msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    got = recvmmsg(flow->fd, msgs, WINDOW_MAX, MSG_DONTWAIT | MSG_TRUNC, NULL);
    for (int i = 0; i < got; i++) {
        if (msgs[i].msg_len != udp->size || memcmp(heads[i], &flow->index, 4) != 0)
            bench_die("a datagram came back changed, or to the wrong socket");
    }
    return got > 0 ? (unsigned)got : 0;
}

/* Datagrams that have not come back for a while are lost: others take their places. */
static void find_lost(struct udp *udp)
{
    double now = bench_now();

    for (size_t i = 0; i < udp->count; i++) {
        struct flow *flow = &udp->flows[i];

        if (now - flow->heard < LOST_AFTER)
            continue;
        udp->totals.lost += flow->underway;
        flow->underway = 0;
        flow->heard = now;
        flow_send(udp, flow, udp->window);
    }
}

/* argv: udp PORT FLOWS WINDOW SIZE MS */
static void run_udp(char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    struct udp udp = {.count = (size_t)bench_number(argv[3], 1, FLOWS_MAX, "FLOWS"),
                      .window = (unsigned)bench_number(argv[4], 1, WINDOW_MAX, "WINDOW"),
                      .size = (size_t)bench_number(argv[5], HEAD_SIZE, 65507, "SIZE")};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    double looked;

    flows_open(&udp, argv[2]);
    totals_begin(&udp.totals, bench_number(argv[6], 0, 3600000, "MS"));
    looked = udp.totals.start;
    for (size_t i = 0; i < udp.count; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = &udp.flows[i]}};

        udp.flows[i].heard = udp.totals.start;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, udp.flows[i].fd, &ev) != 0)
            bench_die("epoll_ctl: %s", strerror(errno));
        flow_send(&udp, &udp.flows[i], udp.window);
    }
    while (bench_now() < udp.totals.end) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, (int)(LOST_AFTER * 500));

        for (int i = 0; i < n; i++) {
            struct flow *flow = events[i].data.ptr;
            unsigned got = flow_receive(&udp, flow);

            udp.totals.count += got;
            udp.totals.bytes += got * udp.size;
            /* Some that were given up may come after all; the window stays what it is. */
            flow->underway -= got < flow->underway ? got : flow->underway;
            flow->heard = bench_now();
            flow_send(&udp, flow, udp.window - flow->underway);
        }
        if (bench_now() - looked > LOST_AFTER / 2) {
            find_lost(&udp);
            looked = bench_now();
        }
    }
    if (udp.totals.count == 0)
        bench_die("not one datagram came back");
    report(&udp.totals);
    free(udp.flows);
    free(udp.buf);
    close(epoll);
}

/* argv: flows PORT COUNT */
static void run_flows(char **argv)
{
    struct udp udp = {.count = (size_t)bench_number(argv[3], 1, FLOWS_MAX, "COUNT"), .size = 64};

    flows_open(&udp, argv[2]);
    for (size_t i = 0; i < udp.count; i++) {
        struct pollfd poller = {.fd = udp.flows[i].fd, .events = POLLIN};

        for (int tries = 0; flow_receive(&udp, &udp.flows[i]) == 0; tries++) {
            if (tries == 100)
                bench_die("flow %zu is not answered", i);
            flow_send(&udp, &udp.flows[i], 1);
            (void)poll(&poller, 1, 200);
        }
    }
    bench_pause("ready");
    free(udp.flows);
    free(udp.buf);
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "down") == 0)
        run_bulk(argv, 0);
    else if (argc == 6 && strcmp(argv[1], "up") == 0)
        run_bulk(argv, 1);
    else if (argc == 5 && strcmp(argv[1], "connect") == 0)
        run_connect(argv);
    else if (argc == 7 && strcmp(argv[1], "udp") == 0)
        run_udp(argv);
    else if (argc == 4 && strcmp(argv[1], "flows") == 0)
        run_flows(argv);
    else
        bench_die("usage: visit down|up PORT SIZE MS LIMIT | connect PORT CONNECTIONS MS | "
                  "udp PORT FLOWS WINDOW SIZE MS | flows PORT COUNT");
    return 0;
}
