/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe - how long small requests take, while something else happens.
 *
 *   probe PORT HOST PATH CONNECTIONS PAUSE_US
 *
 * Over each of CONNECTIONS kept-alive connections it requests PATH, reads the answer, waits for
 * PAUSE_US, and again. For every line of the input it prints what was measured since the one before
 * (a request counts when its answer is there, or at the line as far as it got), one line of JSON:
 *
 *   {"count": requests, "p50_ms": ..., "p99_ms": ..., "max_ms": ..., "seconds": ...}
 *
 * and it ends at the end of the input. Any failure ends it with a message.
 */
#include "util.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNS_MAX   64
#define SAMPLES_MAX 4000000
#define REQUEST_MAX 1024

struct asker {
    int fd;
    int asking;
    double since; /* of the request, or when the next one is due */
    size_t have;
    char buf[BENCH_HEAD_MAX];
};

struct probe {
    struct asker *askers;
    size_t count;
    double pause;
    char request[REQUEST_MAX];
    float *samples; /* seconds */
    size_t sample_count;
    double start;
};

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void add_sample(struct probe *probe, double seconds)
{
    if (probe->sample_count == SAMPLES_MAX)
        bench_die("too many requests without a line on the input");
    probe->samples[probe->sample_count++] = (float)seconds;
}

static void report(struct probe *probe)
{
    double now = bench_now();
    size_t n;

    /* One that hangs is as long as it has been, or a stall would go unseen. */
    for (size_t i = 0; i < probe->count; i++) {
        if (probe->askers[i].asking && now - probe->askers[i].since > 0.1)
            add_sample(probe, now - probe->askers[i].since);
    }
    n = probe->sample_count;
    qsort(probe->samples, n, sizeof(*probe->samples), by_size);
    printf("{\"count\": %zu, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, "
           "\"seconds\": %.4f}\n",
           n, n ? (double)probe->samples[n / 2] * 1e3 : 0.0,
           n ? (double)probe->samples[n * 99 / 100] * 1e3 : 0.0,
           n ? (double)probe->samples[n - 1] * 1e3 : 0.0, now - probe->start);
    fflush(stdout);
    probe->sample_count = 0;
    probe->start = now;
}

static void ask(struct probe *probe, struct asker *asker)
{
    asker->since = bench_now();
    asker->asking = 1;
    bench_send_all(asker->fd, probe->request, strlen(probe->request));
}

static void hear(struct probe *probe, struct asker *asker)
{
    size_t head;
    int64_t length;

    if (asker->have == sizeof(asker->buf))
        bench_die("an answer is too long");
    asker->have += bench_receive(asker->fd, asker->buf + asker->have,
                                 sizeof(asker->buf) - asker->have);
    head = bench_head_length(asker->buf, asker->have);
    if (head == 0)
        return;
    length = bench_content_length(asker->buf, head);
    if (strncmp(asker->buf, "HTTP/1.1 200 ", 13) != 0 || length < 0)
        bench_die("unexpected answer: %.*s", (int)strcspn(asker->buf, "\r\n"), asker->buf);
    if (asker->have < head + (size_t)length)
        return;
    add_sample(probe, bench_now() - asker->since);
    asker->have = 0;
    asker->asking = 0;
    asker->since = bench_now() + probe->pause;
}

/* Milliseconds until the next request is due; those that are due are sent. */
static double ask_due(struct probe *probe)
{
    double now = bench_now();
    double left = 1;

    for (size_t i = 0; i < probe->count; i++) {
        struct asker *asker = &probe->askers[i];

        if (asker->asking)
            continue;
        if (asker->since <= now)
            ask(probe, asker);
        else if (asker->since - now < left)
            left = asker->since - now;
    }
    return left;
}

static void run(struct probe *probe)
{
    struct pollfd fds[CONNS_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    char line[64];

    for (size_t i = 0; i < probe->count; i++)
        fds[i + 1] = (struct pollfd){.fd = probe->askers[i].fd, .events = POLLIN};
    probe->start = bench_now();
    for (;;) {
        double left = ask_due(probe);
        struct timespec wait = {.tv_nsec = (long)(left * 0.999e9)};

        if (ppoll(fds, probe->count + 1, &wait, NULL) < 0 && errno != EINTR)
            bench_die("poll: %s", strerror(errno));
        for (size_t i = 0; i < probe->count; i++) {
            if (fds[i + 1].revents != 0)
                hear(probe, &probe->askers[i]);
        }
        if (fds[0].revents != 0) {
            if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
                return;
            report(probe);
        }
    }
}

int main(int argc, char **argv)
{
    struct probe probe = {0};

    if (argc != 6)
        bench_die("usage: probe PORT HOST PATH CONNECTIONS PAUSE_US");
    probe.count = (size_t)bench_number(argv[4], 1, CONNS_MAX, "CONNECTIONS");
    probe.pause = (double)bench_number(argv[5], 0, 900000, "PAUSE_US") / 1e6;
    if (snprintf(probe.request, sizeof(probe.request), "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
                 argv[3], argv[2]) >= (int)sizeof(probe.request))
        bench_die("HOST and PATH are too long");
    probe.askers = calloc(probe.count, sizeof(*probe.askers));
    probe.samples = malloc(SAMPLES_MAX * sizeof(*probe.samples));
    if (probe.askers == NULL || probe.samples == NULL)
        bench_die("out of memory");
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    for (size_t i = 0; i < probe.count; i++)
        probe.askers[i].fd = bench_dial(argv[1], 0);
    run(&probe);
    return 0;
}
