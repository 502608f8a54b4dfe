/* SPDX-License-Identifier: Apache-2.0 */
#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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
