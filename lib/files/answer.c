/* SPDX-License-Identifier: Apache-2.0 */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "files/condition.h"
#include "files/date.h"
#include "files/internal.h"
#include "files/listing.h"
#include "files/path.h"
#include "files/type.h"
#include "http/head_write.h"
#include "tunnel/error.h"

#define POLICY                                                                                     \
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "         \
    "frame-ancestors 'none'"

enum { MAX_FIELDS = 12, LINE = 200 };

/* An answer in the making. */
typedef struct answer {
    tnl_files_conn *c;
    const tnl_http_head *h; /* NULL: there is no request */
    int64_t now;
    tnl_files_path path;
    tnl_files_state state;
    tnl_http_field fields[MAX_FIELDS];
    size_t n;
    char date[TNL_FILES_DATE], modified[TNL_FILES_DATE];
    char range[80];
    char type[LINE];
    tnl_buf location;
} answer;

static void add_field(answer *a, const char *name, const char *value)
{
    if (*value && a->n < MAX_FIELDS)
        a->fields[a->n++] = (tnl_http_field){{name, strlen(name)}, {value, strlen(value)}};
}

static tnl_http_reply reply_of(const answer *a, int status)
{
    return (tnl_http_reply){.status = status,
                            .fields = a->fields,
                            .field_count = a->n,
                            .minor = a->h ? a->h->minor : 1,
                            .head_request = a->h && tnl_http_is(a->h->method, "HEAD"),
                            .close = a->c->close_after};
}

/* --- pages ------------------------------------------------------------------------------------ */

static int page(answer *a, int status, const char *text)
{
    add_field(a, "Content-Security-Policy", POLICY);
    if (status == 503)
        add_field(a, "Retry-After", "2");
    tnl_http_reply r = reply_of(a, status);
    return tnl_http_write_page(&a->c->out, &r, text);
}

static int not_found(answer *a)
{
    return page(a, 404, "There is no such file or folder here.");
}

/* For what could not be opened or read. */
static int failed(answer *a, int error)
{
    char text[LINE];
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case EINVAL:
        return not_found(a);
    case EACCES:
    case EPERM:
        return page(a, 403,
                    "It is there, but the program that serves this folder may not read it.");
    case EXDEV:
    case ELOOP:
        return page(a, 403,
                    "This is a link that leads out of the folder that is served, or in a circle.");
    case ENXIO: /* a socket */
    case ENODEV:
        return page(a, 403, "This is neither a file nor a folder.");
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN:
        return page(a, 503, "Too much is going on here at the moment. Please try again.");
    default:
        snprintf(text, sizeof(text), "It is there, but cannot be read: %s.", strerror(error));
        return page(a, 500, text);
    }
}

static int refuse_path(answer *a, int status)
{
    if (status == 400)
        return page(a, status, "This address is not well-formed.");
    return status == 414 ? page(a, status, "This address is too long.") : not_found(a);
}

/* --- files ------------------------------------------------------------------------------------ */

static void add_state(answer *a)
{
    add_field(a, "Cache-Control", "no-cache"); /* keep it, but ask whether it is still so */
    add_field(a, "ETag", a->state.etag);
    /* Never later than now (RFC 9110 section 8.8.2.1). */
    int64_t modified = a->state.modified < a->now ? a->state.modified : a->now;
    if (a->state.dated && tnl_files_date(a->modified, modified))
        add_field(a, "Last-Modified", a->modified);
}

/* The preconditions do not hold. */
static int conditional(answer *a, int status)
{
    if (status == 412)
        return page(a, status, "The file is not, or no longer, in the state asked for.");
    add_state(a);
    tnl_http_reply r = reply_of(a, status);
    return tnl_http_write_reply(&a->c->out, &r, NULL, 0);
}

static int out_of_range(answer *a, uint64_t size)
{
    char text[LINE];
    snprintf(a->range, sizeof(a->range), "bytes */%" PRIu64, size);
    add_field(a, "Content-Range", a->range);
    snprintf(text, sizeof(text),
             "Nothing of what was asked for is in the %" PRIu64 " bytes of this file.", size);
    return page(a, 416, text);
}

/* What of the file is asked for: as tnl_files_ranges(). */
static int ranges_of(const answer *a, uint64_t size, tnl_files_range *ranges)
{
    const tnl_http_field *f = tnl_files_single(a->h, "Range");
    if (!f || !tnl_http_is(a->h->method, "GET") || !tnl_files_if_range(a->h, &a->state, a->now))
        return 0;
    return tnl_files_ranges(f->value, size, ranges);
}

/* Sends the file, or parts of it. Takes the descriptor. */
static int send_file(answer *a, int fd, uint64_t size, const char *type)
{
    tnl_files_range ranges[TNL_FILES_RANGES];
    tnl_files_body *b = &a->c->body;
    int n = ranges_of(a, size, ranges);
    int rc;

    add_field(a, "Accept-Ranges", "bytes");
    if (n < 0) {
        close(fd);
        return out_of_range(a, size);
    }
    int status = n ? 206 : 200;
    if (!n && size)
        ranges[n++] = (tnl_files_range){0, size};
    tnl_files_body_begin(b, fd, type, size, ranges, (size_t)n);
    snprintf(a->type, sizeof(a->type), "%s", type);
    if (n > 1) {
        tnl_files_body_split(b);
        snprintf(a->type, sizeof(a->type), "multipart/byteranges; boundary=%s", b->boundary);
    } else if (status == 206) {
        snprintf(a->range, sizeof(a->range), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
                 ranges[0].first, ranges[0].first + ranges[0].length - 1, size);
        add_field(a, "Content-Range", a->range);
    }
    add_state(a);
    tnl_http_reply r = reply_of(a, status);
    r.content_type = a->type;
    rc = tnl_http_write_reply_head(&a->c->out, &r, tnl_files_body_length(b));
    if (r.head_request)
        tnl_files_body_end(b);
    return rc ? rc : tnl_files_body_first(b, &a->c->out);
}

/* An open regular file. Takes the descriptor. */
static int answer_file(answer *a, int fd, const struct stat *st, const char *name)
{
    uint64_t size = (uint64_t)st->st_size;
    a->state = tnl_files_state_of((uint64_t)st->st_ino, size, (int64_t)st->st_mtim.tv_sec,
                                  st->st_mtim.tv_nsec);
    int status = tnl_files_precondition(a->h, &a->state, a->now);
    if (status) {
        close(fd);
        return conditional(a, status);
    }
    return send_file(a, fd, size, tnl_files_type(name));
}

/* --- folders ---------------------------------------------------------------------------------- */

/* Relative, so that it is right behind any prefix; encoded, so that it is never another host. */
static int redirect(answer *a)
{
    const char *name = tnl_files_path_last(&a->path);
    int rc;

    tnl_buf_init(&a->location, 64 * 1024);
    if ((rc = tnl_files_encode(&a->location, name, strlen(name))) ||
        (rc = tnl_buf_adds(&a->location, "/")) ||
        (rc = tnl_buf_add(&a->location, a->path.query.p, a->path.query.n)) ||
        (rc = tnl_buf_add(&a->location, "", 1)))
        goto done;
    add_field(a, "Location", (const char *)tnl_buf_bytes(&a->location));
    rc = page(a, 308, "This is a folder: its address ends with a slash.");
done:
    tnl_buf_free(&a->location);
    return rc;
}

/* Takes the descriptor of the folder. */
static int answer_listing(answer *a, int fd)
{
    tnl_files_conn *c = a->c;
    tnl_files *f = c->owner;
    tnl_buf text;
    int status = tnl_files_precondition(a->h, &a->state, a->now);

    if (status || f->listings + TNL_LISTING_BYTES > TNL_LISTING_TOTAL) {
        close(fd);
        return status ? conditional(a, status) : failed(a, EAGAIN);
    }
    tnl_buf_init(&text, TNL_LISTING_BYTES);
    int rc = tnl_files_list(&text, &f->folder, &a->path, fd);
    if (rc == TUNNEL_E_IO) {
        rc = failed(a, EIO);
    } else if (!rc) {
        add_field(a, "Cache-Control", "no-cache");
        add_field(a, "Content-Security-Policy", POLICY);
        tnl_http_reply r = reply_of(a, 200);
        r.content_type = "text/html; charset=utf-8";
        rc = tnl_http_write_reply(&c->out, &r, tnl_buf_bytes(&text), tnl_buf_len(&text));
        c->listing = tnl_buf_len(&c->out);
        f->listings += c->listing;
    }
    tnl_buf_free(&text);
    return rc;
}

/* Tries "index.html" in the folder. True when that is the answer, with *rc. */
static bool answer_index(answer *a, int *rc)
{
    static const char name[] = "index.html";
    char whole[TNL_FILES_PATH + sizeof(name) + 1];
    struct stat st;

    snprintf(whole, sizeof(whole), "%s%s%s", a->path.text, a->path.n ? "/" : "", name);
    int fd = tnl_folder_at(&a->c->owner->folder, whole, O_RDONLY);
    if (fd < 0) {
        int error = errno;
        if (error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG)
            return false;
        *rc = failed(a, error);
        return true;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *rc = answer_file(a, fd, &st, name);
        return true;
    }
    close(fd);
    return false;
}

/* --- requests --------------------------------------------------------------------------------- */

static int answer_path(answer *a)
{
    struct stat st;
    int rc = 0;
    int status = tnl_files_path_parse(&a->path, a->h->path);
    if (status)
        return refuse_path(a, status);
    tnl_folder_refresh(&a->c->owner->folder);
    if (a->path.folder && answer_index(a, &rc))
        return rc;
    int fd = tnl_folder_at(&a->c->owner->folder, a->path.text, O_RDONLY);
    if (fd < 0)
        return failed(a, errno);
    if (fstat(fd, &st)) {
        int error = errno;
        close(fd);
        return failed(a, error);
    }
    if (S_ISDIR(st.st_mode) && a->path.folder)
        return answer_listing(a, fd);
    if (S_ISREG(st.st_mode) && !a->path.folder)
        return answer_file(a, fd, &st, tnl_files_path_last(&a->path));
    close(fd);
    if (S_ISDIR(st.st_mode))
        return redirect(a);
    return S_ISREG(st.st_mode) ? not_found(a) : failed(a, ENODEV);
}

int tnl_files_answer(tnl_files_conn *c)
{
    answer a = {.c = c, .h = c->head, .now = (int64_t)time(NULL)};
    c->close_after = c->close_after || c->owner->freed;
    if (tnl_files_date(a.date, a.now))
        add_field(&a, "Date", a.date);
    add_field(&a, "X-Content-Type-Options", "nosniff");
    if (c->refusal == 408)
        return page(&a, 408, "The request was not complete in time.");
    if (c->refusal)
        return page(&a, c->refusal, tnl_http_why(c->parser));
    if (tnl_http_is(a.h->method, "GET") || tnl_http_is(a.h->method, "HEAD"))
        return answer_path(&a);
    add_field(&a, "Allow", "GET, HEAD");
    return page(&a, 405, "Files can only be read here, with GET and HEAD.");
}
