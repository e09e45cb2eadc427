#include "tests/unit/in_child.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"

#define SECONDS_MAX 300
/* A check that fails exits by 1: what is said is told from that. */
#define FIRST_STATUS 40

int in_child(int (*f)(void *arg), void *arg)
{
    int status = 0;
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        alarm(SECONDS_MAX);
        int said = f(arg);
        ASSERT(said >= 0 && said <= IN_CHILD_MAX);
        _exit(FIRST_STATUS + said);
    }
    pid_t ended = waitpid(child, &status, 0);
    ASSERT(ended == child);
    int said = WIFEXITED(status) ? WEXITSTATUS(status) - FIRST_STATUS : -1;
    return said >= 0 && said <= IN_CHILD_MAX ? said : -1;
}
