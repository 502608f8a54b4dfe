/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_PROCESS_H
#define APPS_COMMON_PROCESS_H

/*
 * Each connection takes a descriptor or two, and the usual limit of 1024 is meant for programs that
 * call select(). Raises it as far as the system allows and the libraries' tables stay small.
 */
void raise_descriptor_limit(void);

/*
 * SIGALRM comes after so many milliseconds, once; 0: it does not come.
 */
void set_alarm(unsigned ms);

/*
 * From here on SIGTERM, SIGINT, SIGHUP and SIGALRM wait: the program is about to end by itself,
 * with its own exit code.
 */
void hold_signals(void);

#endif
