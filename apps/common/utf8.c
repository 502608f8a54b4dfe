/* SPDX-License-Identifier: Apache-2.0 */
#include "common/utf8.h"

size_t utf8_length(const char *p, size_t n)
{
    const unsigned char *b = (const unsigned char *)p;
    if (n == 0)
        return 0;
    if (b[0] < 0x80)
        return 1;
    size_t length = b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : 2;
    if (b[0] < 0xC2 || b[0] > 0xF4 || n < length)
        return 0;
    /* The second byte rules out longer forms than needed, surrogates and what is beyond U+10FFFF.
     */
    unsigned char low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    if (b[1] < low || b[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (b[i] < 0x80 || b[i] > 0xBF)
            return 0;
    return length;
}
