/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_MEM_H
#define TNL_BASE_MEM_H

#include <stddef.h>

/*
 * The only place libtunnel's own code allocates. Plain wrappers: a test program that wants to fail
 * the Nth allocation links its own definitions of these four functions in front of the archive. All
 * return NULL when memory is short; tnl_free(NULL) is a no-op.
 */
void *tnl_malloc(size_t size);
void *tnl_calloc(size_t count, size_t size);
void *tnl_realloc(void *p, size_t size);
void tnl_free(void *p);

/* Copies of a NUL-terminated string, and of n bytes with a NUL added. NULL when memory is short. */
char *tnl_strdup(const char *s);
char *tnl_strndup(const void *s, size_t n);

/* Overwrites n bytes in a way the compiler cannot remove: for secrets. */
void tnl_wipe(void *p, size_t n);

#endif
