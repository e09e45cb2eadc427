/* Files of the libuv environment: plain blocking system calls; the caller sits
 * on a worker or is starting up. Short writes are continued and interrupted
 * calls repeated; no space is told apart from every other failure. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_uv_impl.h"
#include "base/mem.h"

struct uv_file {
    struct env_file base;
    int fd;
    bool direct;
    bool no_dsync; /* the file system does not know RWF_DSYNC */
};

static struct uv_file *uv_file_of(struct env_file *file)
{
    return (struct uv_file *)file;
}

static int open_retry(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, 0644);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

enum err uv_file_open(struct env *env, const char *path, int flags,
                      struct env_file **out)
{
    int how = (flags & ENV_FILE_WRITE) == 0  ? O_RDONLY
              : (flags & ENV_FILE_READ) == 0 ? O_WRONLY
                                             : O_RDWR;
    bool direct = (flags & ENV_FILE_DIRECT) != 0;
    if ((flags & ENV_FILE_CREATE) != 0) {
        how |= O_CREAT | ((flags & ENV_FILE_EXCLUSIVE) != 0 ? O_EXCL : 0);
    }
    int fd = open_retry(path, direct ? how | O_DIRECT : how);
    if (fd < 0 && direct && errno == EINVAL) {
        /* Refused here (tmpfs). Some file systems create the file first. */
        direct = false;
        fd = open_retry(path, how & ~O_EXCL);
    }
    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct uv_file *file = mem_zalloc(sizeof *file);
    file->base.env = env;
    file->fd = fd;
    file->direct = direct;
    *out = &file->base;
    return ERR_OK;
}

void uv_file_close(struct env_file *file)
{
    close(uv_file_of(file)->fd);
    mem_free(file);
}

enum err uv_file_pread(struct env_file *base, void *buf, size_t size,
                       uint64_t offset, size_t *got)
{
    struct uv_file *file = uv_file_of(base);
    size_t done = 0;
    *got = 0;
    while (done < size) {
        ssize_t n = pread(file->fd, (char *)buf + done, size - done,
                          (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_from_errno(errno);
        }
        done += (size_t)n;
        /* A piece that is no whole block is the end; asking on from there
         * would be refused by direct I/O. */
        if (n == 0 || (file->direct && n % ENV_BLOCK_SIZE != 0)) {
            break;
        }
    }
    *got = done;
    return ERR_OK;
}

/* One system call. */
static ssize_t write_some(struct uv_file *file, const struct iovec *iov,
                          int n_iov, uint64_t offset, bool durable)
{
    if (durable && !file->no_dsync) {
        ssize_t n = pwritev2(file->fd, iov, n_iov, (off_t)offset, RWF_DSYNC);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS)) {
            return n;
        }
        file->no_dsync = true;
    }
    return pwritev(file->fd, iov, n_iov, (off_t)offset);
}

/* Fills `part` with what is left after `skip` bytes of iov[0]. */
static int iov_part(struct iovec *part, const struct iovec *iov, int n_iov,
                    size_t skip)
{
    int n = n_iov < ENV_IOV_MAX ? n_iov : ENV_IOV_MAX;
    memcpy(part, iov, (size_t)n * sizeof *iov);
    part[0].iov_base = (char *)part[0].iov_base + skip;
    part[0].iov_len -= skip;
    return n;
}

static enum err write_all(struct uv_file *file, const struct iovec *iov,
                          int n_iov, uint64_t offset, bool durable)
{
    struct iovec part[ENV_IOV_MAX];
    size_t skip = 0;
    while (n_iov > 0) {
        if (skip == iov->iov_len) {
            iov++, n_iov--, skip = 0;
            continue;
        }
        int n_part = iov_part(part, iov, n_iov, skip);
        ssize_t n = write_some(file, part, n_part, offset, durable);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_from_errno(errno);
        }
        if (file->direct) {
            n -= n % ENV_BLOCK_SIZE; /* only whole blocks can be gone on from */
        }
        if (n == 0) {
            return ERR_NOSPACE;
        }
        offset += (uint64_t)n;
        for (size_t left = (size_t)n; left > 0;) {
            size_t step = iov->iov_len - skip;
            step = step < left ? step : left;
            skip += step;
            left -= step;
            if (skip == iov->iov_len && left > 0) {
                iov++, n_iov--, skip = 0;
            }
        }
    }
    return ERR_OK;
}

enum err uv_file_pwritev(struct env_file *base, const struct iovec *iov,
                         int n_iov, uint64_t offset, bool durable)
{
    struct uv_file *file = uv_file_of(base);
    enum err e = write_all(file, iov, n_iov, offset, durable);
    if (e == ERR_OK && durable && file->no_dsync) {
        e = uv_file_sync(base);
    }
    return e;
}

enum err uv_file_sync(struct env_file *base)
{
    int status;
    do {
        status = fdatasync(uv_file_of(base)->fd);
    } while (status != 0 && errno == EINTR);
    return status == 0 ? ERR_OK : err_from_errno(errno);
}

enum err uv_file_size(struct env_file *base, uint64_t *size)
{
    struct stat st;
    if (fstat(uv_file_of(base)->fd, &st) != 0) {
        return err_from_errno(errno);
    }
    *size = (uint64_t)st.st_size;
    return ERR_OK;
}

enum err uv_file_truncate(struct env_file *base, uint64_t size)
{
    int status;
    do {
        status = ftruncate(uv_file_of(base)->fd, (off_t)size);
    } while (status != 0 && errno == EINTR);
    return status == 0 ? ERR_OK : err_from_errno(errno);
}

enum err uv_file_rename(struct env *env, const char *from, const char *to)
{
    (void)env;
    return rename(from, to) == 0 ? ERR_OK : err_from_errno(errno);
}

enum err uv_file_unlink(struct env *env, const char *path)
{
    (void)env;
    return unlink(path) == 0 ? ERR_OK : err_from_errno(errno);
}

/* ---- directories --------------------------------------------------------- */
enum err uv_dir_make_one(struct env *env, const char *path)
{
    (void)env;
    return mkdir(path, 0755) == 0 ? ERR_OK : err_from_errno(errno);
}

/* Opens `path` and applies a syncing call to it. */
static enum err sync_path(const char *path, int (*sync_call)(int fd))
{
    int fd = open_retry(path, O_RDONLY);
    int status;
    if (fd < 0) {
        return err_from_errno(errno);
    }
    do {
        status = sync_call(fd);
    } while (status != 0 && errno == EINTR);
    enum err e = status == 0 ? ERR_OK : err_from_errno(errno);
    close(fd);
    return e;
}

enum err uv_dir_sync(struct env *env, const char *path)
{
    (void)env;
    return sync_path(path, fsync);
}

enum err uv_fs_sync_all(struct env *env, const char *path)
{
    (void)env;
    return sync_path(path, syncfs);
}

/* Names of a directory, sorted. */
struct name_list {
    char **names;
    size_t size, capacity;
};

static void names_free(struct name_list *list)
{
    for (size_t i = 0; i < list->size; i++) {
        mem_free(list->names[i]);
    }
    mem_free(list->names);
}

static int names_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_add(struct name_list *list, const char *name)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return;
    }
    if (list->size == list->capacity) {
        list->capacity = list->capacity * 2 + 16;
        list->names =
            mem_realloc(list->names, list->capacity * sizeof list->names[0]);
    }
    list->names[list->size++] = mem_strdup(name);
}

static enum err names_read(const char *path, struct name_list *list)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    memset(list, 0, sizeof *list);
    if (dir == NULL) {
        return err_from_errno(errno);
    }
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        names_add(list, entry->d_name);
    }
    enum err e = err_from_errno(errno);
    closedir(dir);
    if (e != ERR_OK) {
        names_free(list);
    } else if (list->size > 0) {
        qsort(list->names, list->size, sizeof list->names[0], names_compare);
    }
    return e;
}

enum err uv_dir_list(struct env *env, const char *path,
                     void (*each)(void *arg, const char *name), void *arg)
{
    struct name_list list;
    enum err e = names_read(path, &list);
    (void)env;
    if (e != ERR_OK) {
        return e;
    }
    for (size_t i = 0; i < list.size; i++) {
        each(arg, list.names[i]);
    }
    names_free(&list);
    return ERR_OK;
}

static enum err remove_entry(struct env *env, const char *dir, const char *name)
{
    char path[LIMIT_PATH];
    struct stat st;
    int length = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (length < 0 || length >= LIMIT_PATH) {
        return ERR_TOO_LARGE;
    }
    if (lstat(path, &st) != 0) {
        return err_from_errno(errno);
    }
    return S_ISDIR(st.st_mode) ? uv_dir_remove(env, path)
                               : uv_file_unlink(env, path);
}

enum err uv_dir_remove(struct env *env, const char *path)
{
    struct name_list list;
    enum err e = names_read(path, &list);
    if (e != ERR_OK) {
        return e;
    }
    for (size_t i = 0; i < list.size && e == ERR_OK; i++) {
        e = remove_entry(env, path, list.names[i]);
    }
    names_free(&list);
    if (e == ERR_OK && rmdir(path) != 0) {
        e = err_from_errno(errno);
    }
    return e;
}

enum err uv_fs_space(struct env *env, const char *path, uint64_t *total,
                     uint64_t *available)
{
    struct statvfs st;
    (void)env;
    if (statvfs(path, &st) != 0) {
        return err_from_errno(errno);
    }
    *total = (uint64_t)st.f_blocks * st.f_frsize;
    *available = (uint64_t)st.f_bavail * st.f_frsize;
    return ERR_OK;
}

/* ---- the lock of a data directory ---------------------------------------- */
struct dir_lock {
    int fd;
    struct dir_lock *next;
};

enum err uv_dir_lock(struct env *env, const char *path)
{
    char file[LIMIT_PATH];
    int length = snprintf(file, sizeof file, "%s/lock", path);
    if (length < 0 || length >= LIMIT_PATH) {
        return ERR_TOO_LARGE;
    }
    int fd = open_retry(file, O_RDWR | O_CREAT);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum err e = errno == EWOULDBLOCK ? ERR_BUSY : err_from_errno(errno);
        close(fd);
        return e;
    }
    struct dir_lock *lock = mem_alloc(sizeof *lock);
    lock->fd = fd;
    lock->next = uv_env_of(env)->locks;
    uv_env_of(env)->locks = lock;
    return ERR_OK;
}

void uv_dir_locks_release(struct uv_env *env)
{
    while (env->locks != NULL) {
        struct dir_lock *lock = env->locks;
        env->locks = lock->next;
        close(lock->fd);
        mem_free(lock);
    }
}
