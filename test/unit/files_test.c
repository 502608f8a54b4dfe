/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/date.h"
#include "files/type.h"
#include "support/check.h"
#include "support/files_rig.h"
#include "tunnel/error.h"

/* What a served folder answers: files, pages, listings, redirects. */

static void a_file(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    int64_t t;
    files_rig_open(&r);
    files_rig_put(&r, "a.txt", "hello");
    files_rig_touch(&r, "a.txt", 784111777);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/a.txt?x=1", ""), 200);
    assert_true(files_body_is(&g, "hello"));
    assert_string_equal(files_field(&g, "Content-Type"), "text/plain; charset=utf-8");
    assert_string_equal(files_field(&g, "Content-Length"), "5");
    assert_string_equal(files_field(&g, "Last-Modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_string_equal(files_field(&g, "Accept-Ranges"), "bytes");
    assert_string_equal(files_field(&g, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(files_field(&g, "Cache-Control"), "no-cache");
    assert_string_equal(files_field(&g, "Connection"), "");
    const char *date = files_field(&g, "Date");
    assert_true(tnl_files_date_parse((tnl_http_span){date, strlen(date)}, 0, &t));
    assert_true(t > 1700000000);
    char etag[64];
    snprintf(etag, sizeof(etag), "%s", files_field(&g, "ETag"));
    assert_true(strlen(etag) > 4 && etag[0] == '"' && etag[strlen(etag) - 1] == '"');

    assert_int_equal(files_ask(&g, "HEAD", "/a.txt", ""), 200);
    assert_string_equal(files_field(&g, "Content-Length"), "5");
    assert_string_equal(files_field(&g, "ETag"), etag);

    /* Another state of it, though as long and as old to the second. */
    files_rig_put(&r, "a.txt", "hullo");
    struct timespec times[2] = {{.tv_sec = 784111777, .tv_nsec = 1},
                                {.tv_sec = 784111777, .tv_nsec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, files_rig_path(&r, "a.txt"), times, 0), 0);
    assert_int_equal(files_ask(&g, "GET", "/a.txt", ""), 200);
    assert_string_not_equal(files_field(&g, "ETag"), etag);

    files_rig_put(&r, "empty", "");
    assert_int_equal(files_ask(&g, "GET", "/empty", ""), 200);
    assert_string_equal(files_field(&g, "Content-Length"), "0");
    assert_string_equal(files_field(&g, "Content-Type"), "application/octet-stream");

    /* Never later than now. */
    files_rig_touch(&r, "empty", 4102444800);
    assert_int_equal(files_ask(&g, "GET", "/empty", ""), 200);
    date = files_field(&g, "Last-Modified");
    assert_true(tnl_files_date_parse((tnl_http_span){date, strlen(date)}, 0, &t));
    assert_true(t < 4102444800);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void large_file(void **state)
{
    (void)state;
    enum { SIZE = 5 * 1024 * 1024 + 17 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(bytes);
    test_fill(bytes, SIZE, 0);
    files_rig_put_bytes(&r, "big.bin", bytes, SIZE);
    files_guest_open(&g, &r);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(files_ask(&g, "GET", "/big.bin", ""), 200);
        assert_int_equal(g.reply.n, SIZE);
        assert_memory_equal(g.reply.body, bytes, SIZE);
    }
    free(bytes);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void types(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a.html", "text/html; charset=utf-8"},
        {"A.HTML", "text/html; charset=utf-8"},
        {"a.min.js", "text/javascript; charset=utf-8"},
        {"a.css", "text/css; charset=utf-8"},
        {"a.svg", "image/svg+xml; charset=utf-8"},
        {"a.json", "application/json"},
        {"a.png", "image/png"},
        {"a.wasm", "application/wasm"},
        {"a.woff2", "font/woff2"},
        {"a.mp4", "video/mp4"},
        {"a.tar.gz", "application/gzip"},
        {"a.unheard-of", "application/octet-stream"},
        {"a.", "application/octet-stream"},
        {"html", "application/octet-stream"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(tnl_files_type(cases[i][0]), cases[i][1]);
}

static void folders(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "sub/index.html", "<p>index");
    files_rig_put(&r, "http:/x", "y");
    files_rig_put(&r, "odd/index.html/x", "y");
    files_guest_open(&g, &r);

    assert_int_equal(files_ask(&g, "GET", "/sub/", ""), 200);
    assert_true(files_body_is(&g, "<p>index"));
    assert_string_equal(files_field(&g, "Content-Type"), "text/html; charset=utf-8");
    assert_int_equal(files_ask(&g, "GET", "//sub//", ""), 200);
    assert_true(files_body_is(&g, "<p>index"));

    /* Relative, so that any prefix in front stays. */
    assert_int_equal(files_ask(&g, "GET", "/sub", ""), 308);
    assert_string_equal(files_field(&g, "Location"), "sub/");
    assert_int_equal(files_ask(&g, "HEAD", "/sub?a=b&c=%20", ""), 308);
    assert_string_equal(files_field(&g, "Location"), "sub/?a=b&c=%20");
    assert_int_equal(files_ask(&g, "GET", "//odd//index.html", ""), 308);
    assert_string_equal(files_field(&g, "Location"), "index.html/");
    /* Not to be read as another scheme. */
    assert_int_equal(files_ask(&g, "GET", "/http:", ""), 308);
    assert_string_equal(files_field(&g, "Location"), "http%3A/");

    /* A folder called index.html is none; a file is no folder. */
    assert_int_equal(files_ask(&g, "GET", "/odd/", ""), 200);
    assert_true(files_body_has(&g, "<a href=\"index.html/\">"));
    assert_int_equal(files_ask(&g, "GET", "/sub/index.html/", ""), 404);
    assert_int_equal(files_ask(&g, "GET", "/sub/index.html/x", ""), 404);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void listing(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/", ""), 200);
    assert_true(files_body_has(&g, "This folder is empty."));
    assert_false(files_body_has(&g, "href=\"../\""));

    files_rig_put(&r, "d/b.txt", "12345");
    files_rig_put(&r, "d/A.txt", "");
    files_rig_put(&r, "d/zz/x", "");
    files_rig_put(&r, "d/.hidden", "");
    files_rig_put(&r, "d/<b>&\"'%\n\xff\xe2\x80\xae.txt", "x");
    files_rig_put(&r, "d/\xc3\xbc:1", "");
    assert_int_equal(truncate(files_rig_path(&r, "d/A.txt"), 3 * 1024 * 1024), 0);
    files_rig_touch(&r, "d/b.txt", 784111777);
    files_rig_link(&r, "b.txt", "d/inside");
    files_rig_link(&r, "../../../x", "d/outside");
    files_rig_link(&r, "nowhere", "d/dangling");
    assert_int_equal(mkfifo(files_rig_path(&r, "d/fifo"), 0644), 0);

    assert_int_equal(files_ask(&g, "GET", "/d/", ""), 200);
    assert_string_equal(files_field(&g, "Content-Type"), "text/html; charset=utf-8");
    assert_string_equal(files_field(&g, "Cache-Control"), "no-cache");
    assert_non_null(strstr(files_field(&g, "Content-Security-Policy"), "default-src 'none'"));
    assert_true(files_body_has(&g, "<h1>/d/</h1>"));
    assert_true(files_body_has(&g, "<a href=\"../\">Up</a>"));
    assert_true(files_body_has(
        &g, "<tr><td><a href=\"b.txt\"><bdi>b.txt</bdi></a><td>5 B<td>1994-11-06 08:49\n"));
    assert_true(files_body_has(&g, "<a href=\"A.txt\"><bdi>A.txt</bdi></a><td>3.0 MiB<td>"));
    assert_true(files_body_has(&g, "<a href=\"zz/\"><bdi>zz/</bdi></a><td><td>"));
    assert_true(files_body_has(&g, "<a href=\"%3Cb%3E%26%22%27%25%0A%FF%E2%80%AE.txt\"><bdi>"
                                   "&#60;b&#62;&#38;&#34;&#39;%\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                   ".txt</bdi>"));
    assert_true(files_body_has(&g, "<a href=\"%C3%BC%3A1\"><bdi>\xc3\xbc:1</bdi>"));
    assert_true(files_body_has(&g, "<a href=\"inside\">"));
    static const char *const absent[] = {".hidden",  "outside", "dangling", "fifo",
                                         "href=\"/", "src=",    "<script"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(*absent); i++)
        assert_false(files_body_has(&g, absent[i]));

    /* Folders first, then by name, capitals among the others. */
    const char *page = (const char *)g.reply.body;
    const char *zz = strstr(page, "\"zz/\""), *a = strstr(page, "\"A.txt\"");
    const char *b = strstr(page, "\"b.txt\""), *i = strstr(page, "\"inside\"");
    assert_true(zz < a && a < b && b < i);

    size_t n = g.reply.n;
    char length[32];
    snprintf(length, sizeof(length), "%zu", n);
    assert_int_equal(files_ask(&g, "HEAD", "/d/", ""), 200);
    assert_string_equal(files_field(&g, "Content-Length"), length);
    files_guest_close(&g);
    files_rig_close(&r);
}

static size_t count(const files_guest *g, const char *text)
{
    size_t n = 0;
    const uint8_t *at = g->reply.body, *end = at + g->reply.n;
    while ((at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
        n++;
        at++;
    }
    return n;
}

static void large_listing(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    char name[256];
    files_rig_open(&r);
    files_rig_mkdir(&r, "many");
    for (unsigned i = 0; i < 10001; i++) {
        snprintf(name, sizeof(name), "many/%05u", i);
        int fd = open(files_rig_path(&r, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    /* Names that take nine times their length in the page. */
    files_rig_mkdir(&r, "long");
    for (unsigned i = 0; i < 3000; i++) {
        int n = snprintf(name, sizeof(name), "long/%05u", i);
        memset(name + n, '<', 250 - (size_t)n);
        name[250] = '\0';
        int fd = open(files_rig_path(&r, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/many/", ""), 200);
    assert_int_equal(count(&g, "<tr><td>"), 10000);
    assert_true(files_body_has(&g, "There are more than these 10000; they are not shown."));
    assert_true(files_body_has(&g, "</html>"));
    assert_int_equal(unlink(files_rig_path(&r, "many/00077")), 0);
    assert_int_equal(files_ask(&g, "GET", "/many/", ""), 200);
    assert_int_equal(count(&g, "<tr><td>"), 10000);
    assert_false(files_body_has(&g, "There are more"));

    assert_int_equal(files_ask(&g, "GET", "/long/", ""), 200);
    assert_true(g.reply.n <= 4 * 1024 * 1024);
    assert_true(count(&g, "<tr><td>") > 1000);
    assert_true(files_body_has(&g, "they are not shown."));
    assert_true(files_body_has(&g, "</table>\n<p>"));
    files_guest_close(&g);
    files_rig_close(&r);
}

static void methods(void **state)
{
    (void)state;
    static const char *const others[] = {"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"};
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "a", "here");
    files_guest_open(&g, &r);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        assert_int_equal(files_ask(&g, others[i], "/a", ""), 405);
        assert_string_equal(files_field(&g, "Allow"), "GET, HEAD");
    }
    /* A small body is read, so that the connection stays of use. */
    files_guest_say(&g, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
                        "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5\r\nhello\r\n0\r\n\r\n"
                        "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.status, 405);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.status, 405);
    for (int i = 0; i < 2; i++) {
        files_guest_hear(&g, false);
        assert_int_equal(g.reply.status, 200);
        assert_true(files_body_is(&g, "here"));
    }
    assert_int_equal(files_ask(&g, "OPTIONS", "*", ""), 405);
    files_guest_close(&g);

    /* A large one is not waited for, and neither is one that asks first. */
    static const char *const early[] = {
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    };
    for (size_t i = 0; i < 2; i++) {
        files_guest_open(&g, &r);
        files_guest_say(&g, early[i]);
        files_guest_hear(&g, false);
        assert_int_equal(g.reply.status, 405);
        assert_string_equal(files_field(&g, "Connection"), "close");
        shutdown(g.fd, SHUT_WR);
        files_guest_end(&g);
        files_guest_close(&g);
    }
    files_guest_open(&g, &r);
    files_guest_say(&g, "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "100000\r\n");
    char *piece = malloc(400001);
    memset(piece, 'x', 400000);
    piece[400000] = '\0';
    files_guest_say(&g, piece);
    free(piece);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.status, 405);
    assert_string_equal(files_field(&g, "Connection"), "close");
    files_guest_close(&g);
    files_rig_close(&r);
}

static void pages(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/nothing", ""), 404);
    assert_string_equal(files_field(&g, "Content-Type"), "text/html; charset=utf-8");
    assert_string_equal(files_field(&g, "Cache-Control"), "no-store");
    assert_string_equal(files_field(&g, "X-Content-Type-Options"), "nosniff");
    assert_non_null(strstr(files_field(&g, "Content-Security-Policy"), "default-src 'none'"));
    assert_true(files_body_has(&g, "There is no such file or folder here."));
    assert_int_equal(files_ask(&g, "HEAD", "/nothing", ""), 404);
    assert_int_equal(files_ask(&g, "GET", "/%zz", ""), 400);

    /* What is no request is told and ends the connection. */
    files_guest_say(&g, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.status, 400);
    assert_string_equal(files_field(&g, "Connection"), "close");
    shutdown(g.fd, SHUT_WR);
    files_guest_end(&g);
    files_guest_close(&g);

    char *long_path = malloc(40010);
    for (size_t i = 0; i < 40009; i++)
        long_path[i] = "/aaa"[i % 4];
    long_path[5000] = '\0';
    assert_int_equal(files_status(&r, long_path), 414);
    long_path[5000] = 'a';
    long_path[40009] = '\0';
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", long_path, ""), 414);
    files_guest_close(&g);
    free(long_path);
    files_rig_close(&r);
}

static void forbidden(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "secret", "x");
    files_rig_put(&r, "locked/x", "x");
    files_rig_put(&r, "half/index.html", "x");
    assert_int_equal(chmod(files_rig_path(&r, "secret"), 0), 0);
    assert_int_equal(chmod(files_rig_path(&r, "locked"), 0), 0);
    assert_int_equal(chmod(files_rig_path(&r, "half/index.html"), 0), 0);
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(seteuid(65534), 0);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/secret", ""), 403);
    assert_true(files_body_has(&g, "may not read it"));
    assert_int_equal(files_ask(&g, "GET", "/locked/x", ""), 403);
    assert_int_equal(files_ask(&g, "GET", "/locked/", ""), 403);
    assert_int_equal(files_ask(&g, "GET", "/half/", ""), 403);

    /* A folder that cannot be entered is not taken at all. */
    tnl_files *f;
    char detail[256];
    assert_int_equal(
        tnl_files_new(&f, r.l.loop, files_rig_path(&r, "locked"), detail, sizeof(detail)),
        TUNNEL_E_ACCESS);
    assert_non_null(strstr(detail, "locked: permission denied"));
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(files_rig_path(&r, "locked"), 0755), 0);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void opening(void **state)
{
    (void)state;
    files_rig r;
    tnl_files *f;
    char detail[256];
    files_rig_open(&r);
    files_rig_put(&r, "a", "x");
    assert_int_equal(tnl_files_new(&f, r.l.loop, "/nowhere/at\nall", detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_string_equal(detail, "there is no folder /nowhere/at?all");
    assert_int_equal(tnl_files_new(&f, r.l.loop, "", detail, sizeof(detail)), TUNNEL_E_NOT_FOUND);
    assert_int_equal(tnl_files_new(&f, r.l.loop, files_rig_path(&r, "a"), detail, sizeof(detail)),
                     TUNNEL_E_INVALID);
    assert_non_null(strstr(detail, "a is not a folder"));
    assert_int_equal(tnl_files_new(&f, r.l.loop, files_rig_path(&r, "a"), NULL, 0),
                     TUNNEL_E_INVALID);
    files_rig_close(&r);
}

/* Builds make a folder anew: the new one is served, without a restart, also when the path was
 * relative and the current directory is another by now. */
static void folder_made_anew(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    char before[1024];
    bool gone = false;
    files_rig_open(&r);
    assert_non_null(getcwd(before, sizeof(before)));
    tnl_files *first = r.files;
    assert_int_equal(chdir(r.top), 0);
    assert_int_equal(tnl_files_new(&r.files, r.l.loop, "served", NULL, 0), 0);
    assert_int_equal(chdir(before), 0);
    tnl_files_free(first, NULL, &gone);

    files_rig_put(&r, "a", "old");
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/a", ""), 200);
    assert_int_equal(rename(r.dir, files_rig_path(&r, "../moved")), 0);
    assert_int_equal(files_ask(&g, "GET", "/a", ""), 200);
    assert_true(files_body_is(&g, "old"));
    assert_int_equal(mkdir(r.dir, 0755), 0);
    files_rig_put(&r, "a", "new");
    assert_int_equal(files_ask(&g, "GET", "/a", ""), 200);
    assert_true(files_body_is(&g, "new"));
    assert_int_equal(unlink(files_rig_path(&r, "a")), 0);
    assert_int_equal(rmdir(r.dir), 0);
    assert_int_equal(files_ask(&g, "GET", "/a", ""), 404);
    assert_int_equal(mkdir(r.dir, 0755), 0);
    files_rig_put(&r, "a", "newest");
    assert_int_equal(files_ask(&g, "GET", "/a", ""), 200);
    assert_true(files_body_is(&g, "newest"));
    files_guest_close(&g);
    files_rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file),
        cmocka_unit_test(large_file),
        cmocka_unit_test(types),
        cmocka_unit_test(folders),
        cmocka_unit_test(listing),
        cmocka_unit_test(large_listing),
        cmocka_unit_test(methods),
        cmocka_unit_test(pages),
        cmocka_unit_test(forbidden),
        cmocka_unit_test(opening),
        cmocka_unit_test(folder_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
