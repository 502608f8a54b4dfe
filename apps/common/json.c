/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/utf8.h"

static void put_string(FILE *out, const char *s)
{
    size_t n = strlen(s);
    fputc('"', out);
    while (n) {
        size_t used = utf8_length(s, n);
        unsigned char c = (unsigned char)*s;
        if (used == 0)
            fputs("\\ufffd", out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < ' ' || c == 127)
            fprintf(out, "\\u%04x", c);
        else
            fwrite(s, 1, used, out);
        s += used ? used : 1;
        n -= used ? used : 1;
    }
    fputc('"', out);
}

static void key_of(json_line *j, const char *key)
{
    fputs(j->more ? "," : "", j->out);
    j->more = true;
    put_string(j->out, key);
    fputc(':', j->out);
}

void json_begin(json_line *j, FILE *out, const char *event)
{
    char when[48];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + n, sizeof(when) - n, ".%03ldZ", now.tv_nsec / 1000000);
    *j = (json_line){.out = out};
    fputc('{', out);
    json_text(j, "time", when);
    json_text(j, "event", event);
}

void json_text(json_line *j, const char *key, const char *value)
{
    key_of(j, key);
    put_string(j->out, value);
}

void json_text_if(json_line *j, const char *key, const char *value)
{
    if (value && *value)
        json_text(j, key, value);
}

void json_number(json_line *j, const char *key, uint64_t value)
{
    key_of(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void json_ms(json_line *j, const char *key, uint64_t us)
{
    key_of(j, key);
    fprintf(j->out, "%" PRIu64 ".%03" PRIu64, us / 1000, us % 1000);
}

void json_end(json_line *j)
{
    fputs("}\n", j->out);
    fflush(j->out);
}
