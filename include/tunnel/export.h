/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_EXPORT_H
#define TUNNEL_EXPORT_H

#if defined(__GNUC__) || defined(__clang__)
#define TUNNEL_EXPORT __attribute__((visibility("default")))
#else
#define TUNNEL_EXPORT
#endif

#endif
