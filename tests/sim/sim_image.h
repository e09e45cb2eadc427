/* The bytes of a file, sparse: pages of zeros take no memory, and copies share
 * pages until one of them writes. */
#ifndef SIM_SIM_IMAGE_H
#define SIM_SIM_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE 4096

struct sim_page {
    unsigned refs; /* images that have it */
    uint8_t bytes[SIM_PAGE];
};

struct sim_image {
    uint64_t size;
    struct sim_page **pages; /* NULL: zeros */
    size_t n_pages;
};

/* Grows the image when the range ends behind it. `data` NULL: zeros. */
void sim_image_write(struct sim_image *image, uint64_t offset,
                     const uint8_t *data, uint64_t size);
/* Reads what is there; gives the number of bytes. */
size_t sim_image_read(const struct sim_image *image, uint64_t offset,
                      uint8_t *data, size_t size);
/* Cuts off or grows with zeros. */
void sim_image_truncate(struct sim_image *image, uint64_t size);
void sim_image_copy(struct sim_image *to, const struct sim_image *from);
void sim_image_free(struct sim_image *image);

#endif
