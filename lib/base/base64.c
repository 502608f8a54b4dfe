/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base64.h"

#include <stdint.h>

void tnl_base64(char *out, const void *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = p;
    for (; n; in += 3, out += 4) {
        size_t left = n < 3 ? n : 3;
        uint32_t group = (uint32_t)in[0] << 16 | (left > 1 ? (uint32_t)in[1] << 8 : 0) |
                         (left > 2 ? in[2] : 0U);
        out[0] = digits[group >> 18];
        out[1] = digits[group >> 12 & 63];
        out[2] = left > 1 ? digits[group >> 6 & 63] : '=';
        out[3] = left > 2 ? digits[group & 63] : '=';
        n -= left;
    }
    *out = '\0';
}
