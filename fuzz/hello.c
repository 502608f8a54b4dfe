/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of a connection's first bytes. Input: one byte that says into what pieces the rest is
 * cut, then what a client sends. The verdict must be the same however it is cut, it must not hang
 * on what follows the hello, and a name is a name.
 */
#include "tls/hello.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok)
        abort();
}

static tnl_tls_hello_state run(tnl_tls_hello *h, const uint8_t *p, size_t n, size_t step,
                               size_t *used)
{
    tnl_tls_hello_state state = TNL_TLS_HELLO_MORE;
    *h = (tnl_tls_hello){.alert = 0};
    *used = 0;
    while (*used < n && state == TNL_TLS_HELLO_MORE) {
        *used += n - *used < step ? n - *used : step;
        /* From memory of exactly that size. */
        uint8_t *copy = malloc(*used);
        must(copy != NULL);
        memcpy(copy, p, *used);
        state = tnl_tls_hello_look(h, copy, *used);
        free(copy);
    }
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    tnl_tls_hello whole, cut;
    size_t used;
    if (size < 2)
        return 0;
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    tnl_tls_hello_state state = run(&whole, p, n, n, &used);
    size_t step = 1U + data[0];
    if (n / step > 4096)
        step = n / 4096;
    must(run(&cut, p, n, step, &used) == state);
    must(whole.alert == cut.alert);
    if (state == TNL_TLS_HELLO_DONE) {
        must(strcmp(whole.name, cut.name) == 0);
        size_t length = strlen(whole.name);
        must(length < sizeof(whole.name) && strspn(whole.name, allowed) == length);
        must(length == 0 || (whole.name[0] != '.' && whole.name[length - 1] != '.'));
    }
    must((state == TNL_TLS_HELLO_BAD) == (whole.alert != 0));
    must(state != TNL_TLS_HELLO_MORE || n < TNL_TLS_HELLO_MAX);
    return 0;
}
