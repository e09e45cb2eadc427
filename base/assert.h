/* Asserts are on in every build. They state what must be true whatever comes
 * from disk, network or users; bytes from there give errors, never asserts. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

/* Prints the place and the condition and aborts (in the simulator: fails the
 * seed). Never returns. */
_Noreturn void assert_failed(const char *file, int line, const char *what);

/* Called first by assert_failed, so that the simulator can report its seed and
 * end the run; when it returns (or is NULL) the process aborts. Set once at
 * start. */
typedef void (*assert_hook)(void *arg, const char *file, int line,
                            const char *what);
void assert_set_hook(assert_hook hook, void *arg);

#define ASSERT(cond) \
    ((cond) ? (void)0 : assert_failed(__FILE__, __LINE__, #cond))
#define IMPLIES(a, b) (!(a) || (b))
#define UNREACHABLE(why) assert_failed(__FILE__, __LINE__, "unreachable: " why)

#endif
