/* SPDX-License-Identifier: Apache-2.0 */
#include "files/range.h"

#include <stdbool.h>
#include <string.h>

/* Digits at the beginning; a number too great for 64 bits is the greatest. How many digits. */
static size_t take_number(tnl_http_span *s, uint64_t *value)
{
    size_t n = 0;
    *value = 0;
    for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++) {
        uint64_t digit = (uint64_t)(s->p[n] - '0');
        *value = *value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *value * 10 + digit;
    }
    s->p += n;
    s->n -= n;
    return n;
}

/* One part: "a-b", "a-", "-n". False when it is malformed; of length 0 when nothing of it is there.
 */
static bool parse(tnl_http_span s, uint64_t size, tnl_files_range *r)
{
    uint64_t first, last;
    size_t before = take_number(&s, &first);
    if (!s.n || s.p[0] != '-')
        return false;
    s.p++;
    s.n--;
    size_t behind = take_number(&s, &last);
    if (s.n || (!before && !behind) || (before && behind && last < first))
        return false;
    *r = (tnl_files_range){0, 0};
    if (!before) {
        r->length = last < size ? last : size;
        r->first = size - r->length;
    } else if (first < size) {
        r->first = first;
        r->length = (behind && last < size ? last + 1 : size) - first;
    }
    return true;
}

static bool meet(const tnl_files_range *a, const tnl_files_range *b)
{
    return a->first <= b->first + b->length && b->first <= a->first + a->length;
}

/* Adds a part, after joining it with all that it meets: it comes where the first of them was. */
static size_t join(tnl_files_range *out, size_t n, tnl_files_range r)
{
    size_t at = n;
    for (size_t i = 0; i < n;) {
        if (!meet(&out[i], &r)) {
            i++;
            continue;
        }
        uint64_t end = r.first + r.length, other = out[i].first + out[i].length;
        r.first = r.first < out[i].first ? r.first : out[i].first;
        r.length = (end > other ? end : other) - r.first;
        at = i < at ? i : at;
        memmove(&out[i], &out[i + 1], (n - i - 1) * sizeof(*out));
        n--;
    }
    at = at < n ? at : n;
    memmove(&out[at + 1], &out[at], (n - at) * sizeof(*out));
    out[at] = r;
    return n + 1;
}

int tnl_files_ranges(tnl_http_span value, uint64_t size, tnl_files_range out[TNL_FILES_RANGES])
{
    static const char unit[] = "bytes=";
    tnl_http_span element;
    size_t n = 0, asked = 0;

    if (value.n < sizeof(unit) - 1 ||
        !tnl_http_is((tnl_http_span){value.p, sizeof(unit) - 1}, unit))
        return 0;
    value.p += sizeof(unit) - 1;
    value.n -= sizeof(unit) - 1;
    while (tnl_http_list_next(&value, &element)) {
        tnl_files_range r;
        if (!element.n)
            continue;
        if (++asked > TNL_FILES_RANGES || !parse(element, size, &r))
            return 0;
        /* The last bytes of an empty file are there, but cannot be written as a range. */
        if (!size && element.p[0] == '-')
            return 0;
        if (r.length)
            n = join(out, n, r);
    }
    return asked == 0 ? 0 : n ? (int)n : -1;
}
