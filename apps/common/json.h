/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_JSON_H
#define APPS_COMMON_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Writes one JSON object (RFC 8259) on one line: json_begin(), members, json_end(). Texts may hold
 * any bytes: what is not UTF-8 becomes U+FFFD, byte by byte.
 */
typedef struct json_line {
    FILE *out;
    bool more;
} json_line;

/* Begins with the time (UTC) and what it is about. */
void json_begin(json_line *j, FILE *out, const char *event);
void json_text(json_line *j, const char *key, const char *value);
/* Leaves out what is NULL or "". */
void json_text_if(json_line *j, const char *key, const char *value);
void json_number(json_line *j, const char *key, uint64_t value);
/* Microseconds, as a number of milliseconds. */
void json_ms(json_line *j, const char *key, uint64_t us);
/* Ends the line and flushes. */
void json_end(json_line *j);

#endif
