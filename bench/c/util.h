/* SPDX-License-Identifier: Apache-2.0 */
/*
 * util.h - what the load generators and the origins share: the clock, sockets, message heads,
 * numbers.
 *
 * These programs only ever talk to processes that the benchmark started on loopback. They
 * understand exactly what those send and fail loudly on all else.
 */
#ifndef BENCH_UTIL_H
#define BENCH_UTIL_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

/* The longest message head that either program accepts, in bytes. */
#define BENCH_HEAD_MAX 16384

/* Monotonic time in seconds. */
double bench_now(void);

/* Prints "PROGRAM: message" as one line on stderr and exits with 1. */
_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Parses a decimal number in [min, max]; exits with a message that names `what` otherwise. */
uint64_t bench_number(const char *text, uint64_t min, uint64_t max, const char *what);

/*
 * Length of the head (with its empty line) that starts at `data`, or 0 if it is not complete yet.
 */
size_t bench_head_length(const char *data, size_t len);

/*
 * The value of Content-Length in a complete head of `len` bytes, or -1 if it is absent or not a
 * number.
 */
int64_t bench_content_length(const char *head, size_t len);

/* What PORT means in the arguments of these programs: "8080" of 127.0.0.1, or "10.99.0.2:8080". */
struct sockaddr_in bench_place(const char *text);

/*
 * Connects there, without delay for small writes; a send or receive that takes longer
 * than `timeout` seconds (0: no limit) fails.
 */
int bench_dial(const char *place, unsigned timeout);

/* Sends all; receives at least a byte. Exit with a message when that fails or the peer has closed.
 */
void bench_send_all(int fd, const void *data, size_t len);
size_t bench_receive(int fd, void *buf, size_t size);

/* A new block of bytes without a pattern, so that nothing on the way can do better than move them.
 */
char *bench_bytes(size_t size);

/* Prints `point` (unless NULL) and goes on at the next line, or the end, of the input. */
void bench_pause(const char *point);

#endif
