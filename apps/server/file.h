/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_SERVER_FILE_H
#define APPS_SERVER_FILE_H

#include "common/document.h"
#include "common/mistakes.h"
#include "server/settings.h"

/* Reads a configuration file into settings; what flags and the environment have given stays.
 * Mistakes are gathered; a warning for people comes on standard error. */
void read_config_file(settings *s, const command_line *c, const char *path, mistakes *m);
/* The same from a document, which is freed (NULL is fine). */
void read_config(settings *s, const command_line *c, document *d, const char *path, mistakes *m);

#endif
