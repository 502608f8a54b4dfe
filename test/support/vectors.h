/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_VECTORS_H
#define TEST_SUPPORT_VECTORS_H

#include <stddef.h>
#include <stdint.h>

/* Reads the files of test/vectors/ (its README.md says what is in them). Any mistake in a file
 * fails the test. */
enum { VECTOR_MAX_PAIRS = 32 };

typedef struct vector {
    const char *name;
    size_t count;
    const char *keys[VECTOR_MAX_PAIRS];
    const char *values[VECTOR_MAX_PAIRS];
} vector;

/* Calls each() for the records of test/vectors/<file>; returns how many there were. A record lives
 * until each() returns. */
size_t vectors_each(const char *file, void (*each)(const vector *v));

/* The value of a key; NULL when it is not there. */
const char *vector_get(const vector *v, const char *key);

/* The value of a key that must be there: a decimal number, or hex bytes (to be freed with free();
 * exactly so many bytes are allocated, so that a sanitizer sees a read past the end). */
uint64_t vector_uint(const vector *v, const char *key);
uint8_t *vector_hex(const vector *v, const char *key, size_t *n);

/* A JSON string with \" and \\ as its only escapes, NUL-terminated, to be freed with free(). */
char *vector_text(const vector *v, const char *key, size_t *n);

#endif
