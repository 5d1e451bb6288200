/*
 * The parts of a live copy. The only thing that makes a copy right is the frozen pass: it compares
 * each entry with what is remembered of its copying and does it again unless both are surely the
 * same. All that happens before is a guess about what will not change, and may fail.
 */
#ifndef HOB_POOL_SANDBOX_LIVE_COPY_PRIVATE_H
#define HOB_POOL_SANDBOX_LIVE_COPY_PRIVATE_H

#include "pool/sandbox/live/live_copy.h"

#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>

#define LIVE_NONE UINT32_MAX
#define LIVE_ROOT 0U

/* A change within the same tick of the clock as the copying does not show in ctime. */
#define LIVE_YOUNG_NS 2000000000LL

enum live_flag {
	LIVE_FOLDER = 1u,
	LIVE_YOUNG = 2u, /* its ctime was young when it was copied: a later change may not show */
	LIVE_CLONED = 4u,
	LIVE_LINKED = 8u, /* to the previous copy */
	LIVE_REGULAR = 16u,
	LIVE_MAPPED = 32u, /* shared and writable, when it was copied */
	LIVE_WHOLE = 64u, /* a folder: all the names that it had at its ctime are children */
	LIVE_DIRTY = 128u, /* frozen: it, or something in it, must be looked at again */
};

/* What is remembered of a copied entry. */
struct live_entry {
	uint64_t inode;
	int64_t ctime_ns; /* before it was copied */
	uint64_t bytes; /* of a regular file, divided among its links */
	uint32_t parent, child, next; /* the tree: first child, next sibling */
	uint32_t chain; /* next of the same hash */
	uint32_t name; /* where it starts in `names` */
	uint32_t hash;
	uint8_t flags, pass; /* last seen in that pass */
};

struct live_index {
	struct live_entry *entries;
	size_t count, room;
	char *names;
	size_t names_length, names_room;
	uint32_t *buckets;
	size_t bucket_count; /* a power of two */
};

void live_index_init(struct live_index *index);
void live_index_done(struct live_index *index);
uint32_t live_index_find(const struct live_index *index, uint32_t parent, const char *name);
/* Of a name that is not there yet. */
MUSTCHECK int live_index_add(struct live_index *index, uint32_t parent, const char *name,
	uint32_t *ret_entry, struct error *err);
const char *live_index_name(const struct live_index *index, uint32_t entry);
/* Forgets it and all below it. `link` is what points to it: its parent's child, or a next. */
void live_index_remove(struct live_index *index, uint32_t *link);

/* Inodes with several names: scratch/<inode in hex> is a link to the copy of one of them. */
struct live_shared {
	uint64_t inode; /* 0: free */
	int64_t ctime_ns;
	uint8_t pass, flags;
};
struct live_shares {
	struct live_shared *slots;
	size_t count, room; /* a power of two */
};
/* The slot of an inode, or NULL. */
struct live_shared *live_shares_find(const struct live_shares *shares, uint64_t inode);
/* The same, made when missing. */
struct live_shared *live_shares_put(struct live_shares *shares, uint64_t inode);

/* One line of the list that a copy leaves to the next one. */
struct live_line {
	uint64_t path; /* hash of the names on the way, see live_path_hash */
	uint64_t inode;
	int64_t ctime_ns;
};
struct live_list {
	struct live_line *lines; /* by path */
	size_t count, room;
	void *mapped; /* a list that was read */
	size_t mapped_bytes;
};
uint64_t live_path_hash(uint64_t folder, const char *name);
/* One that is damaged, or not of the copy in tree_fd, is an empty one. */
void live_list_read(int fd, int tree_fd, struct live_list *ret_list);
bool live_list_has(const struct live_list *list, const struct live_line *line);
MUSTCHECK int live_list_write(struct live_list *list, int fd, int tree_fd, struct error *err);
void live_list_done(struct live_list *list);

/* Files that a process has mapped shared and writable, by what does not depend on the file system
 * that they are seen through. */
struct live_mapped_file {
	int64_t size, mtime_ns, ctime_ns;
};
struct live_mapped {
	struct live_mapped_file *files;
	size_t count, room;
};
MUSTCHECK int live_mapped_read(
	struct live_mapped *mapped, const pid_t *pids, size_t count, struct error *err);
bool live_mapped_has(const struct live_mapped *mapped, const struct stat *status);

struct live_level {
	DIR *dir; /* NULL: closed for now, and so are the other two */
	int tree_fd, previous_fd; /* previous_fd -1: it has no such folder */
	uint32_t entry;
	uint64_t path;
	long position; /* of a closed one, to go on from */
	bool known; /* its children are what is there: no need to read it */
	uint32_t next; /* of a known one: the child to go on with */
	size_t names; /* read so far */
	dev_t device;
	ino_t inode;
	int64_t ctime_ns;
	bool has_previous;
	bool young;
	bool torn; /* not read to its end: what was not seen may be there */
	bool touched; /* the copy's own times and attributes must be set again */
};

/* How much a pass has done, or left; bytes as they are stored. */
struct live_work {
	uint64_t files, bytes;
};
static inline void live_work_add(struct live_work *work, const struct stat *status)
{
	work->files++;
	work->bytes += (uint64_t)status->st_blocks * 512;
}

struct live {
	const struct live_copy_spec *spec;
	struct sandbox_copied report;
	struct live_index index;
	struct live_shares shares;
	struct live_list previous, list;
	struct live_mapped mapped;
	struct live_level *levels;
	size_t level_count, level_room;
	size_t first_open; /* levels before it are closed */
	char *buffer; /* LIVE_BUFFER_SIZE */
	uint8_t pass;
	bool frozen;
	bool cannot_clone;
	int64_t deadline_us; /* monotonic, of the frozen pass; 0: none */
	struct live_work done; /* copied in this pass */
	struct live_work still; /* passed over, as copying them again so early would be in vain */
	struct live_work young; /* of both: to be copied again when frozen */
	uint64_t looks; /* chances to give up */
	uint64_t dead; /* number of the last thing thrown into the scratch folder */
};

#define LIVE_BUFFER_SIZE (1024U * 1024)

static inline int64_t live_time_ns(const struct timespec *time)
{
	return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}
int64_t live_now_ns(void);
/* Is this ctime, seen at that time or later, too young to tell by it what changes from then on? */
bool live_is_young(int64_t ctime_ns, int64_t now_ns);

/* One pass over the whole folder. While the sandbox runs, what vanishes under way is passed over.
 */
MUSTCHECK int live_pass(struct live *live, struct error *err);
/* Frozen: marks as seen what need not be looked at again; all else is LIVE_DIRTY. ERROR_LIMIT when
 * that takes too long. */
MUSTCHECK int live_sweep(struct live *live, struct error *err);
/* The same looks while the sandbox runs, which change nothing: how long they take. */
int64_t live_rehearse(struct live *live);
/* What the numbers of the report say, and the lines of the list: once, at the end, as it puts the
 * entries that were removed out of reach. */
void live_count(struct live *live);
/* Is the failure of a call on the original one that a living sandbox causes? */
bool live_is_fleeting(const struct live *live, int sys);
/* Takes `name` out of a folder of the copy; it is deleted when nobody waits. Missing is fine. */
MUSTCHECK int live_throw_away(struct live *live, int tree_fd, const char *name, struct error *err);

/* Has the sandbox stood still for too long? */
bool live_is_late(const struct live *live);
int live_late(const struct live *live, struct error *err);
/* ERROR_CANCELLED when the copy is not wanted any more, ERROR_LIMIT when the sandbox has stood
 * still for too long; cheap. */
MUSTCHECK int live_check(struct live *live, struct error *err);
/* Makes `name` in the level's copy what it is in the original; whatever was there is gone before.
 * *ret_entry is filled in but for its place in the tree. False: nothing was made. */
MUSTCHECK int live_make(struct live *live, const struct live_level *level, const char *name,
	mode_t type, bool mapped, struct live_entry *ret_entry, bool *ret_made, struct error *err);

/* The content of a regular file of `status->st_size` bytes; flags LIVE_CLONED or 0. */
MUSTCHECK int live_data_copy(struct live *live, int from, int to, const struct stat *status,
	const char *name, uint8_t *ret_flags, struct error *err);

/* Something with extended attributes: a descriptor, or (fd -1) a path whose last part is not
 * followed. */
struct live_object {
	int fd;
	const char *path;
};
/* Makes `to` have exactly those of `from` that belong into a layer. */
MUSTCHECK int live_xattrs_copy(struct live *live, struct live_object from, struct live_object to,
	const char *name, struct error *err);
/* Owner, mode, attributes and times, in the order in which none undoes another. */
MUSTCHECK int live_attributes_copy(struct live *live, int from, int to, const struct stat *status,
	const char *name, struct error *err);

#endif
