/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_TEXT_H
#define TNL_WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Text of the protocol is UTF-8 (RFC 3629: no overlong forms, no surrogates) without control
 * characters (C0, DEL, C1), so that it can go to a log or a terminal. An empty text is valid.
 */
bool tnl_text_valid(const void *p, size_t n);

/*
 * Makes such a text, NUL-terminated, of any bytes: what is not allowed becomes '?', and what does
 * not fit into cap bytes with the NUL (cap at least 1) is cut between two characters. Returns its
 * length without the NUL.
 */
size_t tnl_text_clean(char *out, size_t cap, const void *p, size_t n);

#endif
