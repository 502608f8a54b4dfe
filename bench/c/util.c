/* SPDX-License-Identifier: Apache-2.0 */
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

double bench_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

_Noreturn void bench_die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

uint64_t bench_number(const char *text, uint64_t min, uint64_t max, const char *what)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max)
        bench_die("%s: '%s' is not a number between %llu and %llu", what, text,
                  (unsigned long long)min, (unsigned long long)max);
    return value;
}

size_t bench_head_length(const char *data, size_t len)
{
    const char *end = memmem(data, len, "\r\n\r\n", 4);

    return end == NULL ? 0 : (size_t)(end - data) + 4;
}

int64_t bench_content_length(const char *head, size_t len)
{
    static const char name[] = "content-length:";
    const char *end = head + len;
    const char *line = head;

    while (line < end) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        int64_t value = 0;
        const char *p;

        if (eol == NULL)
            break;
        if ((size_t)(eol - line) <= sizeof(name) - 1 ||
            strncasecmp(line, name, sizeof(name) - 1) != 0) {
            line = eol + 1;
            continue;
        }
        p = line + sizeof(name) - 1;
        while (*p == ' ')
            p++;
        if (*p < '0' || *p > '9')
            return -1;
        while (*p >= '0' && *p <= '9' && value < INT64_MAX / 16)
            value = value * 10 + (*p++ - '0');
        return *p == '\r' ? value : -1;
    }
    return -1;
}

struct sockaddr_in bench_place(const char *text)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    const char *colon = strrchr(text, ':');
    char host[64] = "127.0.0.1";

    if (colon != NULL)
        snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
        bench_die("'%s' is no IPv4 address", host);
    addr.sin_port = htons(
        (uint16_t)bench_number(colon != NULL ? colon + 1 : text, 0, 65535, "PORT"));
    return addr;
}

int bench_dial(const char *place, unsigned timeout)
{
    struct sockaddr_in addr = bench_place(place);
    struct timeval tv = {.tv_sec = (time_t)timeout};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        bench_die("connecting to %s: %s", place, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (timeout > 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    }
    return fd;
}

void bench_send_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            bench_die("sending: %s", strerror(errno));
        at += n;
        len -= (size_t)n;
    }
}

size_t bench_receive(int fd, void *buf, size_t size)
{
    ssize_t n;

    do
        n = recv(fd, buf, size, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        bench_die("receiving: %s", strerror(errno));
    if (n == 0)
        bench_die("the connection was closed in the middle of an answer");
    return (size_t)n;
}

char *bench_bytes(size_t size)
{
    char *out = malloc(size);
    uint64_t x = 88172645463325252u;

    if (out == NULL)
        bench_die("out of memory");
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out[i] = (char)(x >> 32);
    }
    return out;
}

void bench_pause(const char *point)
{
    int c;

    if (point != NULL)
        puts(point);
    fflush(stdout);
    do
        c = getchar();
    while (c != '\n' && c != EOF);
}
