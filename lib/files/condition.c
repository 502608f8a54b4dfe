/* SPDX-License-Identifier: Apache-2.0 */
#include "files/condition.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "files/date.h"

/* Spreads the bits; one to one. */
static uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

tnl_files_state tnl_files_state_of(uint64_t inode, uint64_t size, int64_t seconds, long nanoseconds)
{
    tnl_files_state s = {.dated = seconds >= 0, .modified = seconds};
    uint64_t time = (uint64_t)seconds * 1000000000U + (uint64_t)nanoseconds;
    /* Mixed, as inode numbers are nobody's business. */
    snprintf(s.etag, sizeof(s.etag), "\"%016" PRIx64 "-%" PRIx64 "\"", mixed(mixed(inode) + time),
             size);
    return s;
}

const tnl_http_field *tnl_files_single(const tnl_http_head *h, const char *name)
{
    const tnl_http_field *found = NULL;
    for (size_t i = 0; i < h->field_count; i++) {
        if (!tnl_http_is(h->fields[i].name, name))
            continue;
        if (found)
            return NULL;
        found = &h->fields[i];
    }
    return found;
}

/* --- entity tags ------------------------------------------------------------------------------ */

/* Takes a tag with its quotes off the list. False when none is there. */
static bool take_tag(tnl_http_span *list, bool *weak, tnl_http_span *tag)
{
    tnl_http_span s = *list;
    *weak = s.n > 1 && s.p[0] == 'W' && s.p[1] == '/';
    if (*weak) {
        s.p += 2;
        s.n -= 2;
    }
    if (s.n < 2 || s.p[0] != '"')
        return false;
    const char *end = memchr(s.p + 1, '"', s.n - 1);
    if (!end)
        return false;
    *tag = (tnl_http_span){s.p, (size_t)(end - s.p) + 1};
    *list = (tnl_http_span){end + 1, s.n - tag->n};
    return true;
}

static bool is_tag(tnl_http_span tag, const char *text)
{
    return *text && tag.n == strlen(text) && memcmp(tag.p, text, tag.n) == 0;
}

/* Whether a list of tags, or "*", names the state. What is malformed ends the list. */
static bool list_names(tnl_http_span list, const tnl_files_state *s, bool strong)
{
    if (list.n == 1 && list.p[0] == '*')
        return true;
    while (list.n) {
        bool weak;
        tnl_http_span tag;
        if (list.p[0] == ' ' || list.p[0] == '\t' || list.p[0] == ',') {
            list.p++;
            list.n--;
            continue;
        }
        if (!take_tag(&list, &weak, &tag))
            return false;
        if (is_tag(tag, s->etag) && !(strong && weak))
            return true;
    }
    return false;
}

/* Sets *there when there is such a field at all. */
static bool fields_name(const tnl_http_head *h, const char *name, const tnl_files_state *s,
                        bool strong, bool *there)
{
    bool named = false;
    *there = false;
    for (size_t i = 0; i < h->field_count; i++) {
        if (!tnl_http_is(h->fields[i].name, name))
            continue;
        *there = true;
        named = named || list_names(h->fields[i].value, s, strong);
    }
    return named;
}

/* --- conditions ------------------------------------------------------------------------------- */

static bool date_of(const tnl_http_head *h, const char *name, int64_t now, int64_t *t)
{
    const tnl_http_field *f = tnl_files_single(h, name);
    return f && tnl_files_date_parse(f->value, now, t);
}

int tnl_files_precondition(const tnl_http_head *h, const tnl_files_state *s, int64_t now)
{
    bool there;
    int64_t t;

    bool named = fields_name(h, "If-Match", s, true, &there);
    if (there && !named)
        return 412;
    if (!there && s->dated && date_of(h, "If-Unmodified-Since", now, &t) && s->modified > t)
        return 412;
    named = fields_name(h, "If-None-Match", s, false, &there);
    if (there)
        return named ? 304 : 0;
    if (s->dated && date_of(h, "If-Modified-Since", now, &t) && s->modified <= t)
        return 304;
    return 0;
}

bool tnl_files_if_range(const tnl_http_head *h, const tnl_files_state *s, int64_t now)
{
    if (!tnl_http_find(h, "If-Range"))
        return true;
    const tnl_http_field *f = tnl_files_single(h, "If-Range");
    if (!f)
        return false;
    bool weak;
    int64_t t;
    tnl_http_span rest = f->value, tag;
    if (take_tag(&rest, &weak, &tag))
        return !weak && rest.n == 0 && is_tag(tag, s->etag);
    /* A date is as good as a tag only when the file cannot have changed again within that second.
     */
    return s->dated && tnl_files_date_parse(f->value, now, &t) && t == s->modified && t + 1 < now;
}
