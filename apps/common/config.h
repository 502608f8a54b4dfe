/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_CONFIG_H
#define APPS_COMMON_CONFIG_H

#include "common/document.h"
#include "common/options.h"

/*
 * Configuration files by table: keys are the names of options, read with the options' own setters,
 * and a few special ones of the program. All mistakes are gathered, with line and key.
 */
typedef struct config_reader {
    const command_line *command;
    document *document;
    mistakes *mistakes;
    const char *folder; /* of the file, for relative paths; NULL: the current one */
    void *user;         /* whose setters are called */
    void *shadow;       /* for what flags or the environment override: only checked */
    size_t line;        /* of the value that a setter has now */
    bool has_secret;    /* a token or password stands in the file */
} config_reader;

typedef struct special_key {
    const char *name;
    char group; /* as option_row.group */
    /* Reads the value; `where` is the key for people. overridden: check it only. */
    void (*read)(config_reader *r, const document_node *key, const document_node *value,
                 const char *where, bool overridden);
} special_key;

/*
 * Reads a map whose keys are options of a place and special keys. command: only options that go
 * with it (NULL: any). where: what stands before a key for people, such as "tunnels.web.", or "".
 */
void read_map(config_reader *r, const document_node *map, option_place place,
              const command_row *command, const special_key *special, size_t special_count,
              const char *where);

/* The value of a key in a map, NULL: none. */
const document_node *find_value(document *d, const document_node *map, const char *key);

/* The text of a value that must be one, else NULL after a mistake. */
const char *text_of(config_reader *r, const document_node *key, const document_node *value,
                    const char *where);

/* A mistake about a key: "FILE:LINE: WHERE: text". */
void add_key_mistake(config_reader *r, size_t line, const char *where, const char *text);

/* The folder of a path, a new text; NULL: out of memory. */
char *folder_of(const char *path);

#endif
