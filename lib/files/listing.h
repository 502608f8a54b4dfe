/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_LISTING_H
#define TNL_FILES_LISTING_H

#include "base/buf.h"
#include "files/folder.h"
#include "files/path.h"

enum {
    TNL_LISTING_ENTRIES = 10000,          /* shown */
    TNL_LISTING_SEEN = 40000,             /* looked at, with those that are not shown */
    TNL_LISTING_BYTES = 4 * 1024 * 1024,  /* of the page */
    TNL_LISTING_NAMES = 1024 * 1024,      /* of all names */
    TNL_LISTING_TOTAL = 32 * 1024 * 1024, /* of all pages that wait to be sent */
};

/*
 * Appends the page that lists a folder: folders first, then files, both by name. fd is the folder,
 * open for reading, and is closed in any case. What is hidden, or neither a file nor a folder, or a
 * link that leads out, is left out. What is beyond the bounds too; the page then says so. 0, or
 * TUNNEL_E_NOMEM, LIMIT, IO.
 */
int tnl_files_list(tnl_buf *page, const tnl_folder *f, const tnl_files_path *path, int fd);

#endif
