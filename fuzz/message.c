/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages. Input: one byte that says which message, then a msgpack map. What is accepted
 * encodes to a form that is not longer, and that decodes to the same again.
 */
#include "wire/message.h"

#include <stdlib.h>
#include <string.h>

#include "tunnel/error.h"
#include "wire/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

#define TRY(name)                                                                                  \
    static void try_##name(const uint8_t *p, size_t n, uint8_t *out, uint8_t *again)               \
    {                                                                                              \
        tnl_##name m;                                                                              \
        int rc = tnl_##name##_decode(&m, p, n);                                                    \
        if (rc) {                                                                                  \
            must(rc == TUNNEL_E_PROTOCOL);                                                         \
            return;                                                                                \
        }                                                                                          \
        size_t len = tnl_##name##_encode(out, n, &m);                                              \
        must(len > 0);                                                                             \
        must(tnl_##name##_decode(&m, out, len) == 0);                                              \
        must(tnl_##name##_encode(again, len, &m) == len && memcmp(out, again, len) == 0);          \
        must(tnl_##name##_encode(again, len - 1, &m) == 0);                                        \
    }
TNL_MESSAGE_MAP(TRY)

static void (*const tries[])(const uint8_t *p, size_t n, uint8_t *out, uint8_t *again) = {
#define ENTRY(name) try_##name,
    TNL_MESSAGE_MAP(ENTRY)};

static void try_text(const uint8_t *p, size_t n)
{
    char clean[64];
    size_t len = tnl_text_clean(clean, sizeof(clean), p, n);
    must(len < sizeof(clean) && clean[len] == '\0' && tnl_text_valid(clean, len));
    if (tnl_text_valid(p, n))
        must(memcmp(clean, p, len) == 0 && len + 4 >= (n < sizeof(clean) ? n : sizeof(clean)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 + TNL_MESSAGE_MAX)
        return 0;
    size_t n = size - 1;
    uint8_t *out = malloc(n), *again = malloc(n);
    if (out && again) {
        tries[data[0] % (sizeof(tries) / sizeof(*tries))](data + 1, n, out, again);
        try_text(data + 1, n);
    }
    free(out);
    free(again);
    return 0;
}
