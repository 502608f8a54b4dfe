/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_DOCUMENT_H
#define APPS_COMMON_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/mistakes.h"

/*
 * A YAML document: nodes, which are texts, lists or maps, with the lines they begin on. An alias is
 * the node that it stands for, so that a document may hold a node several times, even within
 * itself: who walks it goes no deeper than what it looks for. At most DOCUMENT_MAX bytes.
 */
enum { DOCUMENT_MAX = 1 << 20 };

typedef struct document document;
typedef struct document_node document_node;

typedef enum node_kind { NODE_TEXT, NODE_LIST, NODE_MAP } node_kind;

/* Reads a file, or bytes. NULL: it cannot be read or is no YAML; the mistakes have grown then. */
document *document_read(const char *path, mistakes *m);
document *document_parse(const char *bytes, size_t n, mistakes *m);
void document_free(document *d);

/* Whether other users of the machine may read the file. */
bool document_is_open(const document *d);

/* NULL: the document is empty. */
const document_node *document_root(document *d);
node_kind node_kind_of(const document_node *n);
size_t node_line(const document_node *n);
/* Of a text. It may hold NUL bytes: node_is_whole() tells that it does not. */
const char *node_text(const document_node *n);
bool node_is_whole(const document_node *n);
/* Whether a text is nothing at all: "key:", "~" or "null", without quotes. */
bool node_is_null(const document_node *n);
/* How many items or pairs; those of an index below that. */
size_t node_count(const document_node *n);
const document_node *node_item(document *d, const document_node *n, size_t index);
const document_node *node_key(document *d, const document_node *n, size_t index);
const document_node *node_value(document *d, const document_node *n, size_t index);

#endif
