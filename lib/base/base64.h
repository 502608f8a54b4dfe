/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_BASE64_H
#define TNL_BASE_BASE64_H

#include <stddef.h>

/* Bytes that base64 of n bytes takes, with the NUL. */
#define TNL_BASE64_SIZE(n) (((n) + 2) / 3 * 4 + 1)

/* Encodes n bytes with padding (RFC 4648 section 4) into out, TNL_BASE64_SIZE(n) bytes. */
void tnl_base64(char *out, const void *p, size_t n);

#endif
