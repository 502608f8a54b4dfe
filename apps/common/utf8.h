/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_UTF8_H
#define APPS_COMMON_UTF8_H

#include <stddef.h>

/* How many of n bytes the character takes that begins at p (RFC 3629: shortest form, no
 * surrogates); 0: none does. */
size_t utf8_length(const char *p, size_t n);

#endif
