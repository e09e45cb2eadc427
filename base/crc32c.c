#include "base/crc32c.h"

#include <isa-l/crc.h>

/* ISA-L counts bytes in an int. */
#define CRC_PIECE_MAX ((size_t)1 << 30)

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    /* crc32_iscsi works on the raw register (neither initial nor final
     * inversion) and takes a pointer to non-const that it only reads. */
    unsigned char *at = (unsigned char *)(uintptr_t)data;
    uint32_t reg = ~crc;
    while (size > 0) {
        size_t piece = size < CRC_PIECE_MAX ? size : CRC_PIECE_MAX;
        reg = crc32_iscsi(at, (int)piece, reg);
        at += piece;
        size -= piece;
    }
    return ~reg;
}
