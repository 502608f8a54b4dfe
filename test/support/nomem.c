/* SPDX-License-Identifier: Apache-2.0 */
#include "support/nomem.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

static unsigned countdown;
static unsigned count;
static bool all_fail;
static size_t live;

void test_nomem_fail(unsigned nth, int all)
{
    countdown = nth;
    all_fail = all != 0;
    count = 0;
}

unsigned test_nomem_count(void)
{
    return count;
}

size_t test_nomem_live(void)
{
    return live;
}

static bool fails(void)
{
    count++;
    if (countdown == 0)
        return false;
    if (countdown > 1)
        countdown--;
    else if (all_fail)
        return true;
    else
        return countdown-- == 1;
    return false;
}

static void *made(void *p)
{
    live += p != NULL;
    return p;
}

void *tnl_malloc(size_t size)
{
    return fails() ? NULL : made(malloc(size ? size : 1));
}

void *tnl_calloc(size_t n, size_t size)
{
    return fails() ? NULL : made(calloc(n ? n : 1, size ? size : 1));
}

void *tnl_realloc(void *p, size_t size)
{
    if (fails())
        return NULL;
    void *q = realloc(p, size ? size : 1);
    live += q && !p;
    return q;
}

void tnl_free(void *p)
{
    live -= p != NULL;
    free(p);
}
