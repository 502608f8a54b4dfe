/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_QR_H
#define APPS_CLIENT_QR_H

#include <stdbool.h>
#include <stdio.h>

/*
 * Prints a QR code of a text, two rows of modules a line. With colours it is black on white
 * whatever the terminal's own are; without, it has the polarity of dark terminals. false: too long
 * a text, or no memory.
 */
bool print_qr(FILE *out, const char *text, bool colours);

#endif
