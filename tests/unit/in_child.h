/* A part of a test in a process of its own: what it does to the world is
 * forgotten, so one world serves many tries. */
#ifndef TESTS_UNIT_IN_CHILD_H
#define TESTS_UNIT_IN_CHILD_H

#define IN_CHILD_MAX 100

/* What `f` says in a copy of this process, 0 to IN_CHILD_MAX. -1: a check
 * failed there, it ended otherwise, or it took more than five minutes. */
int in_child(int (*f)(void *arg), void *arg);

#endif
