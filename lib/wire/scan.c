/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/scan.h"

/* The formats 0xc0 to 0xdf: how many bytes of a length or count follow the first byte, and how many
 * further ones. */
typedef struct format {
    uint8_t kind;
    uint8_t length_size;
    uint8_t extra;
    bool reserved;
} format;

#define OTHER(length_size, extra)                                                                  \
    {                                                                                              \
        TNL_ITEM_OTHER, (length_size), (extra), false                                              \
    }
static const format formats[32] = {
    OTHER(0, 0),                   /* c0 nil */
    {TNL_ITEM_OTHER, 0, 0, true},  /* c1 */
    OTHER(0, 0),                   /* c2 false */
    OTHER(0, 0),                   /* c3 true */
    OTHER(1, 0),                   /* c4 bin */
    OTHER(2, 0),                   /* c5 */
    OTHER(4, 0),                   /* c6 */
    OTHER(1, 1),                   /* c7 ext: its type comes between length and body */
    OTHER(2, 1),                   /* c8 */
    OTHER(4, 1),                   /* c9 */
    OTHER(0, 4),                   /* ca float */
    OTHER(0, 8),                   /* cb */
    OTHER(0, 1),                   /* cc uint */
    OTHER(0, 2),                   /* cd */
    OTHER(0, 4),                   /* ce */
    OTHER(0, 8),                   /* cf */
    OTHER(0, 1),                   /* d0 int */
    OTHER(0, 2),                   /* d1 */
    OTHER(0, 4),                   /* d2 */
    OTHER(0, 8),                   /* d3 */
    OTHER(0, 2),                   /* d4 fixext, with its type */
    OTHER(0, 3),                   /* d5 */
    OTHER(0, 5),                   /* d6 */
    OTHER(0, 9),                   /* d7 */
    OTHER(0, 17),                  /* d8 */
    {TNL_ITEM_STR, 1, 0, false},   /* d9 */
    {TNL_ITEM_STR, 2, 0, false},   /* da */
    {TNL_ITEM_STR, 4, 0, false},   /* db */
    {TNL_ITEM_ARRAY, 2, 0, false}, /* dc */
    {TNL_ITEM_ARRAY, 4, 0, false}, /* dd */
    {TNL_ITEM_MAP, 2, 0, false},   /* de */
    {TNL_ITEM_MAP, 4, 0, false},   /* df */
};

/* The head of an item: its kind and its length or count. */
static bool read_head(tnl_reader *r, tnl_item *out, uint64_t *length)
{
    uint8_t first = (uint8_t)tnl_read_uint(r, 1);
    *length = 0;
    *out = (tnl_item){.kind = TNL_ITEM_OTHER};
    if (r->failed)
        return false;
    if (first < 0x80 || first >= 0xe0)
        return true;
    if (first < 0xc0) {
        static const uint8_t kinds[] = {TNL_ITEM_MAP, TNL_ITEM_ARRAY, TNL_ITEM_STR, TNL_ITEM_STR};
        out->kind = kinds[(first - 0x80) >> 4];
        *length = out->kind == TNL_ITEM_STR ? first & 0x1f : first & 0x0f;
        return true;
    }
    const format *f = &formats[first - 0xc0];
    if (f->reserved)
        return false;
    out->kind = f->kind;
    *length = f->extra;
    if (f->length_size)
        *length += tnl_read_uint(r, f->length_size);
    return !r->failed;
}

bool tnl_item_read(tnl_reader *r, tnl_item *out)
{
    uint64_t length;
    if (!read_head(r, out, &length))
        return false;
    if (out->kind == TNL_ITEM_ARRAY || out->kind == TNL_ITEM_MAP) {
        out->count = (size_t)length;
        return length <= TNL_SCAN_ITEMS;
    }
    if (length > r->left)
        return false;
    out->len = (size_t)length;
    out->body = tnl_read_bytes(r, out->len);
    return true;
}

bool tnl_item_skip(tnl_reader *r, unsigned depth)
{
    tnl_item item;
    if (!tnl_item_read(r, &item))
        return false;
    if (item.kind != TNL_ITEM_ARRAY && item.kind != TNL_ITEM_MAP)
        return true;
    if (depth == 0)
        return false;
    size_t count = item.kind == TNL_ITEM_MAP ? 2 * item.count : item.count;
    for (size_t i = 0; i < count; i++)
        if (!tnl_item_skip(r, depth - 1))
            return false;
    return true;
}
