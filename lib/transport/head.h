/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_HEAD_H
#define TNL_TRANSPORT_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/*
 * Just enough of HTTP heads for the WebSocket handshake. A head is the start line and the header
 * lines up to and including the empty line; lines end in CRLF.
 */

/* The length of the head at p; 0: it is not complete yet. */
size_t tnl_head_length(const char *p, size_t n);

/* The first line without its CRLF. */
tnl_str tnl_head_start(tnl_str head);

/* Sets *value to the header's value without surrounding blanks (the first one of that name); false:
 * there is none. */
bool tnl_head_find(tnl_str head, const char *name, tnl_str *value);

/* Whether the comma-separated list has the token, compared without case. */
bool tnl_head_has_token(tnl_str list, const char *token);

/* Whether the text is the word, compared without case. */
bool tnl_head_is(tnl_str text, const char *word);

/* Whether text can stand in a head: no control characters. */
bool tnl_head_clean(const char *text);

#endif
