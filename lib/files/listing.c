/* SPDX-License-Identifier: Apache-2.0 */
#define _FILE_OFFSET_BITS 64
#include "files/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "files/date.h"
#include "tunnel/error.h"

/* Room that is kept for the end of the page. */
enum { PAGE_END = 512 };

typedef struct entry {
    size_t name; /* where it begins among the names */
    uint64_t size;
    int64_t modified;
    bool folder;
} entry;

typedef struct entries {
    entry *all;
    size_t count, room;
    tnl_buf names; /* each with its NUL */
    bool more;     /* there are others */
} entries;

/* --- reading ---------------------------------------------------------------------------------- */

/* What a link leads to, if that is inside. */
static bool follow(const tnl_folder *f, const tnl_files_path *path, const char *name,
                   struct stat *st)
{
    char whole[TNL_FILES_PATH + sizeof(((struct dirent *)0)->d_name) + 1];
    snprintf(whole, sizeof(whole), "%s%s%s", path->text, path->n ? "/" : "", name);
    int fd = tnl_folder_at(f, whole, O_PATH);
    if (fd < 0)
        return false;
    bool ok = fstat(fd, st) == 0;
    close(fd);
    return ok;
}

static int add_entry(entries *e, const char *name, const struct stat *st)
{
    if (e->count == e->room) {
        size_t room = e->room ? 2 * e->room : 64;
        entry *all = tnl_realloc(e->all, room * sizeof(*all));
        if (!all)
            return TUNNEL_E_NOMEM;
        e->all = all;
        e->room = room;
    }
    size_t at = tnl_buf_len(&e->names);
    int rc = tnl_buf_add(&e->names, name, strlen(name) + 1);
    if (rc)
        return rc;
    e->all[e->count++] = (entry){.name = at,
                                 .size = (uint64_t)st->st_size,
                                 .modified = (int64_t)st->st_mtime,
                                 .folder = S_ISDIR(st->st_mode)};
    return 0;
}

/* 0, or a TUNNEL_E_ code; LIMIT when the names are too many. */
static int take(entries *e, const tnl_folder *f, const tnl_files_path *path, DIR *dir,
                const char *name)
{
    struct stat st;
    if (tnl_files_is_hidden(name) || fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW))
        return 0;
    if (S_ISLNK(st.st_mode) && !follow(f, path, name, &st))
        return 0;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return 0;
    return e->count == TNL_LISTING_ENTRIES ? TUNNEL_E_LIMIT : add_entry(e, name, &st);
}

static int read_all(entries *e, const tnl_folder *f, const tnl_files_path *path, DIR *dir)
{
    for (size_t seen = 0;; seen++) {
        errno = 0;
        const struct dirent *d = readdir(dir);
        if (!d)
            return errno ? TUNNEL_E_IO : 0;
        int rc = seen == TNL_LISTING_SEEN ? TUNNEL_E_LIMIT : take(e, f, path, dir, d->d_name);
        e->more = rc == TUNNEL_E_LIMIT;
        if (rc)
            return e->more ? 0 : rc;
    }
}

static char folded(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Folders first; capital letters beside small ones, but two names are never equal. */
static int compare(const void *one, const void *two, void *user)
{
    const entry *a = one, *b = two;
    const char *names = user, *x = names + a->name, *y = names + b->name;
    if (a->folder != b->folder)
        return a->folder ? -1 : 1;
    while (*x && folded(*x) == folded(*y)) {
        x++;
        y++;
    }
    int difference = (unsigned char)folded(*x) - (unsigned char)folded(*y);
    return difference ? difference : strcmp(names + a->name, names + b->name);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Bytes of the character at s. *shown is false for what is not UTF-8 (byte by byte), and for what
 * would act on its surroundings: control characters, those that turn the direction of writing. */
static size_t character(const char *s, bool *shown)
{
    static const unsigned least[] = {0, 0x20, 0xa0, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    unsigned code = n == 1 ? p[0] : p[0] & (0x7fU >> n);

    *shown = false;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 1;
        code = code << 6 | (p[i] & 0x3fU);
    }
    if (p[0] == 0x7f || (n == 1 && code < least[n]))
        return 1;
    if ((n > 1 && p[0] < 0xc2) || p[0] > 0xf4 || code > 0x10ffff || (n > 2 && code < least[n]) ||
        (code >= 0xd800 && code < 0xe000))
        return 1;
    *shown = code >= least[n] && !(code >= 0x202a && code <= 0x202e) &&
             !(code >= 0x2066 && code <= 0x2069);
    return n;
}

static int add_escaped(tnl_buf *page, const char *s)
{
    int rc = 0;
    while (*s && !rc) {
        bool shown;
        size_t n = character(s, &shown);
        if (!shown)
            rc = tnl_buf_adds(page, "\xef\xbf\xbd");
        else if (strchr("&<>\"'", *s))
            rc = tnl_buf_addf(page, "&#%d;", *s);
        else
            rc = tnl_buf_add(page, s, n);
        s += n;
    }
    return rc;
}

static int add_size(tnl_buf *page, uint64_t size)
{
    static const char units[] = "KMGTPE";
    size_t unit = 0;
    if (size < 1024)
        return tnl_buf_addf(page, "%u B", (unsigned)size);
    while (size >= (uint64_t)1024 * 1024) {
        size >>= 10;
        unit++;
    }
    return tnl_buf_addf(page, "%.1f %ciB", (double)size / 1024.0, units[unit]);
}

static int add_row(tnl_buf *page, const entries *e, const entry *one)
{
    const char *name = (const char *)tnl_buf_bytes(&e->names) + one->name;
    const char *slash = one->folder ? "/" : "";
    char date[TNL_FILES_DATE];
    int rc;

    tnl_files_date_plain(date, one->modified);
    if ((rc = tnl_buf_adds(page, "<tr><td><a href=\"")) ||
        (rc = tnl_files_encode(page, name, strlen(name))) ||
        (rc = tnl_buf_addf(page, "%s\"><bdi>", slash)) || (rc = add_escaped(page, name)) ||
        (rc = tnl_buf_addf(page, "%s</bdi></a><td>", slash)) ||
        (!one->folder && (rc = add_size(page, one->size))))
        return rc;
    return tnl_buf_addf(page, "<td>%s\n", date);
}

static int add_begin(tnl_buf *page, const tnl_files_path *path, bool empty)
{
    const char *slash = path->n ? "/" : "";
    int rc;

    if ((rc = tnl_buf_adds(page,
                           "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                           "<meta name=\"viewport\" content=\"width=device-width\">\n"
                           "<title>/")) ||
        (rc = add_escaped(page, path->text)) ||
        (rc = tnl_buf_addf(
             page,
             "%s</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em "
             "auto;padding:0 1em}h1{font-size:1.25em;overflow-wrap:anywhere}th{text-align:left}"
             "th,td{padding:0 1.5em 0 0;vertical-align:top}td:first-child{overflow-wrap:anywhere}"
             "td:nth-child(n+2){white-space:nowrap}:root{color-scheme:light dark}</style>\n</head>\n"
             "<body>\n<h1>/",
             slash)) ||
        (rc = add_escaped(page, path->text)) || (rc = tnl_buf_addf(page, "%s</h1>\n", slash)))
        return rc;
    if (path->n && (rc = tnl_buf_adds(page, "<p><a href=\"../\">Up</a></p>\n")))
        return rc;
    if (empty)
        return tnl_buf_adds(page, "<p>This folder is empty.</p>\n");
    return tnl_buf_adds(page, "<table>\n<tr><th scope=\"col\">Name<th scope=\"col\">Size"
                              "<th scope=\"col\">Changed (UTC)\n");
}

static int add_page(tnl_buf *page, const entries *e, const tnl_files_path *path)
{
    size_t shown = 0;
    int rc = add_begin(page, path, e->count == 0);
    for (; !rc && shown < e->count; shown++) {
        size_t before = tnl_buf_len(page);
        rc = add_row(page, e, &e->all[shown]);
        if (rc && rc != TUNNEL_E_LIMIT)
            return rc;
        if (rc == 0 && tnl_buf_len(page) + PAGE_END <= page->max)
            continue;
        /* The page is full. */
        page->tail = page->head + before;
        rc = 0;
        break;
    }
    if (!rc && e->count)
        rc = tnl_buf_adds(page, "</table>\n");
    if (!rc && (e->more || shown < e->count))
        rc = tnl_buf_addf(page, "<p>There are more than these %zu; they are not shown.</p>\n",
                          shown);
    return rc ? rc : tnl_buf_adds(page, "</body>\n</html>\n");
}

int tnl_files_list(tnl_buf *page, const tnl_folder *f, const tnl_files_path *path, int fd)
{
    entries e = {.all = NULL};
    int rc;
    DIR *dir = fdopendir(fd);

    if (!dir) {
        rc = errno == ENOMEM ? TUNNEL_E_NOMEM : TUNNEL_E_IO;
        close(fd);
        return rc;
    }
    tnl_buf_init(&e.names, TNL_LISTING_NAMES);
    rc = read_all(&e, f, path, dir);
    if (!rc && e.count)
        qsort_r(e.all, e.count, sizeof(*e.all), compare, tnl_buf_bytes(&e.names));
    if (!rc)
        rc = add_page(page, &e, path);
    tnl_buf_free(&e.names);
    tnl_free(e.all);
    closedir(dir);
    return rc;
}
