/* SPDX-License-Identifier: Apache-2.0 */
#include "client/qr.h"

#include <qrencode.h>

enum { QUIET_ZONE = 4 };

static bool is_dark(const QRcode *code, int x, int y)
{
    return x >= 0 && y >= 0 && x < code->width && y < code->width &&
           (code->data[y * code->width + x] & 1);
}

bool print_qr(FILE *out, const char *text, bool colours)
{
    QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);
    if (!code)
        return false;
    for (int y = -QUIET_ZONE; y < code->width + QUIET_ZONE; y += 2) {
        fputs(colours ? "\033[40;97m" : "", out);
        for (int x = -QUIET_ZONE; x < code->width + QUIET_ZONE; x++) {
            bool upper = !is_dark(code, x, y), lower = !is_dark(code, x, y + 1);
            fputs(upper && lower ? "\u2588" : upper ? "\u2580" : lower ? "\u2584" : " ", out);
        }
        fputs(colours ? "\033[0m\n" : "\n", out);
    }
    fflush(out);
    QRcode_free(code);
    return true;
}
