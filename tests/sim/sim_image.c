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

static void page_unref(struct sim_page *page)
{
    if (page != NULL && --page->refs == 0) {
        mem_free(page);
    }
}

/* A page that no other image has, with the same bytes. */
static struct sim_page *page_own(struct sim_page **slot)
{
    struct sim_page *page = *slot;
    if (page != NULL && page->refs == 1) {
        return page;
    }
    if (page == NULL) {
        *slot = sim_zalloc(sizeof **slot);
    } else {
        *slot = memcpy(sim_alloc(sizeof **slot), page, sizeof *page);
        page->refs--;
    }
    (*slot)->refs = 1;
    return *slot;
}

/* The part of a write that lies in one page. */
static void page_write(struct sim_image *image, uint64_t offset,
                       const uint8_t *data, size_t size)
{
    struct sim_page **page = &image->pages[offset / SIM_PAGE];
    size_t within = (size_t)(offset % SIM_PAGE);
    bool zero = data == NULL || all_zero(data, size);
    if (zero && *page == NULL) {
        return;
    }
    if (zero && size == SIM_PAGE) {
        page_unref(*page);
        *page = NULL;
        return;
    }
    uint8_t *to = page_own(page)->bytes + within;
    if (zero) {
        memset(to, 0, size);
    } else {
        memcpy(to, data, size);
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
        const struct sim_page *page =
            at / SIM_PAGE < image->n_pages ? image->pages[at / SIM_PAGE] : NULL;
        if (page == NULL) {
            memset(data + done, 0, step);
        } else {
            memcpy(data + done, page->bytes + at % SIM_PAGE, step);
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
        to->pages[i] = from->pages[i];
        if (to->pages[i] != NULL) {
            to->pages[i]->refs++;
        }
    }
}

void sim_image_free(struct sim_image *image)
{
    for (size_t i = 0; i < image->n_pages; i++) {
        page_unref(image->pages[i]);
    }
    mem_free(image->pages);
    memset(image, 0, sizeof *image);
}
