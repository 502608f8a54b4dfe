/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_NOMEM_H
#define TEST_SUPPORT_NOMEM_H

#include <stddef.h>

/*
 * Stands in for base/mem.c in programs that call these: counts allocations, and makes chosen ones
 * fail. A program starts with none failing.
 */

/* Starts counting anew. The nth allocation from now on fails, once; with all, every one from the
 * nth on. 0: none. */
void test_nomem_fail(unsigned nth, int all);

/* Allocations tried since then. */
unsigned test_nomem_count(void);

/* Blocks not freed yet, of all there ever were. */
size_t test_nomem_live(void);

#endif
