/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_RANGE_H
#define TNL_FILES_RANGE_H

#include <stddef.h>
#include <stdint.h>

#include "http/http.h"

enum { TNL_FILES_RANGES = 16 };

typedef struct tnl_files_range {
    uint64_t first;
    uint64_t length; /* never 0 */
} tnl_files_range;

/*
 * The parts that the value of a Range field (RFC 9110 section 14.1.2) asks for, of a file of so
 * many bytes: how many, in the order asked for, those that overlap or touch made one. 0: the field
 * does not count (another unit, malformed, more than TNL_FILES_RANGES parts, nothing of an empty
 * file). -1: nothing of what it asks for is there (416).
 */
int tnl_files_ranges(tnl_http_span value, uint64_t size, tnl_files_range out[TNL_FILES_RANGES]);

#endif
