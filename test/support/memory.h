/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_MEMORY_H
#define TEST_SUPPORT_MEMORY_H

#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"

/*
 * Definitions of base/mem.h that count and fail; they take the place of those in the library. For
 * inclusion into one source of a test program.
 */
static struct {
    size_t live;         /* blocks */
    size_t bytes;        /* of them */
    size_t peak;         /* most bytes since it was last set */
    size_t count;        /* allocations since it was last set */
    size_t fail_at;      /* the allocation of that count fails; 0: none */
    bool (*fails)(void); /* or a rule for all of them; NULL: none */
} memory;

static bool memory_fails(void)
{
    memory.count++;
    return memory.count == memory.fail_at || (memory.fails && memory.fails());
}

static void *memory_note(void *p)
{
    if (p) {
        memory.live++;
        memory.bytes += malloc_usable_size(p);
        if (memory.peak < memory.bytes)
            memory.peak = memory.bytes;
    }
    return p;
}

void *tnl_malloc(size_t size)
{
    return memory_fails() ? NULL : memory_note(malloc(size ? size : 1));
}

void *tnl_calloc(size_t count, size_t size)
{
    return memory_fails() ? NULL : memory_note(calloc(count ? count : 1, size ? size : 1));
}

void tnl_free(void *p)
{
    if (p) {
        memory.live--;
        memory.bytes -= malloc_usable_size(p);
    }
    free(p);
}

void *tnl_realloc(void *p, size_t size)
{
    if (memory_fails())
        return NULL;
    size_t before = p ? malloc_usable_size(p) : 0;
    void *q = realloc(p, size ? size : 1);
    if (!q)
        return NULL;
    memory.live -= p != NULL;
    memory.bytes -= before;
    return memory_note(q);
}

#endif
