/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_DATE_H
#define TNL_FILES_DATE_H

#include <stdbool.h>
#include <stdint.h>

#include "http/http.h"

/* Dates of HTTP (RFC 9110 section 5.6.7), whatever the locale. Times are seconds since 1970, UTC.
 */

enum { TNL_FILES_DATE = 30 };

/* "Sun, 06 Nov 1994 08:49:37 GMT"; false (and "") for what is not within the years 1970 to 9999. */
bool tnl_files_date(char out[TNL_FILES_DATE], int64_t t);

/* "1994-11-06 08:49", for people; false as above. */
bool tnl_files_date_plain(char out[TNL_FILES_DATE], int64_t t);

/* Reads a date in any of the three forms; now decides the century of one with two digits. */
bool tnl_files_date_parse(tnl_http_span s, int64_t now, int64_t *t);

#endif
