#include "base/err.h"

#include "base/assert.h"

static const char *const err_names[ERR_COUNT] = {
#define X(name, text) "ERR_" #name,
    ERR_MAP(X)
#undef X
};

static const char *const err_texts[ERR_COUNT] = {
#define X(name, text) text,
    ERR_MAP(X)
#undef X
};

const char *err_name(enum err e)
{
    ASSERT((int)e >= 0 && e < ERR_COUNT);
    return err_names[e];
}

const char *err_text(enum err e)
{
    ASSERT((int)e >= 0 && e < ERR_COUNT);
    return err_texts[e];
}
