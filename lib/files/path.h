/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_PATH_H
#define TNL_FILES_PATH_H

#include <stdbool.h>

#include "base/buf.h"
#include "http/http.h"

/* What a request target names: a path relative to the folder that is served. */
enum { TNL_FILES_PATH = 4096 };

typedef struct tnl_files_path {
    /* Percent-decoded, with a NUL: names with one '/' between them, none of which is empty, begins
     * with a dot (but a first ".well-known") or holds a NUL. "": the folder itself. */
    char text[TNL_FILES_PATH];
    size_t n;
    bool folder;         /* the target ends with a slash */
    tnl_http_span query; /* as it came, with its '?'; empty when there is none */
} tnl_files_path;

/*
 * Reads an origin-form target. 0, or the status to answer with: 400 (an encoding that is none, a
 * NUL), 404 (a name that is never served: hidden, "." or "..", with an encoded slash), 414.
 */
int tnl_files_path_parse(tnl_files_path *path, tnl_http_span target);

/* The last name of the path; "" for the folder itself. */
const char *tnl_files_path_last(const tnl_files_path *path);

/* Whether a name may be shown in a listing, and served below the first level. */
bool tnl_files_is_hidden(const char *name);

/* Appends the bytes as part of a URL's path, all percent-encoded but what is never special. 0 or
 * TUNNEL_E_LIMIT, NOMEM. */
int tnl_files_encode(tnl_buf *out, const char *p, size_t n);

#endif
