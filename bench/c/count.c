/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count - a library for LD_PRELOAD that counts allocations, copies and bytes moved by system calls.
 *
 * The counters live in a file that the process maps: $BENCH_COUNT_FILE.PID, an array of 64-bit
 * numbers in the order of enum counter, so that another process can read them at any moment.
 * Copies are calls of memcpy and memmove that reach the C library: short ones of a constant size,
 * which compilers expand in place, are not seen, nor are bytes moved by loops (see the instruction
 * counts for those). Needs glibc, whose allocator stays reachable as __libc_malloc and so on.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum counter {
    COUNT_ALLOCS,      /* malloc, calloc, realloc, aligned_alloc, posix_memalign */
    COUNT_ALLOC_BYTES, /* as asked for */
    COUNT_FREES,       /* free of anything but NULL */
    COUNT_COPIES,      /* memcpy and memmove */
    COUNT_COPY_BYTES,
    COUNT_IN_BYTES,  /* kernel to process: read, readv, recv, recvfrom, recvmsg */
    COUNT_OUT_BYTES, /* process to kernel: write, writev, send, sendto, sendmsg */
    COUNT_MAX
};

static _Atomic uint64_t before_mapping[COUNT_MAX];
static _Atomic uint64_t *counters = before_mapping;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void __libc_free(void *ptr);

void *__memcpy_chk(void *dst, const void *src, size_t len, size_t room);
void *__memmove_chk(void *dst, const void *src, size_t len, size_t room);

static void add(enum counter which, uint64_t n)
{
    atomic_fetch_add_explicit(&counters[which], n, memory_order_relaxed);
}

static void count_alloc(size_t size)
{
    add(COUNT_ALLOCS, 1);
    add(COUNT_ALLOC_BYTES, size);
}

__attribute__((constructor)) static void map_counters(void)
{
    const char *base = getenv("BENCH_COUNT_FILE");
    char path[512];
    void *map;
    int fd;

    if (base == NULL)
        return;
    snprintf(path, sizeof(path), "%s.%ld", base, (long)getpid());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (ftruncate(fd, (off_t)sizeof(before_mapping)) == 0) {
        map = mmap(NULL, sizeof(before_mapping), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED)
            counters = map;
    }
    close(fd);
}

void *malloc(size_t size)
{
    count_alloc(size);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count_alloc(n * size);
    return __libc_calloc(n, size);
}

void *realloc(void *ptr, size_t size)
{
    count_alloc(size);
    return __libc_realloc(ptr, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    count_alloc(size);
    return __libc_memalign(align, size);
}

void *memalign(size_t align, size_t size)
{
    count_alloc(size);
    return __libc_memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    void *ptr = __libc_memalign(align, size);

    count_alloc(size);
    if (ptr == NULL)
        return ENOMEM;
    *out = ptr;
    return 0;
}

void free(void *ptr)
{
    if (ptr != NULL)
        add(COUNT_FREES, 1);
    __libc_free(ptr);
}

/* Volatile, or the compiler turns the loops into calls of the very functions they stand in for. */
static void *move(void *dst, const void *src, size_t len)
{
    volatile unsigned char *to = dst;
    const volatile unsigned char *from = src;

    add(COUNT_COPIES, 1);
    add(COUNT_COPY_BYTES, len);
    if ((uintptr_t)dst - (uintptr_t)src >= len) {
        for (size_t i = 0; i < len; i++)
            to[i] = from[i];
    } else {
        for (size_t i = len; i > 0; i--)
            to[i - 1] = from[i - 1];
    }
    return dst;
}

void *memcpy(void *restrict dst, const void *restrict src, size_t len)
{
    return move(dst, src, len);
}

void *memmove(void *dst, const void *src, size_t len)
{
    return move(dst, src, len);
}

void *__memcpy_chk(void *dst, const void *src, size_t len, size_t room)
{
    if (len > room)
        _exit(134);
    return move(dst, src, len);
}

void *__memmove_chk(void *dst, const void *src, size_t len, size_t room)
{
    if (len > room)
        _exit(134);
    return move(dst, src, len);
}

static ssize_t moved(enum counter which, long result)
{
    if (result > 0)
        add(which, (uint64_t)result);
    return (ssize_t)result;
}

ssize_t read(int fd, void *buf, size_t len)
{
    return moved(COUNT_IN_BYTES, syscall(SYS_read, fd, buf, len));
}

ssize_t readv(int fd, const struct iovec *iov, int n)
{
    return moved(COUNT_IN_BYTES, syscall(SYS_readv, fd, iov, n));
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    return moved(COUNT_IN_BYTES, syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL));
}

ssize_t recvfrom(int fd, void *restrict buf, size_t len, int flags, struct sockaddr *restrict addr,
                 socklen_t *restrict addr_len)
{
    return moved(COUNT_IN_BYTES, syscall(SYS_recvfrom, fd, buf, len, flags, addr, addr_len));
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    return moved(COUNT_IN_BYTES, syscall(SYS_recvmsg, fd, msg, flags));
}

ssize_t write(int fd, const void *buf, size_t len)
{
    return moved(COUNT_OUT_BYTES, syscall(SYS_write, fd, buf, len));
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
    return moved(COUNT_OUT_BYTES, syscall(SYS_writev, fd, iov, n));
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    return moved(COUNT_OUT_BYTES, syscall(SYS_sendto, fd, buf, len, flags, NULL, 0));
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
               socklen_t addr_len)
{
    return moved(COUNT_OUT_BYTES, syscall(SYS_sendto, fd, buf, len, flags, addr, addr_len));
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return moved(COUNT_OUT_BYTES, syscall(SYS_sendmsg, fd, msg, flags));
}
