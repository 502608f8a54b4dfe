/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/schema.h"

#include <msgpack.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "tunnel/error.h"
#include "wire/scan.h"
#include "wire/text.h"

/* --- values ----------------------------------------------------------------------------------- */

/* A member's value, whatever its kind: numbers and booleans in `number`, texts and byte strings in
 * `bytes`. */
typedef struct value {
    uint64_t number;
    tnl_str bytes;
} value;

static value value_of(const tnl_field *f, const uint8_t *message)
{
    const uint8_t *p = message + f->offset;
    value v = {0};
    uint32_t u32;
    bool flag;
    switch (f->kind) {
    case TNL_FIELD_U32:
        memcpy(&u32, p, sizeof(u32));
        v.number = u32;
        break;
    case TNL_FIELD_U64:
        memcpy(&v.number, p, sizeof(v.number));
        break;
    case TNL_FIELD_BOOL:
        memcpy(&flag, p, sizeof(flag));
        v.number = flag;
        break;
    case TNL_FIELD_BIN:
        v.bytes = (tnl_str){(const char *)p, f->size};
        break;
    case TNL_FIELD_STR:
        memcpy(&v.bytes, p, sizeof(v.bytes));
        break;
    case TNL_FIELD_MAP:
        break;
    }
    return v;
}

static void set_value(const tnl_field *f, uint8_t *message, const value *v)
{
    uint8_t *p = message + f->offset;
    uint32_t u32 = (uint32_t)v->number;
    bool flag = v->number != 0;
    switch (f->kind) {
    case TNL_FIELD_U32:
        memcpy(p, &u32, sizeof(u32));
        break;
    case TNL_FIELD_U64:
        memcpy(p, &v->number, sizeof(v->number));
        break;
    case TNL_FIELD_BOOL:
        memcpy(p, &flag, sizeof(flag));
        break;
    case TNL_FIELD_BIN:
        memcpy(p, v->bytes.p, f->size);
        break;
    case TNL_FIELD_STR:
        /* Empty reads the same whether it was there or not. */
        if (v->bytes.n)
            memcpy(p, &v->bytes, sizeof(v->bytes));
        break;
    case TNL_FIELD_MAP:
        break;
    }
}

static bool allowed(const tnl_field *f, const value *v)
{
    switch (f->kind) {
    case TNL_FIELD_U32:
    case TNL_FIELD_U64:
        return v->number >= f->min && v->number <= f->max;
    case TNL_FIELD_BIN:
        return v->bytes.n == f->size;
    case TNL_FIELD_STR:
        return v->bytes.n >= f->min && v->bytes.n <= f->max &&
               tnl_text_valid(v->bytes.p, v->bytes.n);
    default:
        return true;
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

static int write_piece(void *writer, const char *p, size_t n)
{
    tnl_writer *w = writer;
    tnl_write_bytes(w, p, n);
    return w->failed ? -1 : 0;
}

static bool left_out(const tnl_field *f, const uint8_t *message)
{
    if (f->required || f->kind == TNL_FIELD_MAP || f->kind == TNL_FIELD_BIN)
        return false;
    value v = value_of(f, message);
    return v.number == 0 && v.bytes.n == 0;
}

static void write_text(msgpack_packer *pk, const char *p, size_t n)
{
    msgpack_pack_str(pk, n);
    if (n)
        msgpack_pack_str_body(pk, p, n);
}

static void write_value(msgpack_packer *pk, const tnl_field *f, const value *v)
{
    switch (f->kind) {
    case TNL_FIELD_U32:
    case TNL_FIELD_U64:
        msgpack_pack_uint64(pk, v->number);
        break;
    case TNL_FIELD_BOOL:
        if (v->number)
            msgpack_pack_true(pk);
        else
            msgpack_pack_false(pk);
        break;
    case TNL_FIELD_BIN:
        msgpack_pack_bin(pk, v->bytes.n);
        msgpack_pack_bin_body(pk, v->bytes.p, v->bytes.n);
        break;
    case TNL_FIELD_STR:
        write_text(pk, v->bytes.p, v->bytes.n);
        break;
    case TNL_FIELD_MAP:
        break;
    }
}

/* What does not fit is noted by the writer and looked at once, at the end. */
static bool write_map(msgpack_packer *pk, const tnl_schema *s, const uint8_t *message)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++)
        count += !left_out(&s->fields[i], message);
    msgpack_pack_map(pk, count);
    for (size_t i = 0; i < s->count; i++) {
        const tnl_field *f = &s->fields[i];
        if (left_out(f, message))
            continue;
        write_text(pk, f->key, strlen(f->key));
        if (f->kind == TNL_FIELD_MAP) {
            if (!write_map(pk, f->map, message + f->offset))
                return false;
            continue;
        }
        value v = value_of(f, message);
        if (!allowed(f, &v))
            return false;
        write_value(pk, f, &v);
    }
    return true;
}

size_t tnl_schema_encode(const tnl_schema *s, const void *message, uint8_t *out, size_t cap)
{
    tnl_writer w = tnl_writer_of(out, cap);
    msgpack_packer pk;
    msgpack_packer_init(&pk, &w, write_piece);
    if (!write_map(&pk, s, message) || w.failed)
        return 0;
    return cap - w.left;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Unpacks one scalar. Nothing is taken from the zone for that, and texts point into p[0..n);
 * without one, msgpack_unpack_next() would allocate 8 KiB for each text. */
static bool unpack(const uint8_t *p, size_t n, msgpack_object *out)
{
    msgpack_zone unused;
    memset(&unused, 0, sizeof(unused));
    size_t used = 0;
    return msgpack_unpack((const char *)p, n, &used, &unused, out) == MSGPACK_UNPACK_SUCCESS &&
           used == n;
}

static bool read_scalar(const tnl_field *f, uint8_t *message, const uint8_t *p, size_t n)
{
    static const msgpack_object_type types[] = {
        [TNL_FIELD_U32] = MSGPACK_OBJECT_POSITIVE_INTEGER,
        [TNL_FIELD_U64] = MSGPACK_OBJECT_POSITIVE_INTEGER,
        [TNL_FIELD_BOOL] = MSGPACK_OBJECT_BOOLEAN,
        [TNL_FIELD_BIN] = MSGPACK_OBJECT_BIN,
        [TNL_FIELD_STR] = MSGPACK_OBJECT_STR,
    };
    msgpack_object o;
    if (!unpack(p, n, &o) || o.type != types[f->kind])
        return false;
    value v = {0};
    if (o.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        v.number = o.via.u64;
    else if (o.type == MSGPACK_OBJECT_BOOLEAN)
        v.number = o.via.boolean;
    else if (o.type == MSGPACK_OBJECT_BIN)
        v.bytes = (tnl_str){o.via.bin.ptr, o.via.bin.size};
    else
        v.bytes = (tnl_str){o.via.str.ptr, o.via.str.size};
    if (!allowed(f, &v))
        return false;
    set_value(f, message, &v);
    return true;
}

static bool read_map(const tnl_schema *s, uint8_t *message, const uint8_t *p, size_t n);

static bool read_value(const tnl_field *f, uint8_t *message, const uint8_t *p, size_t n)
{
    if (f->kind == TNL_FIELD_MAP)
        return read_map(f->map, message + f->offset, p, n);
    tnl_reader r = tnl_reader_of(p, n);
    tnl_item item;
    if (!tnl_item_read(&r, &item) || item.kind == TNL_ITEM_ARRAY || item.kind == TNL_ITEM_MAP)
        return false;
    return read_scalar(f, message, p, n);
}

/* A key that is a short text, and none of the `count` before it. */
static bool read_key(tnl_reader *r, tnl_str *keys, size_t count)
{
    tnl_item item;
    if (!tnl_item_read(r, &item) || item.kind != TNL_ITEM_STR || item.len > TNL_SCHEMA_MAX_KEY ||
        !tnl_text_valid(item.body, item.len))
        return false;
    for (size_t i = 0; i < count; i++)
        if (keys[i].n == item.len && memcmp(keys[i].p, item.body, item.len) == 0)
            return false;
    keys[count] = (tnl_str){(const char *)item.body, item.len};
    return true;
}

static bool read_pair(const tnl_schema *s, uint8_t *message, tnl_reader *r, tnl_str key,
                      uint32_t *seen)
{
    const uint8_t *p = r->p;
    if (!tnl_item_skip(r, TNL_SCAN_DEPTH))
        return false;
    for (size_t i = 0; i < s->count; i++) {
        if (!tnl_str_eq(key, s->fields[i].key))
            continue;
        *seen |= 1U << i;
        return read_value(&s->fields[i], message, p, (size_t)(r->p - p));
    }
    return true;
}

static bool read_map(const tnl_schema *s, uint8_t *message, const uint8_t *p, size_t n)
{
    tnl_reader r = tnl_reader_of(p, n);
    tnl_item map;
    if (!tnl_item_read(&r, &map) || map.kind != TNL_ITEM_MAP)
        return false;
    tnl_str keys[TNL_SCAN_ITEMS];
    uint32_t seen = 0;
    for (size_t i = 0; i < map.count; i++)
        if (!read_key(&r, keys, i) || !read_pair(s, message, &r, keys[i], &seen))
            return false;
    for (size_t i = 0; i < s->count; i++)
        if (s->fields[i].required && !(seen >> i & 1))
            return false;
    return true;
}

int tnl_schema_decode(const tnl_schema *s, void *message, const uint8_t *p, size_t n)
{
    memset(message, 0, s->size);
    tnl_reader r = tnl_reader_of(p, n);
    if (tnl_item_skip(&r, TNL_SCAN_DEPTH) && r.left == 0 && read_map(s, message, p, n))
        return 0;
    memset(message, 0, s->size);
    return TUNNEL_E_PROTOCOL;
}
