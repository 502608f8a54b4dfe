/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_SERVER_SHOW_H
#define APPS_SERVER_SHOW_H

#include "server/app.h"

/* Shows what the server tells, for people or for machines. */
void on_server_event(void *user, const tunnel_event *e);

/* What the server has counted. */
void show_counters(const app *a);

/* That the server was told to end, and what it is waiting for. */
void show_draining(const app *a);

/* A line about what the program itself does: for people on standard error. */
void show_note(const app *a, const char *event, const char *text);

#endif
