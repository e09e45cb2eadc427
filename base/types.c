#include "base/types.h"

static const char uuid_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE])
{
    uint32_t bits = 0;
    int n_bits = 0;
    int at = 0;
    for (int i = 0; i < 16; i++) {
        bits = (bits << 8) | id->b[i];
        n_bits += 8;
        while (n_bits >= 6) {
            n_bits -= 6;
            text[at++] = uuid_digits[(bits >> n_bits) & 63];
        }
    }
    text[at++] = uuid_digits[(bits << (6 - n_bits)) & 63];
    text[at] = '\0';
}

/* Value of one digit, or -1. */
static int uuid_digit_value(char c)
{
    const char *found = c == '\0' ? NULL : strchr(uuid_digits, c);
    return found == NULL ? -1 : (int)(found - uuid_digits);
}

bool uuid_parse(const char *text, struct uuid *id)
{
    uint32_t bits = 0;
    int n_bits = 0;
    int at = 0;
    struct uuid parsed;
    for (int i = 0; i < UUID_TEXT_SIZE - 1; i++) {
        int value = uuid_digit_value(text[i]);
        if (value < 0) {
            return false;
        }
        bits = (bits << 6) | (uint32_t)value;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            parsed.b[at++] = (uint8_t)(bits >> n_bits);
        }
    }
    /* The last digit carries two bits of the id; the other four are zero in
     * the one text that stands for it. */
    if ((bits & 15) != 0 || text[UUID_TEXT_SIZE - 1] != '\0') {
        return false;
    }
    *id = parsed;
    return true;
}
