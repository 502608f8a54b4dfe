/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_SHOW_H
#define APPS_CLIENT_SHOW_H

#include "client/app.h"

/* Shows what the client tells, for people or for machines, and ends the program when nothing is
 * left to be done. */
void on_client_event(void *user, const tunnel_event *e);

/* A line about what the program itself does: for people on standard error. */
void show_note(const app *a, const char *event, const char *text);

/* That the program was told to end, and what it is waiting for. */
void show_draining(const app *a);

#endif
