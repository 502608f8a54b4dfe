/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_CONDITION_H
#define TNL_FILES_CONDITION_H

#include <stdbool.h>
#include <stdint.h>

#include "http/http.h"

/* What tells one state of a file from another. A listing has neither. */
typedef struct tnl_files_state {
    char etag[48]; /* strong, with its quotes; "" when there is none */
    bool dated;
    int64_t modified; /* seconds */
} tnl_files_state;

/* The state of a file with this inode, size and time of its last change. */
tnl_files_state tnl_files_state_of(uint64_t inode, uint64_t size, int64_t seconds,
                                   long nanoseconds);

/*
 * The preconditions of a GET or HEAD for something that exists, in the order of RFC 9110 section
 * 13.2.2: 0 (they hold, or there are none), 304 or 412.
 */
int tnl_files_precondition(const tnl_http_head *h, const tnl_files_state *s, int64_t now);

/* Whether the request's Range counts: there is no If-Range, or it names the present state. */
bool tnl_files_if_range(const tnl_http_head *h, const tnl_files_state *s, int64_t now);

/* The one field of that name; NULL when there is none, or more than one. */
const tnl_http_field *tnl_files_single(const tnl_http_head *h, const char *name);

#endif
