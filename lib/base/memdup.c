/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <string.h>

char *tnl_strdup(const char *s)
{
    return tnl_strndup(s, strlen(s));
}

char *tnl_strndup(const void *s, size_t n)
{
    char *copy = tnl_malloc(n + 1);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

void tnl_wipe(void *p, size_t n)
{
    explicit_bzero(p, n);
}
