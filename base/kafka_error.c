#include "base/kafka_error.h"

const char *kafka_error_name(int16_t code)
{
    switch (code) {
#define X(name, number) \
    case number:        \
        return #name;
        KAFKA_ERROR_MAP(X)
#undef X
        default:
            return "UNKNOWN";
    }
}
