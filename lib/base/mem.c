/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdlib.h>

void *tnl_malloc(size_t size)
{
    return malloc(size ? size : 1);
}

void *tnl_calloc(size_t count, size_t size)
{
    return calloc(count ? count : 1, size ? size : 1);
}

void *tnl_realloc(void *p, size_t size)
{
    return realloc(p, size ? size : 1);
}

void tnl_free(void *p)
{
    free(p);
}
