/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load - the visitor of the benchmark.
 *
 *   load down  PORT HOST PATH MS LIMIT             downloads whole bodies, one after another
 *   load up    PORT HOST PATH SIZE MS LIMIT        uploads whole bodies of SIZE bytes
 *   load small PORT HOST PATH COUNT CONNECTIONS    exactly COUNT small requests
 *
 * Talks to 127.0.0.1:PORT with the Host header HOST over kept-alive connections. `down` and `up`
 * start another body while fewer than MS milliseconds have passed, always finish it, and fail after
 * LIMIT seconds; an upload counts when its answer has come. The result is one line of JSON:
 *   {"count": bodies or requests, "bytes": body bytes, "seconds": wall time}
 * With a last argument `hold` it connects, warms the connections up (one body, or some requests),
 * prints "ready", waits for a line on stdin before the load, and for another before it hangs up: so
 * that the load alone can be watched from outside.
 */
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define IO_SIZE       (256 * 1024)
#define CONNS_MAX     1024
#define EVENTS_MAX    64
#define REQUEST_MAX   1024
#define WARM_REQUESTS 20 /* a connection */

struct totals {
    uint64_t count;
    uint64_t bytes;
    double start;
};

struct visitor {
    int fd;
    size_t have;  /* bytes in buf that are not used up */
    int64_t left; /* body bytes still to come; -1 while the head is read (small only) */
    char buf[BENCH_HEAD_MAX];
};

/* Checks a complete head: status 200 and a Content-Length, which is returned. */
static int64_t check_head(const char *head, size_t len)
{
    int64_t length = bench_content_length(head, len);

    if (len < 13 || strncmp(head, "HTTP/1.1 200 ", 13) != 0)
        bench_die("unexpected answer: %.*s", (int)strcspn(head, "\r\n"), head);
    if (length < 0)
        bench_die("an answer without Content-Length");
    return length;
}

/* Reads one whole answer and drops its body; returns the body's length. */
static uint64_t read_answer(int fd, char *buf, double deadline)
{
    size_t have = 0;
    size_t head = 0;
    int64_t length;
    int64_t left;

    while (head == 0) {
        if (have == BENCH_HEAD_MAX)
            bench_die("the head of an answer is too long");
        have += bench_receive(fd, buf + have, BENCH_HEAD_MAX - have);
        head = bench_head_length(buf, have);
    }
    length = check_head(buf, head);
    left = length - (int64_t)(have - head);
    while (left > 0) {
        left -= (int64_t)bench_receive(fd, buf, left < IO_SIZE ? (size_t)left : IO_SIZE);
        if (bench_now() > deadline)
            bench_die("too slow: the time limit passed in the middle of a body");
    }
    if (left < 0)
        bench_die("an answer is longer than its Content-Length");
    return (uint64_t)length;
}

static void send_body(int fd, const char *buf, uint64_t size, double deadline)
{
    while (size > 0) {
        size_t n = size < IO_SIZE ? (size_t)size : IO_SIZE;

        bench_send_all(fd, buf, n);
        size -= n;
        if (bench_now() > deadline)
            bench_die("too slow: the time limit passed in the middle of a body");
    }
}

static void report(const struct totals *totals)
{
    printf("{\"count\": %llu, \"bytes\": %llu, \"seconds\": %.6f}\n",
           (unsigned long long)totals->count, (unsigned long long)totals->bytes,
           bench_now() - totals->start);
}

static size_t make_request(char *out, size_t size, char **argv, const char *method, int64_t length)
{
    char extra[64] = "";
    int n;

    if (length >= 0)
        snprintf(extra, sizeof(extra), "Content-Length: %lld\r\n", (long long)length);
    n = snprintf(out, size, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, argv[4], argv[3],
                 extra);
    if (n < 0 || (size_t)n >= size)
        bench_die("the request is too long");
    return (size_t)n;
}

struct bulk {
    int fd;
    int up;
    uint64_t size; /* of an uploaded body */
    char *buf;     /* IO_SIZE bytes */
    char request[REQUEST_MAX];
    size_t request_len;
};

/* Moves one body; returns its length. */
static uint64_t bulk_body(struct bulk *bulk, double deadline)
{
    uint64_t got;

    bench_send_all(bulk->fd, bulk->request, bulk->request_len);
    if (bulk->up)
        send_body(bulk->fd, bulk->buf, bulk->size, deadline);
    got = read_answer(bulk->fd, bulk->buf, deadline);
    return bulk->up ? bulk->size : got;
}

/* argv: down PORT HOST PATH MS LIMIT, or up PORT HOST PATH SIZE MS LIMIT */
static void run_bulk(char **argv, int up, int hold)
{
    uint64_t size = up ? bench_number(argv[5], 1, (uint64_t)1 << 40, "SIZE") : 0;
    uint64_t ms = bench_number(argv[5 + up], 0, 3600000, "MS");
    unsigned limit = (unsigned)bench_number(argv[6 + up], 1, 3600, "LIMIT");
    struct bulk bulk = {.up = up, .size = size, .buf = bench_bytes(IO_SIZE)};
    struct totals totals = {0};

    bulk.request_len = make_request(bulk.request, sizeof(bulk.request), argv, up ? "PUT" : "GET",
                                    up ? (int64_t)size : -1);
    bulk.fd = bench_dial(argv[2], limit);
    if (hold) {
        bulk_body(&bulk, bench_now() + limit);
        bench_pause("ready");
    }
    totals.start = bench_now();
    do {
        totals.bytes += bulk_body(&bulk, totals.start + limit);
        totals.count++;
    } while ((bench_now() - totals.start) * 1000.0 < (double)ms);
    report(&totals);
    if (hold)
        bench_pause(NULL);
    close(bulk.fd);
    free(bulk.buf);
}

/* Reads what has come; returns 1 when an answer is complete. */
static int small_readable(struct visitor *visitor)
{
    size_t head;

    visitor->have += bench_receive(visitor->fd, visitor->buf + visitor->have,
                                   sizeof(visitor->buf) - visitor->have);
    if (visitor->left < 0) {
        head = bench_head_length(visitor->buf, visitor->have);
        if (head == 0 && visitor->have == sizeof(visitor->buf))
            bench_die("the head of an answer is too long");
        if (head == 0)
            return 0;
        visitor->left = check_head(visitor->buf, head);
        visitor->have -= head;
    }
    visitor->left -= (int64_t)visitor->have;
    visitor->have = 0;
    if (visitor->left < 0)
        bench_die("an answer is longer than its Content-Length");
    return visitor->left == 0;
}

struct small {
    int epoll;
    size_t conns;
    struct visitor *visitors;
    char request[REQUEST_MAX];
    size_t request_len;
};

static void small_open(struct small *small, const char *place)
{
    small->visitors = calloc(small->conns, sizeof(*small->visitors));
    small->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (small->visitors == NULL || small->epoll < 0)
        bench_die("out of memory");
    for (size_t i = 0; i < small->conns; i++) {
        struct visitor *visitor = &small->visitors[i];
        struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = visitor}};

        visitor->fd = bench_dial(place, 0);
        if (epoll_ctl(small->epoll, EPOLL_CTL_ADD, visitor->fd, &ev) != 0)
            bench_die("epoll_ctl: %s", strerror(errno));
    }
}

/* Makes exactly `count` requests, one at a time on each connection. */
static void small_exchange(struct small *small, uint64_t count, struct totals *totals)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t sent = 0;

    for (size_t i = 0; i < small->conns && sent < count; i++, sent++) {
        small->visitors[i].left = -1;
        bench_send_all(small->visitors[i].fd, small->request, small->request_len);
    }
    while (totals->count < count) {
        int n = epoll_wait(small->epoll, events, EVENTS_MAX, 30000);

        if (n == 0)
            bench_die("no answer within 30 seconds");
        for (int i = 0; i < n; i++) {
            struct visitor *visitor = events[i].data.ptr;

            if (!small_readable(visitor))
                continue;
            totals->count++;
            visitor->left = -1;
            if (sent < count) {
                bench_send_all(visitor->fd, small->request, small->request_len);
                sent++;
            }
        }
    }
}

/* argv: small PORT HOST PATH COUNT CONNECTIONS */
static void run_small(char **argv, int hold)
{
    uint64_t count = bench_number(argv[5], 1, 1000000000, "COUNT");
    struct small small = {.conns = (size_t)bench_number(argv[6], 1, CONNS_MAX, "CONNECTIONS")};
    struct totals warm = {0};
    struct totals totals = {0};

    small.request_len = make_request(small.request, sizeof(small.request), argv, "GET", -1);
    small_open(&small, argv[2]);
    if (hold) {
        small_exchange(&small, small.conns * WARM_REQUESTS, &warm);
        bench_pause("ready");
    }
    totals.start = bench_now();
    small_exchange(&small, count, &totals);
    report(&totals);
    if (hold)
        bench_pause(NULL);
    free(small.visitors);
    close(small.epoll);
}

int main(int argc, char **argv)
{
    int hold = argc > 1 && strcmp(argv[argc - 1], "hold") == 0;

    argc -= hold;
    if (argc == 7 && strcmp(argv[1], "down") == 0)
        run_bulk(argv, 0, hold);
    else if (argc == 8 && strcmp(argv[1], "up") == 0)
        run_bulk(argv, 1, hold);
    else if (argc == 7 && strcmp(argv[1], "small") == 0)
        run_small(argv, hold);
    else
        bench_die(
            "usage: load down PORT HOST PATH MS LIMIT | "
            "up PORT HOST PATH SIZE MS LIMIT | small PORT HOST PATH COUNT CONNECTIONS [hold]");
    return 0;
}
