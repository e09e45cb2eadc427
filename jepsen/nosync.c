/* A disk that lies, for the control run: preloaded into a broker, it makes
 * every sync do nothing. Nothing else changes, so what the checker finds then
 * is what the syncs are good for. */
#include <sys/uio.h>
#include <unistd.h>

ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset,
                    int flags);

int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

int syncfs(int fd)
{
    (void)fd;
    return 0;
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset,
                 int flags)
{
    (void)flags;
    return pwritev(fd, iov, n, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset,
                    int flags)
{
    (void)flags;
    return pwritev(fd, iov, n, offset);
}
