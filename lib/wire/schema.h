/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_SCHEMA_H
#define TNL_WIRE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Messages as tables: a row for each key of a msgpack map says which member of a struct it is, and
 * what it may be. The one encoder and the one decoder for all of them are driven by these rows.
 * Only this part of libtunnel uses msgpack-c; it gets single scalars that the scan has proven, and
 * with them it allocates nothing.
 */
typedef enum tnl_field_kind {
    TNL_FIELD_U32,
    TNL_FIELD_U64,
    TNL_FIELD_BOOL,
    TNL_FIELD_BIN, /* uint8_t[size]: a byte string of exactly that length */
    TNL_FIELD_STR, /* tnl_str: text, see wire/text.h */
    TNL_FIELD_MAP, /* a struct with a schema of its own */
} tnl_field_kind;

typedef struct tnl_field {
    const char *key;
    tnl_field_kind kind;
    bool required; /* must be there, and is always written; others are left out when 0, false or
                      empty */
    size_t offset; /* of the member, and its size */
    size_t size;
    uint64_t min; /* least and greatest value of a number, or length of a text */
    uint64_t max;
    const struct tnl_schema *map;
} tnl_field;

enum { TNL_SCHEMA_MAX_FIELDS = 16, TNL_SCHEMA_MAX_KEY = 64 };

typedef struct tnl_schema {
    const tnl_field *fields;
    size_t count; /* at most TNL_SCHEMA_MAX_FIELDS */
    size_t size;  /* of the struct */
} tnl_schema;

/* The length written to out[0..cap); 0 when it does not fit, or when a member is not what its row
 * allows. */
size_t tnl_schema_encode(const tnl_schema *s, const void *message, uint8_t *out, size_t cap);

/* Overwrites all of *message. 0 or TUNNEL_E_PROTOCOL; then *message is all zeros. Texts point into
 * p[0..n). */
int tnl_schema_decode(const tnl_schema *s, void *message, const uint8_t *p, size_t n);

#endif
