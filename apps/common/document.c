/* SPDX-License-Identifier: Apache-2.0 */
#include "common/document.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "common/utf8.h"

struct document {
    yaml_document_t yaml;
    bool open;
};

/* --- reading ---------------------------------------------------------------------------------- */

/* A new text of *n bytes; NULL: a mistake was added. */
static char *read_all(int fd, size_t *n, mistakes *m)
{
    char *bytes = malloc(DOCUMENT_MAX + 1);
    *n = 0;
    for (ssize_t got = 1; bytes && got;) {
        got = read(fd, bytes + *n, DOCUMENT_MAX + 1 - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            add_mistake(m, 0, "cannot be read: %s", strerror(errno));
        *n += got > 0 ? (size_t)got : 0;
        if (*n > DOCUMENT_MAX)
            add_mistake(m, 0, "is too large: a configuration file has at most 1 MiB");
        if (got < 0 || *n > DOCUMENT_MAX) {
            free(bytes);
            return NULL;
        }
    }
    if (!bytes)
        add_mistake(m, 0, "out of memory");
    return bytes;
}

document *document_read(const char *path, mistakes *m)
{
    struct stat st;
    size_t n;
    char *bytes = NULL;
    document *d = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || S_ISDIR(st.st_mode))
        add_mistake(m, 0, "cannot be read: %s", strerror(fd < 0 ? errno : EISDIR));
    else if ((bytes = read_all(fd, &n, m)))
        d = document_parse(bytes, n, m);
    if (d)
        d->open = S_ISREG(st.st_mode) && (st.st_mode & S_IROTH);
    if (bytes)
        explicit_bzero(bytes, n);
    free(bytes);
    if (fd >= 0)
        close(fd);
    return d;
}

/* --- parsing ---------------------------------------------------------------------------------- */

/* libyaml's time grows with the square of the number of brackets, anchors, aliases, tags and
 * directives; no file for people has so many. */
enum { INDICATORS_MAX = 10000 };

static bool check_text(const char *bytes, size_t n, mistakes *m)
{
    size_t line = 1, indicators = 0;
    for (size_t i = 0; i < n;) {
        size_t used = utf8_length(bytes + i, n - i);
        if (used == 0 || bytes[i] == '\0') {
            add_mistake(m, line, "is not a text in UTF-8");
            return false;
        }
        line += bytes[i] == '\n';
        indicators += strchr("[{&*!%", bytes[i]) != NULL;
        if (indicators > INDICATORS_MAX) {
            add_mistake(m, line, "has too many of [ { & * ! %%: at most %d", INDICATORS_MAX);
            return false;
        }
        i += used;
    }
    return true;
}

/* The first letter of a line that is not a blank; tab: whether a tab stood before it. */
static char first_letter(const char *bytes, size_t n, size_t line, bool *tab)
{
    size_t i = 0;
    for (; line > 0 && i < n; i++)
        line -= bytes[i] == '\n';
    *tab = false;
    for (; i < n && (bytes[i] == ' ' || bytes[i] == '\t'); i++)
        *tab |= bytes[i] == '\t';
    return i < n ? bytes[i] : '\0';
}

static void add_syntax_mistake(const yaml_parser_t *p, const char *bytes, size_t n, mistakes *m)
{
    bool tab;
    const char *problem = p->problem ? p->problem : "it cannot be understood";
    const char *hint = "";
    size_t line = p->problem_mark.line;
    if (p->error == YAML_MEMORY_ERROR) {
        add_mistake(m, 0, "out of memory");
        return;
    }
    (void)first_letter(bytes, n, line, &tab);
    size_t at = p->problem_mark.index;
    char letter = at < n ? bytes[at] : '\0', before = at > 0 && at <= n ? bytes[at - 1] : '\0';
    if (tab)
        hint = "; indent with spaces, not with tabs";
    else if (p->error == YAML_SCANNER_ERROR &&
             ((letter && strchr("@`*%", letter)) || before == '*'))
        hint = "; put quotes around what begins with @, * or %";
    add_mistake(m, line + 1, "is not YAML: %s%s%s%s", p->context ? p->context : "",
                p->context ? ", " : "", problem, hint);
}

static bool only_one(yaml_parser_t *parser, mistakes *m)
{
    yaml_document_t second;
    if (!yaml_parser_load(parser, &second))
        return true; /* what follows the document cannot be read: said by the caller */
    yaml_node_t *root = yaml_document_get_root_node(&second);
    if (root)
        add_mistake(m, root->start_mark.line + 1,
                    "a second document begins here: a configuration file has one");
    yaml_document_delete(&second);
    return !root;
}

document *document_parse(const char *bytes, size_t n, mistakes *m)
{
    yaml_parser_t parser;
    if (!check_text(bytes, n, m))
        return NULL;
    document *d = calloc(1, sizeof(*d));
    if (!d || !yaml_parser_initialize(&parser)) {
        add_mistake(m, 0, "out of memory");
        free(d);
        return NULL;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
    bool ok = yaml_parser_load(&parser, &d->yaml);
    bool loaded = ok;
    if (ok && yaml_document_get_root_node(&d->yaml))
        ok = only_one(&parser, m);
    if (parser.error) {
        ok = false;
        add_syntax_mistake(&parser, bytes, n, m);
    }
    yaml_parser_delete(&parser);
    if (ok)
        return d;
    if (loaded)
        yaml_document_delete(&d->yaml);
    free(d);
    return NULL;
}

void document_free(document *d)
{
    if (!d)
        return;
    for (yaml_node_t *n = d->yaml.nodes.start; n < d->yaml.nodes.top; n++)
        if (n->type == YAML_SCALAR_NODE) /* it may be a secret */
            explicit_bzero(n->data.scalar.value, n->data.scalar.length);
    yaml_document_delete(&d->yaml);
    free(d);
}

/* --- nodes ------------------------------------------------------------------------------------ */

static const yaml_node_t *inner(const document_node *n)
{
    return (const yaml_node_t *)(const void *)n;
}

static const document_node *node_of(document *d, int index)
{
    return (const document_node *)(void *)yaml_document_get_node(&d->yaml, index);
}

bool document_is_open(const document *d)
{
    return d->open;
}

const document_node *document_root(document *d)
{
    return (const document_node *)(void *)yaml_document_get_root_node(&d->yaml);
}

node_kind node_kind_of(const document_node *n)
{
    yaml_node_type_t type = inner(n)->type;
    return type == YAML_SEQUENCE_NODE  ? NODE_LIST
           : type == YAML_MAPPING_NODE ? NODE_MAP
                                       : NODE_TEXT;
}

size_t node_line(const document_node *n)
{
    return inner(n)->start_mark.line + 1;
}

const char *node_text(const document_node *n)
{
    return (const char *)inner(n)->data.scalar.value;
}

bool node_is_whole(const document_node *n)
{
    return strlen(node_text(n)) == inner(n)->data.scalar.length;
}

bool node_is_null(const document_node *n)
{
    const char *text = node_text(n);
    return inner(n)->type == YAML_SCALAR_NODE &&
           inner(n)->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0);
}

size_t node_count(const document_node *n)
{
    const yaml_node_t *y = inner(n);
    if (y->type == YAML_SEQUENCE_NODE)
        return (size_t)(y->data.sequence.items.top - y->data.sequence.items.start);
    if (y->type == YAML_MAPPING_NODE)
        return (size_t)(y->data.mapping.pairs.top - y->data.mapping.pairs.start);
    return 0;
}

const document_node *node_item(document *d, const document_node *n, size_t index)
{
    return node_of(d, inner(n)->data.sequence.items.start[index]);
}

const document_node *node_key(document *d, const document_node *n, size_t index)
{
    return node_of(d, inner(n)->data.mapping.pairs.start[index].key);
}

const document_node *node_value(document *d, const document_node *n, size_t index)
{
    return node_of(d, inner(n)->data.mapping.pairs.start[index].value);
}
