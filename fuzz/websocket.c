/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients send over a WebSocket once it is open. Input: a byte that says into what pieces the
 * rest is cut, one that says how much of it comes right behind the request, then the frames. What
 * they carry, and what becomes of the connection, is the same however the input is cut.
 */
#include "transport/transport.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_IN = 200000, MAX_OUT = 64 << 20, MAX_HEAD = 512 };

typedef struct outcome {
    uint64_t digest; /* of what was carried */
    uint64_t bytes;
    int error;
    bool opened, closed;
} outcome;

static void on_opened(void *user)
{
    outcome *o = user;
    must(!o->opened && !o->closed);
    o->opened = true;
}

static void on_data(void *user, const uint8_t *p, size_t n)
{
    outcome *o = user;
    must(o->opened && !o->closed && n > 0);
    for (size_t i = 0; i < n; i++)
        o->digest = (o->digest ^ p[i]) * 0x100000001b3u;
    o->bytes += n;
}

static size_t on_pull(void *user, uint8_t *out, size_t cap)
{
    (void)user;
    (void)out;
    must(cap == TNL_TRANSPORT_BATCH);
    return 0;
}

static void on_closed(void *user, int error, int status, const char *detail)
{
    outcome *o = user;
    must(!o->closed && status == 0 && detail);
    o->closed = true;
    o->error = error;
}

static const tnl_transport_events events = {
    .opened = on_opened, .data = on_data, .pull = on_pull, .closed = on_closed};

static outcome run(tnl_loop *l, tnl_ws *ws, const uint8_t *p, size_t n, size_t early, size_t piece)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: tunnel\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                  "Sec-WebSocket-Protocol: tunnel.v1\r\n\r\n";
    enum { REQUEST = sizeof(request) - 1 };
    uint8_t head[MAX_HEAD + 256];
    outcome o = {.digest = 0};
    tnl_transport *t;
    wire w;
    wire_init(&w, l, p + early, n - early, piece, MAX_OUT);
    memcpy(head, request, REQUEST);
    memcpy(head + REQUEST, p, early);
    must(tnl_ws_accept(&t, ws, &w.base, head, REQUEST + early, &events, &o) == 0);
    while (!w.gone)
        tnl_loop_run(l);
    must(o.opened && o.closed && o.error < 0 && o.bytes <= n);
    tnl_buf_free(&w.out);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tnl_loop *l;
    static tnl_ws *ws;
    if (!l) {
        must(tnl_loop_new(&l, NULL) == 0);
        must(tnl_ws_new(&ws, l, NULL, NULL) == 0);
    }
    if (size < 3 || size > MAX_IN)
        return 0;
    const uint8_t *p = data + 2;
    size_t n = size - 2, early = data[1] < n ? data[1] : n;
    outcome whole = run(l, ws, p, n, 0, n);
    outcome cut = run(l, ws, p, n, early, 1U + data[0]);
    must(whole.digest == cut.digest && whole.bytes == cut.bytes && whole.error == cut.error);
    return 0;
}
