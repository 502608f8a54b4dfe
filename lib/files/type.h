/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_TYPE_H
#define TNL_FILES_TYPE_H

/* The Content-Type of a file by its name's ending; application/octet-stream when that says nothing.
 * Static. Text is said to be UTF-8. */
const char *tnl_files_type(const char *name);

#endif
