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

/* Checksums are remainders of polynomials over GF(2), the highest bit being the
 * factor of x^0. Bytes behind a piece multiply its remainder by x^8 each; the
 * inversions at begin and end cancel out. */
#define POLYNOMIAL 0x82f63b78u

static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t sum = 0;
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
        if ((a & bit) != 0) {
            sum ^= b;
        }
        b = (b & 1) != 0 ? (b >> 1) ^ POLYNOMIAL : b >> 1; /* times x */
    }
    return sum;
}

uint32_t crc32c_join(uint32_t first, uint32_t second, size_t size)
{
    uint32_t power = 0x00800000u; /* x^8, x^16, x^32, ... */
    for (; size > 0; size >>= 1) {
        if ((size & 1) != 0) {
            first = multiply(power, first);
        }
        power = multiply(power, power);
    }
    return first ^ second;
}
