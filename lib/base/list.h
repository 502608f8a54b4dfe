/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_LIST_H
#define TNL_BASE_LIST_H

#include <stddef.h>

/*
 * An intrusive doubly linked list: a head of type tnl_list, members with an embedded tnl_list. A
 * member that is in no list points to itself (after tnl_list_init or tnl_list_remove), so removing
 * twice is harmless.
 */
typedef struct tnl_list {
    struct tnl_list *next;
    struct tnl_list *prev;
} tnl_list;

#define TNL_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void tnl_list_init(tnl_list *l)
{
    l->next = l->prev = l;
}

static inline int tnl_list_empty(const tnl_list *l)
{
    return l->next == l;
}

static inline void tnl_list_add_tail(tnl_list *head, tnl_list *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

static inline void tnl_list_add_head(tnl_list *head, tnl_list *l)
{
    tnl_list_add_tail(head->next, l);
}

static inline void tnl_list_remove(tnl_list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    tnl_list_init(l);
}

static inline tnl_list *tnl_list_first(const tnl_list *head)
{
    return tnl_list_empty(head) ? NULL : head->next;
}

#endif
