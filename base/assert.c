#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

static assert_hook hook_now;
static void *hook_arg;

void assert_set_hook(assert_hook hook, void *arg)
{
    hook_now = hook;
    hook_arg = arg;
}

void assert_failed(const char *file, int line, const char *what)
{
    assert_hook hook = hook_now;
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    hook_now = NULL; /* an assert that fails inside the hook just aborts */
    if (hook != NULL) {
        hook(hook_arg, file, line, what);
    }
    abort();
}
