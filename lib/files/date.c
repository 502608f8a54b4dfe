/* SPDX-License-Identifier: Apache-2.0 */
#include "files/date.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

static const int64_t end_of_years = 253402300800; /* 10000-01-01 */

static bool split(int64_t t, struct tm *tm)
{
    time_t seconds = (time_t)t;
    return t >= 0 && t < end_of_years && gmtime_r(&seconds, tm);
}

bool tnl_files_date(char out[TNL_FILES_DATE], int64_t t)
{
    struct tm tm;
    out[0] = '\0';
    if (!split(t, &tm))
        return false;
    snprintf(out, TNL_FILES_DATE, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[tm.tm_wday % 7],
             (unsigned)tm.tm_mday % 100, months[tm.tm_mon % 12], (unsigned)(tm.tm_year + 1900),
             (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
    return true;
}

bool tnl_files_date_plain(char out[TNL_FILES_DATE], int64_t t)
{
    struct tm tm;
    out[0] = '\0';
    if (!split(t, &tm))
        return false;
    snprintf(out, TNL_FILES_DATE, "%04u-%02u-%02u %02u:%02u", (unsigned)(tm.tm_year + 1900),
             (unsigned)tm.tm_mon + 1, (unsigned)tm.tm_mday, (unsigned)tm.tm_hour,
             (unsigned)tm.tm_min);
    return true;
}

/* What is left of a date; after the first thing that is not as expected `bad`. */
typedef struct reader {
    tnl_http_span left;
    bool bad;
} reader;

static void skip(reader *r, const char *text)
{
    size_t n = strlen(text);
    if (r->left.n < n || memcmp(r->left.p, text, n) != 0) {
        r->bad = true;
        return;
    }
    r->left.p += n;
    r->left.n -= n;
}

static int number(reader *r, size_t digits)
{
    int value = 0;
    if (r->left.n < digits)
        r->bad = true;
    for (size_t i = 0; i < digits && !r->bad; i++) {
        char c = r->left.p[i];
        r->bad = c < '0' || c > '9';
        value = value * 10 + (c - '0');
    }
    if (r->bad)
        return 0;
    r->left.p += digits;
    r->left.n -= digits;
    return value;
}

static int month(reader *r)
{
    for (int i = 0; i < 12 && r->left.n >= 3; i++) {
        if (memcmp(r->left.p, months[i], 3) == 0) {
            skip(r, months[i]);
            return i;
        }
    }
    r->bad = true;
    return 0;
}

static void clock_time(reader *r, struct tm *tm)
{
    tm->tm_hour = number(r, 2);
    skip(r, ":");
    tm->tm_min = number(r, 2);
    skip(r, ":");
    tm->tm_sec = number(r, 2);
}

/* The weekday, long or short, which says nothing that is not in the rest. */
static size_t weekday(reader *r)
{
    size_t n = 0;
    while (n < r->left.n && r->left.p[n] >= 'A' && r->left.p[n] <= 'z')
        n++;
    r->bad = r->bad || n < 3;
    r->left.p += n;
    r->left.n -= n;
    return n;
}

/* More than 50 years ahead is meant to be the century before. */
static int full_year(int two, int64_t now)
{
    struct tm tm = {.tm_year = 100};
    (void)split(now, &tm);
    int year = (tm.tm_year + 1900) / 100 * 100 + two;
    return year > tm.tm_year + 1900 + 50 ? year - 100 : year;
}

static void read_all(reader *r, struct tm *tm, int64_t now)
{
    bool is_long = weekday(r) > 3;
    bool comma = r->left.n && r->left.p[0] == ',';
    const char *between = is_long ? "-" : " ";

    skip(r, comma ? ", " : " ");
    if (!comma) {
        tm->tm_mon = month(r);
        skip(r, " ");
        bool padded = r->left.n && r->left.p[0] == ' ';
        if (padded)
            skip(r, " ");
        tm->tm_mday = number(r, padded ? 1 : 2);
        skip(r, " ");
        clock_time(r, tm);
        skip(r, " ");
        tm->tm_year = number(r, 4) - 1900;
        return;
    }
    tm->tm_mday = number(r, 2);
    skip(r, between);
    tm->tm_mon = month(r);
    skip(r, between);
    tm->tm_year = (is_long ? full_year(number(r, 2), now) : number(r, 4)) - 1900;
    skip(r, " ");
    clock_time(r, tm);
    skip(r, " GMT");
}

bool tnl_files_date_parse(tnl_http_span s, int64_t now, int64_t *t)
{
    reader r = {.left = s};
    struct tm tm = {0};

    read_all(&r, &tm, now);
    if (r.bad || r.left.n || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
        return false;
    struct tm given = tm;
    *t = (int64_t)timegm(&tm);
    /* The 31st of a shorter month would become another day. */
    return given.tm_sec == 60 || (tm.tm_mday == given.tm_mday && tm.tm_mon == given.tm_mon);
}
