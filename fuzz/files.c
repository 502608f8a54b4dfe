/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What visitors send to a folder that is served. Input: a byte that says into what pieces the rest
 * is cut, then the bytes of a connection. Every answer is well-formed, the same however the input
 * is cut, and holds nothing of what is outside of the folder or hidden.
 */
#include "files/files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/http.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_REQUESTS = 4096, MAX_OUT = 64 << 20 };

/* --- the folder ------------------------------------------------------------------------------- */

static char top[32];
static const char *const names[] = {
    "served/sub",        "served/sub/deep",         "served/.well-known",
    "served/index",      "served/index/index.html", "served/a.txt",
    "served/sub/b.html", "served/sub/deep/c",       "served/.well-known/d",
    "served/.hidden",    "served/sub/.hidden",      "outside",
};
enum { NAMES = sizeof(names) / sizeof(*names), FOLDERS = 4 };

static void clean(void)
{
    int at = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
    unlinkat(at, "served/out", 0);
    unlinkat(at, "served/in", 0);
    for (size_t i = NAMES; i > 0; i--)
        unlinkat(at, names[i - 1], i <= FOLDERS ? AT_REMOVEDIR : 0);
    unlinkat(at, "served", AT_REMOVEDIR);
    close(at);
    rmdir(top);
}

static void make_folder(void)
{
    snprintf(top, sizeof(top), "/tmp/fuzz-files-XXXXXX");
    must(mkdtemp(top));
    int at = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
    must(at >= 0 && mkdirat(at, "served", 0755) == 0);
    for (size_t i = 0; i < NAMES; i++) {
        if (i < FOLDERS) {
            must(mkdirat(at, names[i], 0755) == 0);
            continue;
        }
        bool secret = strstr(names[i], "hidden") || strstr(names[i], "outside");
        const char *text = secret ? "SECRET" : "0123456789abcdefghijklmnopqrstuvwxyz";
        int fd = openat(at, names[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        must(fd >= 0 && write(fd, text, strlen(text)) > 0);
        close(fd);
    }
    must(symlinkat("../outside", at, "served/out") == 0);
    must(symlinkat("sub/b.html", at, "served/in") == 0);
    close(at);
    atexit(clean);
}

/* --- what was asked --------------------------------------------------------------------------- */

typedef struct script {
    bool head[MAX_REQUESTS];
    size_t requests;
    size_t answers; /* seen so far */
    uint64_t digest;
    tnl_buf body;
} script;

static int on_request(void *user, const tnl_http_head *h)
{
    script *s = user;
    if (s->requests == MAX_REQUESTS)
        return -1;
    s->head[s->requests++] = tnl_http_is(h->method, "HEAD");
    return 0;
}

static int no_body(void *user, const uint8_t *p, size_t n)
{
    (void)user;
    (void)p;
    (void)n;
    return 0;
}

static int no_end(void *user)
{
    (void)user;
    return 0;
}

static void read_requests(script *s, const uint8_t *p, size_t n)
{
    static const tnl_http_events events = {on_request, no_body, NULL, no_end};
    tnl_http_parser *parser;
    size_t used;
    must(tnl_http_parser_new(&parser, true, NULL, &events, s) == 0);
    while (n && tnl_http_feed(parser, p, n, &used) == 0) {
        p += used;
        n -= used;
        tnl_http_next(parser);
    }
    tnl_http_parser_free(parser);
}

/* --- what was answered ------------------------------------------------------------------------ */

static int on_answer(void *user, const tnl_http_head *h)
{
    script *s = user;
    must(h->status == 200 || h->status == 206 || h->status == 304 || h->status == 308 ||
         (h->status >= 400 && h->status <= 505));
    must(h->framing != TNL_HTTP_CHUNKED && h->framing != TNL_HTTP_UNTIL_CLOSE);
    must(h->status != 416 || tnl_http_find(h, "Content-Range"));
    s->digest = s->digest * 31 + (uint64_t)h->status;
    s->digest = s->digest * 31 + h->content_length;
    return 0;
}

static int on_answer_body(void *user, const uint8_t *p, size_t n)
{
    script *s = user;
    must(tnl_buf_add(&s->body, p, n) == 0);
    return 0;
}

static int on_answer_end(void *user)
{
    script *s = user;
    size_t n = tnl_buf_len(&s->body);
    must(!n || !memmem(tnl_buf_bytes(&s->body), n, "SECRET", 6));
    tnl_buf_clear(&s->body);
    s->answers++;
    return 0;
}

static void read_answers(script *s, const uint8_t *p, size_t n)
{
    static const tnl_http_events events = {on_answer, on_answer_body, NULL, on_answer_end};
    static const tnl_http_limits limits = {.max_head = 128 * 1024};
    tnl_http_parser *parser;
    size_t used;
    must(tnl_http_parser_new(&parser, false, &limits, &events, s) == 0);
    while (n) {
        /* One answer more than requests: that to what is none. */
        must(s->answers <= s->requests);
        tnl_http_expect(parser, s->answers < s->requests && s->head[s->answers], false);
        must(tnl_http_feed(parser, p, n, &used) == 0);
        p += used;
        n -= used;
        tnl_http_next(parser);
    }
    must(tnl_http_idle(parser));
    tnl_http_parser_free(parser);
}

static uint64_t run(tnl_loop *l, tnl_files *f, script *s, const uint8_t *p, size_t n, size_t piece)
{
    wire w;
    wire_init(&w, l, p, n, piece, MAX_OUT);
    must(tnl_files_serve(f, &w.base) == 0);
    while (!w.gone)
        tnl_loop_run(l);
    must(tnl_files_count(f) == 0);
    s->digest = 0;
    s->answers = 0;
    read_answers(s, tnl_buf_bytes(&w.out), tnl_buf_len(&w.out));
    tnl_buf_free(&w.out);
    return s->digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tnl_loop *l;
    static tnl_files *f;
    static script s;
    char path[64];

    if (!l) {
        make_folder();
        snprintf(path, sizeof(path), "%s/served", top);
        must(tnl_loop_new(&l, NULL) == 0);
        must(tnl_files_new(&f, l, path, NULL, 0) == 0);
    }
    if (size < 2 || size > 60000)
        return 0;
    s.requests = 0;
    tnl_buf_init(&s.body, MAX_OUT);
    read_requests(&s, data + 1, size - 1);
    uint64_t whole = run(l, f, &s, data + 1, size - 1, size);
    must(run(l, f, &s, data + 1, size - 1, 1U + data[0]) == whole);
    tnl_buf_free(&s.body);
    return 0;
}
