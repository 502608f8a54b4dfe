/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_FILE_H
#define APPS_CLIENT_FILE_H

#include "client/settings.h"
#include "common/document.h"
#include "common/mistakes.h"

/*
 * The file that a command uses when none is named, a new text: ./tunnel.yml (here only) if it is
 * there, else libtunnel/tunnel.yml in the user's XDG configuration folder if it is there. NULL:
 * neither.
 */
char *find_config_file(bool here);

/*
 * Reads a configuration file into settings; what flags and the environment have given stays.
 * tunnels: those of the file too, else the file's tunnels are not looked at. Mistakes are gathered;
 * a warning for people comes on standard error.
 */
void read_config_file(settings *s, const command_line *c, const char *path, bool tunnels,
                      mistakes *m);
/* The same from a document, which is freed (NULL is fine). */
void read_config(settings *s, const command_line *c, document *d, const char *path, bool tunnels,
                 mistakes *m);

#endif
