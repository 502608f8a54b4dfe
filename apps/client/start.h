/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_START_H
#define APPS_CLIENT_START_H

#include "client/app.h"

/* What the commands do before the loop runs: -1 to go on, or an exit code after a line that told
 * why. */

/* One tunnel, from the command line; connection and display also from the user's file. */
int prepare_one(app *a);
/* The tunnels of a file. */
int prepare_file(app *a);
/* Only looks at the file; always an exit code. */
int check_file(app *a);

/* SIGHUP: reads the file again and changes what has changed. */
void on_hangup(void *user, int signum);

#endif
