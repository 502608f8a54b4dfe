/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_LOG_H
#define TNL_BASE_LOG_H

#include <stddef.h>

/*
 * A log hangs off a client or a server: a callback and a least level. Text that came from the
 * network must go through tnl_log_escape().
 */
typedef enum tnl_level { TNL_LOG_DEBUG, TNL_LOG_INFO, TNL_LOG_WARN, TNL_LOG_ERROR } tnl_level;

typedef struct tnl_log {
    void (*line)(void *user, tnl_level level, const char *text); /* NULL: nowhere */
    void *user;
    tnl_level least;
} tnl_log;

enum { TNL_LOG_LINE = 1024 };

/* Formats and hands over one line (cut at TNL_LOG_LINE bytes, without a line feed). log may be
 * NULL. */
void tnl_log_write(const tnl_log *log, tnl_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Copies n bytes so that they can stand in a log line: control bytes, '"', '\\' and bytes above 126
 * become \xNN; cut to fit, always NUL-terminated. Returns out.
 */
char *tnl_log_escape(char *out, size_t size, const char *p, size_t n);

#endif
