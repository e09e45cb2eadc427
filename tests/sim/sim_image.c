#include "tests/sim/sim_image.h"

#include <string.h>

#include "base/assert.h"
#include "tests/sim/sim_impl.h"

static void pages_reserve(struct sim_image *image, size_t n)
{
    if (n <= image->n_pages) {
        return;
    }
    size_t more = image->n_pages + image->n_pages / 2;
    n = n > more ? n : more;
    image->pages = sim_realloc(image->pages, n * sizeof image->pages[0]);
    memset(image->pages + image->n_pages, 0,
           (n - image->n_pages) * sizeof image->pages[0]);
    image->n_pages = n;
}

static bool all_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* The part of a write that lies in one page. */
static void page_write(struct sim_image *image, uint64_t offset,
                       const uint8_t *data, size_t size)
{
    uint8_t **page = &image->pages[offset / SIM_PAGE];
    size_t within = (size_t)(offset % SIM_PAGE);
    bool zero = data == NULL || all_zero(data, size);
    if (zero && *page == NULL) {
        return;
    }
    if (zero && size == SIM_PAGE) {
        mem_free(*page);
        *page = NULL;
        return;
    }
    if (*page == NULL) {
        *page = sim_zalloc(SIM_PAGE);
    }
    if (zero) {
        memset(*page + within, 0, size);
    } else {
        memcpy(*page + within, data, size);
    }
}

void sim_image_write(struct sim_image *image, uint64_t offset,
                     const uint8_t *data, uint64_t size)
{
    if (size == 0) {
        return;
    }
    uint64_t end = offset + size;
    pages_reserve(image, (size_t)((end + SIM_PAGE - 1) / SIM_PAGE));
    if (end > image->size) {
        image->size = end;
    }
    while (size > 0) {
        uint64_t step = SIM_PAGE - offset % SIM_PAGE;
        step = step < size ? step : size;
        page_write(image, offset, data, (size_t)step);
        offset += step;
        size -= step;
        data = data == NULL ? NULL : data + step;
    }
}

size_t sim_image_read(const struct sim_image *image, uint64_t offset,
                      uint8_t *data, size_t size)
{
    if (offset >= image->size) {
        return 0;
    }
    if (size > image->size - offset) {
        size = (size_t)(image->size - offset);
    }
    for (size_t done = 0; done < size;) {
        uint64_t at = offset + done;
        size_t step = SIM_PAGE - (size_t)(at % SIM_PAGE);
        step = step < size - done ? step : size - done;
        const uint8_t *page =
            at / SIM_PAGE < image->n_pages ? image->pages[at / SIM_PAGE] : NULL;
        if (page == NULL) {
            memset(data + done, 0, step);
        } else {
            memcpy(data + done, page + at % SIM_PAGE, step);
        }
        done += step;
    }
    return size;
}

void sim_image_truncate(struct sim_image *image, uint64_t size)
{
    if (size < image->size) {
        /* What is cut off reads as zeros should the image grow again. */
        uint64_t old = image->size;
        sim_image_write(image, size, NULL, old - size);
    }
    image->size = size;
}

void sim_image_copy(struct sim_image *to, const struct sim_image *from)
{
    sim_image_free(to);
    pages_reserve(to, from->n_pages);
    to->size = from->size;
    for (size_t i = 0; i < from->n_pages; i++) {
        if (from->pages[i] != NULL) {
            to->pages[i] =
                memcpy(sim_alloc(SIM_PAGE), from->pages[i], SIM_PAGE);
        }
    }
}

void sim_image_free(struct sim_image *image)
{
    for (size_t i = 0; i < image->n_pages; i++) {
        mem_free(image->pages[i]);
    }
    mem_free(image->pages);
    memset(image, 0, sizeof *image);
}
