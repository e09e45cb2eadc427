/* CRC-32C (Castagnoli, reflected 0x82f63b78, init and xorout ~0) over ISA-L. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc32c(0, "123456789", 9) == 0xe3069283. To go on over a second piece pass
 * the result of the first: crc32c(crc32c(0, a, n), b, m). */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The checksum of two pieces, of each of which it is known: `second` is of
 * `size` bytes. Takes a microsecond or two, whatever the size. */
uint32_t crc32c_join(uint32_t first, uint32_t second, size_t size);

#endif
