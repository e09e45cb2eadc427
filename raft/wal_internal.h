/* The write-ahead log inside: shared by wal.c (append, flush), wal_file.c
 * (files), wal_relog.c and wal_recover.c. Nobody else includes this. */
#ifndef RAFT_WAL_INTERNAL_H
#define RAFT_WAL_INTERNAL_H

#include "base/hash.h"
#include "base/mem.h"

#include "raft/log_chunk.h"
#include "raft/wal.h"
#include "raft/wal_format.h"
#include "raft/wal_pins.h"

struct wal_group {
    struct group_id id;
    log_index settled;
    /* Where its pin is in the newest chunk and file it wrote to. */
    uint64_t chunk_id, file_generation;
    uint32_t chunk_slot, file_slot;
    /* While a chunk is looked through: its pin there and in the file. */
    uint64_t marked, marked_first, marked_upto;
    uint64_t file_marked, file_first, file_upto;
    UT_hash_handle hh;
};

enum wal_file_state {
    WAL_FILE_FREE,    /* may be written from the beginning */
    WAL_FILE_USED,    /* recovery needs it */
    WAL_FILE_RETIRED, /* free once a durable flush says so */
    WAL_FILE_FILLING, /* free once it has its full size */
};

struct wal_file {
    uint32_t number;
    uint64_t bytes; /* usable, whole blocks */
    uint64_t made;  /* that it surely has on disk; it may have grown */
    uint64_t generation;
    enum wal_file_state state;
    struct env_file *file;
    struct wal_pins pins; /* unsettled entries */
};

/* A flush from its first frame until it is durable. */
struct wal_flush {
    struct log_chunk *chunk; /* a reference; NULL: an attestation */
    uint8_t *data;
    uint32_t length; /* with header; after sealing with padding */
    uint32_t n_frames;
    uint32_t crc;      /* of all behind the header, taken while it was hot */
    uint64_t position; /* of the first frame */
    struct wal_file *file;
    uint64_t file_offset;
    uint64_t oldest;
    struct wal_flush *next;
};

/* A file being made, or made longer, by a worker. */
struct wal_fill {
    struct env_work work;
    struct wal *wal;
    char path[512];
    char meta_path[512];
    char dir[512];
    uint64_t bytes;
    uint8_t *meta;
    size_t meta_size;
    struct wal_file *extends; /* NULL: a new one, `file` once it is made */
    struct env_file *file;
    enum err status;
};

struct wal {
    struct env *env;
    char dir[512];
    struct wal_options options;
    struct wal_ops ops;
    void *arg;

    uint64_t log_id, made_ms;
    bool is_new;
    bool lacks; /* records that may have been creations are gone */
    uint32_t entry_bytes_max;
    uint32_t files_max;

    /* files[k] is wal-<k+1>.log; used[] in the order of generations, the last
     * one being written */
    struct wal_file **files;
    uint32_t n_files;
    struct wal_file **used;
    uint32_t n_used;
    uint64_t bytes_total; /* of all files */
    uint64_t generation;  /* newest */
    uint64_t file_at;     /* where the next flush of the newest file begins */
    uint64_t begin_bytes; /* that the newest file's repeated state took */
    bool beginning;       /* inside ops->file_begins */
    struct wal_fill *fill;
    bool fill_asked; /* a reserve was refused for want of a file */
    bool fill_wait;  /* no space on the device: try later */
    struct env_timer fill_timer;

    /* what headers say */
    uint64_t oldest, checkpoint;
    uint64_t oldest_durable; /* as the last durable flush has it */
    uint64_t oldest_wanted, checkpoint_wanted;
    uint64_t oldest_after; /* ... once this position is durable */
    uint64_t checkpoint_seq;

    struct wal_group *groups;
    struct log_buffer *buffer;
    uint64_t buffer_bytes_low; /* settled chunks beyond it are evicted */
    bool evict_due;            /* something was settled since it was tried */
    struct env_timer trim_timer;
    uint64_t reserved_bytes, reserved_records;
    bool room_wanted, room_changed;
    struct env_timer room_timer;
    bool buffer_full;    /* a reserve was refused for want of memory */
    uint64_t moved_from; /* chunk looked at last for what to move */
    uint64_t moved_ms;
    bool over_asked; /* a refused reserve wants the oldest file back */
    bool relog_wanted, relogging;
    bool relog_forced;        /* also when the newest file must grow for it */
    uint64_t mark, file_mark; /* of the newest marking of groups */
    uint64_t asked_generation, asked_ms;

    uint64_t next_position, durable;
    uint64_t prev_position;
    uint32_t prev_crc;
    struct wal_flush *open;
    struct wal_flush *queue, **queue_end;
    bool in_flight;
    /* The write in flight: the queue's first flush, sealed by the worker. */
    struct env_work work;
    struct wal_flush_header work_header;
    uint32_t work_crc;
    enum err work_status;
    bool fill_told; /* that there is no space for another file */
    bool no_space;  /* the queue's first flush did not fit the device */
    struct env_timer space_timer;
    bool attested; /* the last flush written is an attestation */
    uint8_t *attest_block;
    struct env_timer attest_timer;
    struct env_deferred turn;

    uint64_t n_flushes, bytes_written, files_begun, bytes_relogged;
    uint64_t entries_moved;

    struct wal_recovered_group *recovered;
    size_t n_recovered;

    bool closing;
    bool close_attested;
    struct env_deferred close_step;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* wal.c */
struct wal_group *wal_group_find(struct wal *wal, const struct group_id *id);
struct wal_group *wal_group_get(struct wal *wal, const struct group_id *id);
/* Everything of a group that recovery or a running log forgets. */
void wal_group_truncate(struct wal *wal, struct wal_group *group,
                        log_index first);
void wal_group_forget(struct wal *wal, struct wal_group *group);
/* An entry of `group` lies in this chunk and file; either may be NULL. */
void wal_pin(struct wal_group *group, struct log_chunk *chunk,
             struct wal_file *file, log_index index);
/* Appends a frame; `payload` may be NULL when size is 0. Gives its place. */
uint8_t *wal_append_frame(struct wal *wal, const struct wal_frame *frame,
                          const struct iovec *payload, int n_payload,
                          struct log_chunk **chunk);
/* Bytes in file and buffer, at most, for records of together `bytes`. */
uint64_t wal_record_bytes(const struct wal *wal, uint64_t bytes,
                          uint64_t records);
/* Where the newest file ends, with what is not written yet. */
uint64_t wal_file_end(const struct wal *wal);
void wal_turn_defer(struct wal *wal);
/* Ends the open flush, if there is one. */
void wal_open_end(struct wal *wal);
void wal_room_changed(struct wal *wal);
/* Seals and writes one attestation, blocking; before the log serves. */
enum err wal_attest_blocking(struct wal *wal);
void wal_close_step(struct wal *wal);
void wal_free(struct wal *wal);

/* wal_file.c */
void wal_file_path(const char *dir, uint32_t number, char out[512]);
struct wal_file *wal_file_add(struct wal *wal, struct env_file *file,
                              uint64_t bytes);
void wal_file_use(struct wal *wal, struct wal_file *file, uint64_t generation);
/* Closes the last one, which holds nothing. */
void wal_file_drop_last(struct wal *wal);
void wal_files_close(struct wal *wal);
struct wal_file *wal_file_current(const struct wal *wal);
/* Where ordinary flushes must end: two blocks stay for attestations. */
uint64_t wal_file_limit(const struct wal_file *file);
uint32_t wal_files_free(const struct wal *wal);
/* Begins a new file with room for `bytes` behind the repeated state. False:
 * there is none. */
bool wal_file_switch(struct wal *wal, uint64_t bytes);
/* Files at the old end that hold nothing any more retire. */
void wal_files_retire(struct wal *wal);
/* A durable flush said that generations below `oldest` are not needed. */
void wal_files_free_below(struct wal *wal, uint64_t oldest);
bool wal_file_is_settled(struct wal_file *file);
/* Begins to make another file in the background when one will be needed. */
void wal_fill_maybe(struct wal *wal);
bool wal_fill_possible(const struct wal *wal);
void wal_fill_again(struct env_timer *timer);
/* Makes the first file, blocking. */
enum err wal_file_make_first(struct wal *wal);
void wal_meta_path(const char *dir, char out[512]);
enum err wal_meta_write(struct wal *wal);

/* wal_relog.c */
/* Logs what holds the oldest file again in the newest one, when that is
 * little enough. */
void wal_relog(struct wal *wal);
/* Looks at one chunk of the log buffer that is held by entries that are not
 * settled, and moves them out when they are few. */
void wal_move(struct wal *wal);

/* wal_recover.c */
enum err wal_recover(struct wal *wal, wal_settled_fn settled);

#endif
