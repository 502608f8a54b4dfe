/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/text.h"

#include <stdint.h>
#include <string.h>

/* The length of the allowed character at p[0..n), n at least 1; 0 when there is none. */
static size_t character(const uint8_t *p, size_t n)
{
    uint8_t first = p[0];
    if (first < 0x80)
        return first >= 0x20 && first != 0x7f;
    size_t len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || len > n)
        return 0;
    uint32_t code = first & (0x7fU >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fU);
    }
    /* C1 controls, then overlong forms, surrogates, and what is beyond Unicode. */
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    if (code < least[len] || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff)
        return 0;
    return len;
}

bool tnl_text_valid(const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0, len; i < n; i += len) {
        len = character(bytes + i, n - i);
        if (len == 0)
            return false;
    }
    return true;
}

size_t tnl_text_clean(char *out, size_t cap, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        size_t len = character(bytes + i, n - i);
        size_t need = len ? len : 1;
        if (need >= cap - done)
            break;
        if (len)
            memcpy(out + done, bytes + i, len);
        else
            out[done] = '?';
        done += need;
        i += need;
    }
    out[done] = '\0';
    return done;
}
