/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_SCAN_H
#define TNL_WIRE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/*
 * The scan of msgpack that comes before anything is unpacked: it proves that the items are whole,
 * nested at most TNL_SCAN_DEPTH deep, and that no container claims more than TNL_SCAN_ITEMS items
 * (pairs in a map). It allocates nothing and touches each byte at most once per level.
 */
enum {
    TNL_SCAN_DEPTH = 4, /* the outermost map is level 1 */
    TNL_SCAN_ITEMS = 64,
};

typedef enum tnl_item_kind {
    TNL_ITEM_STR,
    TNL_ITEM_ARRAY,
    TNL_ITEM_MAP,
    TNL_ITEM_OTHER, /* nil, booleans, numbers, byte strings, extensions */
} tnl_item_kind;

typedef struct tnl_item {
    tnl_item_kind kind;
    size_t count;        /* ARRAY: items; MAP: pairs */
    const uint8_t *body; /* STR, OTHER: what follows the head */
    size_t len;
} tnl_item;

/* Reads one item, of containers only the head. False: cut short, a reserved byte, or too many
 * items. */
bool tnl_item_read(tnl_reader *r, tnl_item *out);

/* Skips one item with all that is in it, containers at most `depth` deep. False as above, or nested
 * deeper. */
bool tnl_item_skip(tnl_reader *r, unsigned depth);

#endif
