/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_JSON_H
#define TNL_TRANSPORT_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/*
 * The string member `name` of the JSON object (RFC 8259) that text begins with, as one printable
 * line in out (cut to size; control characters and escaped ones beyond ASCII become blanks and
 * question marks). Only members of the object itself count, not those of objects within. false: no
 * such member, or not JSON up to it.
 */
bool tnl_json_member(tnl_str text, const char *name, char *out, size_t size);

#endif
