/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_STR_H
#define TNL_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A borrowed piece of text (not NUL-terminated); {NULL, 0} is the empty one. */
typedef struct tnl_str {
    const char *p;
    size_t n;
} tnl_str;

static inline tnl_str tnl_str_of(const char *s)
{
    return (tnl_str){s, s ? strlen(s) : 0};
}

static inline bool tnl_str_eq(tnl_str s, const char *text)
{
    size_t n = strlen(text);
    return s.n == n && (n == 0 || memcmp(s.p, text, n) == 0);
}

#endif
