/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_FOLDER_H
#define TNL_FILES_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A folder held open, and lookups that cannot leave it. */
typedef struct tnl_folder {
    int fd; /* O_PATH */
    char *path;
    dev_t device;
    ino_t inode;
    bool walk; /* there is no openat2: name by name, and no symbolic links */
} tnl_folder;

/* 0, or TUNNEL_E_NOT_FOUND, ACCESS, INVALID (not a folder), NOMEM, IO with a line in detail. */
int tnl_folder_open(tnl_folder *f, const char *path, char *detail, size_t size);
void tnl_folder_close(tnl_folder *f);

/* When another folder is at the path by now, takes that one; else changes nothing. */
void tnl_folder_refresh(tnl_folder *f);

/*
 * Opens what is at a relative path without "." and ".." ("": the folder itself) with these flags of
 * open(2); CLOEXEC and NONBLOCK are added. A descriptor, or -1 with errno: EXDEV or ELOOP for
 * symbolic links that lead out of the folder or are not followed.
 */
int tnl_folder_at(const tnl_folder *f, const char *path, int flags);

#endif
