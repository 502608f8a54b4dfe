/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "files/internal.h"
#include "files/path.h"
#include "support/check.h"
#include "support/files_rig.h"

/* There is no way out of a folder that is served, with openat2 or without it. */

static void targets(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        int status;
        const char *path;
        bool folder;
    } cases[] = {
        {"/", 0, "", true},
        {"//", 0, "", true},
        {"/?x", 0, "", true},
        {"/a", 0, "a", false},
        {"/a/", 0, "a", true},
        {"/a//b", 0, "a/b", false},
        {"//a///b//", 0, "a/b", true},
        {"/a%20b%C3%bc", 0, "a b\xc3\xbc", false},
        {"/a+b", 0, "a+b", false},
        {"/%61%2e%62", 0, "a.b", false},
        {"/a%3Fb?c%00", 0, "a?b", false},
        {"/a%5cb\\c", 0, "a\\b\\c", false},
        {"/a/...b", 404, NULL, false},
        {"/.well-known", 0, ".well-known", false},
        {"/.well-known/x/y", 0, ".well-known/x/y", false},
        {"/%2ewell-known/x", 0, ".well-known/x", false},
        {"/.well-known/.x", 404, NULL, false},
        {"/.well-known/../x", 404, NULL, false},
        {"/.well-knowns/x", 404, NULL, false},
        {"/a/.well-known/x", 404, NULL, false},
        {"/.git/config", 404, NULL, false},
        {"/a/.hidden", 404, NULL, false},
        {"/a/%2Ehidden", 404, NULL, false},
        {"/.", 404, NULL, false},
        {"/..", 404, NULL, false},
        {"/a/./b", 404, NULL, false},
        {"/a/../b", 404, NULL, false},
        {"/../etc/passwd", 404, NULL, false},
        {"//../etc/passwd", 404, NULL, false},
        {"/%2e%2e/etc/passwd", 404, NULL, false},
        {"/.%2E/etc/passwd", 404, NULL, false},
        {"/%2e./etc/passwd", 404, NULL, false},
        {"/..%2fetc/passwd", 404, NULL, false},
        {"/a%2f..%2f..%2fetc%2fpasswd", 404, NULL, false},
        {"/%2fetc/passwd", 404, NULL, false},
        {"/a%2Fb", 404, NULL, false},
        {"/%2F", 404, NULL, false},
        {"/%252e%252e/a", 0, "%2e%2e/a", false},
        {"/..;/a", 404, NULL, false},
        {"/%", 400, NULL, false},
        {"/%4", 400, NULL, false},
        {"/%4g", 400, NULL, false},
        {"/%g4", 400, NULL, false},
        {"/%-1", 400, NULL, false},
        {"/%00", 400, NULL, false},
        {"/a%00.txt", 400, NULL, false},
        {"/../%00", 400, NULL, false},
        {"/%u002e", 400, NULL, false},
        {"/%c0%ae%c0%ae/a", 0, "\xc0\xae\xc0\xae/a", false},
        {"", 400, NULL, false},
        {"a", 400, NULL, false},
        {"*", 400, NULL, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        /* Of exactly its size, so that a sanitizer sees a read past the end. */
        size_t n = strlen(cases[i].target);
        char *copy = malloc(n ? n : 1);
        tnl_files_path path;
        memcpy(copy, cases[i].target, n);
        int status = tnl_files_path_parse(&path, (tnl_http_span){copy, n});
        free(copy);
        if (status != cases[i].status)
            fail_msg("%s: %d", cases[i].target, status);
        if (status)
            continue;
        assert_string_equal(path.text, cases[i].path);
        assert_int_equal(path.n, strlen(cases[i].path));
        assert_int_equal(path.folder, cases[i].folder);
    }
    tnl_files_path path;
    const char *with_query = "/a?b=/c?d";
    assert_int_equal(tnl_files_path_parse(&path, (tnl_http_span){with_query, 9}), 0);
    assert_int_equal(path.query.n, 7);
    assert_memory_equal(path.query.p, "?b=/c?d", 7);
}

static void long_targets(void **state)
{
    (void)state;
    char text[TNL_FILES_PATH + 8];
    tnl_files_path path;
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    tnl_http_span longest = {text, TNL_FILES_PATH - 1};
    assert_int_equal(tnl_files_path_parse(&path, longest), 0);
    assert_int_equal(path.n, TNL_FILES_PATH - 2);
    longest.n++;
    assert_int_equal(tnl_files_path_parse(&path, longest), 414);
}

static void build(const files_rig *r)
{
    files_rig_put(r, "../outside.txt", "SECRET");
    files_rig_put(r, "../served-not/x", "SECRET");
    files_rig_put(r, "in.txt", "inside");
    files_rig_put(r, "sub/deep/in.txt", "inside");
    files_rig_put(r, ".hidden", "SECRET");
    files_rig_put(r, ".git/config", "SECRET");
    files_rig_put(r, "sub/.env", "SECRET");
    files_rig_put(r, ".well-known/acme-challenge/token", "inside");
    files_rig_put(r, ".well-known/.secret", "SECRET");
    files_rig_put(r, "back\\slash", "inside");
    files_rig_put(r, "%2e%2e/in.txt", "inside");
    files_rig_link(r, "../outside.txt", "out-file");
    files_rig_link(r, "..", "out-folder");
    files_rig_link(r, "/etc", "etc");
    files_rig_link(r, "/etc/passwd", "passwd");
    files_rig_link(r, "../../outside.txt", "sub/out-file");
    files_rig_link(r, "../../served/in.txt", "sub/out-and-in");
    files_rig_link(r, "/proc/self/root", "magic");
    files_rig_link(r, "/proc/self/cwd", "magic2");
    files_rig_link(r, "circle", "circle");
    files_rig_link(r, "out-folder/outside.txt", "by-another");
    files_rig_link(r, "../../outside.txt", "linked/index.html");
    files_rig_link(r, "../in.txt", "sub/link");
    files_rig_link(r, "sub", "link-to-sub");
    assert_int_equal(mkfifo(files_rig_path(r, "fifo"), 0666), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", files_rig_path(r, "socket"));
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    close(fd);
}

/* Whatever is asked for: an error, and not a word of what is outside. */
static void no_way_out(files_rig *r)
{
    static const char *const attempts[] = {
        "/../outside.txt",
        "/..%2foutside.txt",
        "/%2e%2e/outside.txt",
        "/%2e%2e%2foutside.txt",
        "/.%2e/outside.txt",
        "/sub/../../outside.txt",
        "/sub/%2e%2e/%2e%2e/outside.txt",
        "/sub/..%2f..%2foutside.txt",
        "/sub/deep/../../../outside.txt",
        "/./../outside.txt",
        "//../outside.txt",
        "/..//outside.txt",
        "/..\\outside.txt",
        "/..%5coutside.txt",
        "/%5c..%5coutside.txt",
        "/....//outside.txt",
        "/..;/outside.txt",
        "/%252e%252e/outside.txt",
        "/%c0%ae%c0%ae/outside.txt",
        "/%c0%2e%c0%2e/outside.txt",
        "/%e0%80%ae%e0%80%ae/outside.txt",
        "/..%00/outside.txt",
        "/..%c0%af/outside.txt",
        "/in.txt/../../outside.txt",
        "/nothing/../../outside.txt",
        "/../served-not/x",
        "/..%2fserved-not/x",
        "http://x/../outside.txt",
        "http://x//../outside.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/%2Fetc%2Fpasswd",
        "/passwd",
        "/etc",
        "/etc/",
        "/etc/hostname",
        "/out-file",
        "/out-folder",
        "/out-folder/",
        "/out-folder/outside.txt",
        "/out-folder/served/in.txt",
        "/sub/out-file",
        "/sub/out-and-in",
        "/by-another",
        "/magic",
        "/magic/etc/passwd",
        "/magic2",
        "/magic2/outside.txt",
        "/circle",
        "/linked/",
        "/.hidden",
        "/%2ehidden",
        "/.git/config",
        "/.git/",
        "/.git",
        "/sub/.env",
        "/sub/%2Eenv",
        "/.well-known/.secret",
        "/.well-known/../.hidden",
        "/.well-known/../../outside.txt",
        "/fifo",
        "/fifo/",
        "/socket",
    };
    for (size_t i = 0; i < sizeof(attempts) / sizeof(*attempts); i++) {
        files_guest g;
        files_guest_open(&g, r);
        int status = files_ask(&g, "GET", attempts[i], "");
        if ((status != 400 && status != 403 && status != 404) || files_body_has(&g, "SECRET") ||
            files_body_has(&g, "root:"))
            fail_msg("%s: %d: %.*s", attempts[i], status, (int)g.reply.n, g.reply.body);
        files_guest_close(&g);
    }
}

static void what_is_inside(files_rig *r, bool links)
{
    static const char *const fine[] = {"/in.txt",
                                       "/sub/deep/in.txt",
                                       "/sub//deep///in.txt",
                                       "/%69n.txt",
                                       "/.well-known/acme-challenge/token",
                                       "/back%5Cslash",
                                       "/back\\slash",
                                       "/%252e%252e/in.txt",
                                       "http://x/in.txt"};
    static const char *const by_links[] = {"/sub/link", "/link-to-sub/deep/in.txt"};
    files_guest g;
    files_guest_open(&g, r);
    for (size_t i = 0; i < sizeof(fine) / sizeof(*fine); i++) {
        if (files_ask(&g, "GET", fine[i], "") != 200 || !files_body_is(&g, "inside"))
            fail_msg("%s: %d", fine[i], g.reply.status);
    }
    for (size_t i = 0; i < sizeof(by_links) / sizeof(*by_links); i++) {
        int status = files_ask(&g, "GET", by_links[i], "");
        assert_true(links ? status == 200 : status == 403 || status == 404);
    }
    /* A listing names what can be had. */
    assert_int_equal(files_ask(&g, "GET", "/", ""), 200);
    assert_true(files_body_has(&g, "\"in.txt\""));
    assert_int_equal(files_body_has(&g, "\"link-to-sub/\""), links);
    static const char *const absent[] = {"out-file", "out-folder", "etc",        "passwd",
                                         "magic",    "circle",     "by-another", "fifo",
                                         "socket",   ".hidden",    ".git",       ".well-known"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(*absent); i++)
        if (files_body_has(&g, absent[i]))
            fail_msg("listed: %s", absent[i]);
    assert_int_equal(files_ask(&g, "GET", "/.well-known/", ""), 200);
    assert_true(files_body_has(&g, "acme-challenge/"));
    assert_false(files_body_has(&g, ".secret"));
    files_guest_close(&g);
}

static void inside(bool walk)
{
    files_rig r;
    files_rig_open(&r);
    build(&r);
    if (walk)
        r.files->folder.walk = true;
    no_way_out(&r);
    what_is_inside(&r, !r.files->folder.walk);
    files_rig_close(&r);
}

static void with_openat2(void **state)
{
    (void)state;
    inside(false);
}

static void without_openat2(void **state)
{
    (void)state;
    inside(true);
}

/* The served folder itself may be named by a link. */
static void folder_by_link(void **state)
{
    (void)state;
    files_rig r;
    files_rig_open(&r);
    build(&r);
    files_rig_link(&r, "served", "../named");
    tnl_files *first = r.files;
    assert_int_equal(tnl_files_new(&r.files, r.l.loop, files_rig_path(&r, "../named"), NULL, 0), 0);
    tnl_files_free(first, NULL, NULL);
    assert_int_equal(files_status(&r, "/in.txt"), 200);
    no_way_out(&r);
    files_rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets),        cmocka_unit_test(long_targets),
        cmocka_unit_test(with_openat2),   cmocka_unit_test(without_openat2),
        cmocka_unit_test(folder_by_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
