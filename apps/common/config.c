/* SPDX-License-Identifier: Apache-2.0 */
#include "common/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

enum { KEYS_MAX = 256, ITEMS_MAX = 4096, WHERE = 200, SPECIAL_MAX = 8 };

void add_key_mistake(config_reader *r, size_t line, const char *where, const char *text)
{
    add_mistake(r->mistakes, line, "%.180s: %s", where, text);
}

char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* --- values ----------------------------------------------------------------------------------- */

const document_node *find_value(document *d, const document_node *map, const char *key)
{
    for (size_t i = 0; i < node_count(map); i++) {
        const document_node *k = node_key(d, map, i);
        if (node_kind_of(k) == NODE_TEXT && strcmp(node_text(k), key) == 0)
            return node_value(d, map, i);
    }
    return NULL;
}

const char *text_of(config_reader *r, const document_node *key, const document_node *value,
                    const char *where)
{
    const char *problem;
    if (node_kind_of(value) == NODE_LIST)
        problem = "takes one value, not a list";
    else if (node_kind_of(value) == NODE_MAP)
        problem = "takes a value, not keys of its own";
    else if (node_is_null(value))
        problem = "has no value";
    else if (!node_is_whole(value))
        problem = "must not hold a NUL character";
    else
        return node_text(value);
    add_key_mistake(r, node_line(key), where, problem);
    return NULL;
}

static void set_text(config_reader *r, const option_row *row, size_t line, const char *text,
                     const char *where, void *user)
{
    char *path = NULL;
    const char *error = NULL;
    r->line = line;
    if (row->path && *text && strcmp(text, "-") != 0) {
        path = path_in(r->folder, text);
        error = path ? NULL : "out of memory";
    }
    if (!error)
        error = row->set(user, path ? path : text);
    if (error)
        add_key_mistake(r, line, where, error);
    free(path);
}

static void set_switch(config_reader *r, const option_row *row, size_t line, const char *text,
                       const char *where, void *user)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0)
        set_text(r, row, line, "1", where, user);
    else if (strcmp(text, "false") != 0 && strcmp(text, "no") != 0)
        add_key_mistake(r, line, where, "must be true or false");
}

static void read_option_value(config_reader *r, const option_row *row, const document_node *key,
                              const document_node *value, const char *where)
{
    void *user = row->place == IN_FILE && option_is_given(r->command, row) ? r->shadow : r->user;
    r->has_secret |= row->secret;
    if (row->repeatable && node_kind_of(value) == NODE_LIST && node_count(value) > ITEMS_MAX) {
        add_key_mistake(r, node_line(key), where, "the list is too long");
        return;
    }
    if (row->repeatable && node_kind_of(value) == NODE_LIST) {
        for (size_t i = 0; i < node_count(value); i++) {
            const document_node *item = node_item(r->document, value, i);
            const char *text = text_of(r, item, item, where);
            if (text)
                set_text(r, row, node_line(item), text, where, user);
        }
        return;
    }
    const char *text = text_of(r, key, value, where);
    if (text && row->value)
        set_text(r, row, node_line(key), text, where, user);
    else if (text)
        set_switch(r, row, node_line(key), text, where, user);
}

/* --- keys ------------------------------------------------------------------------------------- */

static void unknown_key(config_reader *r, const char *name, size_t line, option_place place,
                        const special_key *special, size_t special_count, const char *where)
{
    const char *names[OPTIONS_MAX + SPECIAL_MAX];
    const command_line *c = r->command;
    size_t n = 0;
    const option_row *row = find_option(c, name);
    if (row) {
        add_key_mistake(r, line, where,
                        row->place == NOT_IN_FILE ? "is an option of the command line only"
                        : row->place == IN_TUNNEL ? "belongs to a tunnel, under 'tunnels:'"
                                                  : "belongs to the top level of the file");
        return;
    }
    for (size_t i = 0; i < special_count; i++)
        names[n++] = special[i].name;
    for (size_t i = 0; i < c->row_count; i++)
        if (c->rows[i].place == place)
            names[n++] = c->rows[i].name;
    const char *nearest = nearest_name(name, names, n);
    add_mistake(r->mistakes, line, "%.180s: there is no such key%s%s%s", where,
                nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

static bool group_is_given(const command_line *c, char group)
{
    for (size_t i = 0; i < c->row_count; i++)
        if (group && c->rows[i].group == group)
            return option_is_given(c, &c->rows[i]);
    return false;
}

static void read_pair(config_reader *r, const document_node *key, const document_node *value,
                      option_place place, const command_row *command, const special_key *special,
                      size_t special_count, const char *where)
{
    const char *name = node_text(key);
    const command_line *c = r->command;
    for (size_t i = 0; i < special_count; i++)
        if (strcmp(special[i].name, name) == 0) {
            special[i].read(r, key, value, where, group_is_given(c, special[i].group));
            return;
        }
    const option_row *row = find_option(c, name);
    if (!row || row->place != place) {
        unknown_key(r, name, node_line(key), place, special, special_count, where);
    } else if (command && !option_goes_with(c, row, command)) {
        add_mistake(r->mistakes, node_line(key), "%.180s: does not go with type %s", where,
                    command->name);
    } else {
        read_option_value(r, row, key, value, where);
    }
}

/* The line on which the key of this index stands already; 0: it does not. */
static size_t line_before(document *d, const document_node *map, size_t index)
{
    const char *name = node_text(node_key(d, map, index));
    for (size_t i = 0; i < index; i++) {
        const document_node *key = node_key(d, map, i);
        if (node_kind_of(key) == NODE_TEXT && strcmp(node_text(key), name) == 0)
            return node_line(key);
    }
    return 0;
}

void read_map(config_reader *r, const document_node *map, option_place place,
              const command_row *command, const special_key *special, size_t special_count,
              const char *where)
{
    char name[WHERE + 100];
    for (size_t i = 0; i < node_count(map); i++) {
        const document_node *key = node_key(r->document, map, i);
        if (i == KEYS_MAX) {
            add_mistake(r->mistakes, node_line(key), "there are too many keys: at most %d",
                        KEYS_MAX);
            return;
        }
        if (node_kind_of(key) != NODE_TEXT || !node_is_whole(key)) {
            add_mistake(r->mistakes, node_line(key), "a key must be a word");
            continue;
        }
        snprintf(name, sizeof(name), "%.*s%.80s", WHERE, where, node_text(key));
        size_t before = line_before(r->document, map, i);
        if (before)
            add_mistake(r->mistakes, node_line(key), "%.180s: stands twice, first on line %zu",
                        name, before);
        else
            read_pair(r, key, node_value(r->document, map, i), place, command, special,
                      special_count, name);
    }
}
