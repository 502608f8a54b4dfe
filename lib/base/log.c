/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

void tnl_log_write(const tnl_log *log, tnl_level level, const char *format, ...)
{
    char text[TNL_LOG_LINE];
    if (!log || !log->line || level < log->least)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log->line(log->user, level, text);
}

char *tnl_log_escape(char *out, size_t size, const char *p, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        bool plain = c >= ' ' && c <= '~' && c != '"' && c != '\\';
        if (used + (plain ? 1 : 4) >= size)
            break;
        if (plain)
            out[used++] = (char)c;
        else
            used += (size_t)snprintf(out + used, 5, "\\x%02x", c);
    }
    if (size)
        out[used] = '\0';
    return out;
}
