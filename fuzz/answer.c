/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's answer to a WebSocket upgrade. Input: one byte that says into what pieces the rest
 * is cut, then what a server sends until it closes. The verdict must be the same however it is cut,
 * and a refusal has a reason of one line.
 */
#include "transport/answer.h"

#include <stdlib.h>
#include <string.h>

#include "tunnel/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static tnl_answer_state run(tnl_answer *a, const uint8_t *p, size_t n, size_t step)
{
    tnl_answer_state state = TNL_ANSWER_MORE;
    tnl_answer_init(a);
    while (n && state == TNL_ANSWER_MORE) {
        size_t take = n < step ? n : step;
        state = tnl_answer_feed(a, p, take);
        p += take;
        n -= take;
    }
    if (state == TNL_ANSWER_UPGRADE) {
        tnl_buf head;
        tnl_buf_init(&head, 1024);
        must(tnl_answer_head(a, &head) == 0);
        tnl_buf_free(&head);
        return state;
    }
    if (state == TNL_ANSWER_MORE)
        tnl_answer_end(a, TUNNEL_E_EOF, "ended");
    must(a->error < 0 && a->detail[0] != '\0');
    for (const char *c = a->detail; *c; c++)
        must((unsigned char)*c >= ' ' && *c != 0x7f);
    return TNL_ANSWER_REFUSED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 60000)
        return 0;
    tnl_answer whole, cut;
    tnl_answer_state state = run(&whole, data + 1, size - 1, size - 1);
    must(run(&cut, data + 1, size - 1, 1U + data[0]) == state);
    must(whole.error == cut.error && whole.status == cut.status);
    must(strcmp(whole.detail, cut.detail) == 0);
    tnl_answer_free(&whole);
    tnl_answer_free(&cut);
    return 0;
}
