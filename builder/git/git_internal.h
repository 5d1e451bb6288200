/* Between the files of the git part; everything here runs in a child process, under libgit2. */
#ifndef HOB_BUILDER_GIT_INTERNAL_H
#define HOB_BUILDER_GIT_INTERNAL_H

#include "base/memory.h"
#include "builder/git/git.h"

#include <git2.h>
#include <time.h>

struct child;

DEFINE_CLEANUP(git_repository_p, git_repository, git_repository_free)
DEFINE_CLEANUP(git_reference_p, git_reference, git_reference_free)
DEFINE_CLEANUP(git_object_p, git_object, git_object_free)
DEFINE_CLEANUP(git_commit_p, git_commit, git_commit_free)
DEFINE_CLEANUP(git_tree_p, git_tree, git_tree_free)
DEFINE_CLEANUP(git_blob_p, git_blob, git_blob_free)
DEFINE_CLEANUP(git_index_p, git_index, git_index_free)
DEFINE_CLEANUP(git_config_p, git_config, git_config_free)
DEFINE_CLEANUP(git_remote_p, git_remote, git_remote_free)
DEFINE_CLEANUP(git_revwalk_p, git_revwalk, git_revwalk_free)
DEFINE_CLEANUP(git_packbuilder_p, git_packbuilder, git_packbuilder_free)
DEFINE_CLEANUP(git_odb_p, git_odb, git_odb_free)
DEFINE_CLEANUP(git_diff_p, git_diff, git_diff_free)

/* libgit2 for this process: no configuration of the machine or of users, packs synced. */
MUSTCHECK int git_library_start(struct error *err);
/* What libgit2 says went wrong, as an error of a kind chosen by its code and class. */
int git_error_take(struct error *err, int code, const char *format, ...) PRINTF_LIKE(3, 4);

/* ---- the mirror ---- */
struct git_mirror {
	char *path;
	int lock_fd;
	git_repository *repository;
};

/* Waits for the lock, makes the mirror if there is none, clears what a killed fetch left, opens it.
 * ERROR_CORRUPT: it cannot be opened. */
MUSTCHECK int git_mirror_open(const struct git_source *source, struct child *child,
	struct git_mirror *ret_mirror, struct error *err);
void git_mirror_close(struct git_mirror *mirror);
/* Does it have this commit with all its history? */
bool git_mirror_has(const struct git_mirror *mirror, const git_oid *id);
/* Records `name` -> id. */
MUSTCHECK int git_mirror_set_ref(
	const struct git_mirror *mirror, const char *name, const git_oid *id, struct error *err);
/* Every commit from `tip` down to what the mirror's refs had before must be there: a shallow remote
 * ends in nothing. */
MUSTCHECK int git_mirror_check_history(const struct git_mirror *mirror, const git_oid *tip,
	struct child *child, struct error *err);
/* Many small packs slow everything: puts them together when there are too many. */
MUSTCHECK int git_mirror_tidy(
	const struct git_mirror *mirror, struct child *child, struct error *err);
/* The commit that an object (perhaps a tag) stands for, as text. */
MUSTCHECK int git_peel_text(
	git_repository *repository, const git_oid *id, char *ret_text, struct error *err);

/* ---- refs ---- */
struct git_ref_list {
	struct git_ref {
		char *name;
		git_oid id;
	} * items;
	size_t count, room;
	char *head_target; /* what HEAD points to, or NULL */
	git_oid head_id;
	bool has_head;
};
void git_ref_list_done(struct git_ref_list *list);
void git_ref_list_add(struct git_ref_list *list, const char *name, const git_oid *id);
/* Which ref is meant; its name in found->ref. ERROR_NOT_FOUND with similar names as the hint. */
MUSTCHECK int git_ref_choose(const struct git_ref_list *list, const struct git_source *source,
	struct git_found *found, git_oid *ret_id, struct error *err);
/* A full object id in hex? */
bool git_ref_is_commit(const char *ref);

/* ---- the two ways to fetch; both leave the ref set and found filled in ---- */
MUSTCHECK int git_fetch_remote(const struct git_source *source, struct git_mirror *mirror,
	struct child *child, struct git_found *found, struct error *err);
MUSTCHECK int git_fetch_local(const struct git_source *source, struct git_mirror *mirror,
	struct child *child, struct git_found *found, struct error *err);

/* Packs what `to` (a mirror or a workspace, its path and repository) lacks of all that leads to
 * `tip`, or with `folder` every loose object there. */
MUSTCHECK int git_pack_missing(git_repository *from, const struct git_mirror *to,
	const git_oid *tip, const char *folder, struct child *child, struct git_found *found,
	struct error *err);

/* ---- what a remote is fetched with (git_credential.c) ---- */
struct git_talk {
	const struct git_source *source;
	struct child *child;
	bool offered; /* once: a server that asks again has refused it */
	bool strange; /* ssh: the host's key is not known */
};
/* payload of both is the git_talk. */
int git_offer_credential(
	git_credential **ret, const char *url, const char *user, unsigned types, void *payload);
int git_check_certificate(git_cert *cert, int valid, const char *host, void *payload);

/* ---- a workspace, by a process that stands in its folder (git_workspace.c) ---- */
/* Makes `path` below tree_fd and enters it. */
MUSTCHECK int git_enter_workspace(int tree_fd, const char *path, struct error *err);
/* The mirror's packs into .git, but for those that the folder beside_fd (-1: none) has. */
MUSTCHECK int git_link_packs(const char *mirror, int beside_fd, struct error *err);
MUSTCHECK int git_write_config(const struct git_source *source, const struct git_found *found,
	const struct git_module_list *modules, struct error *err);
/* delta: only what differs from a full checkout of the same ref. */
MUSTCHECK int git_write_refs(
	git_repository *mirror, const struct git_found *found, bool delta, struct error *err);
/* Dates the index so that no entry as new as `newest_ms` is in doubt. */
MUSTCHECK int git_age_index(int64_t newest_ms, struct error *err);

/* ---- git's index as a file (git_index_file.c) ---- */
struct git_index_map {
	const unsigned char *data;
	size_t size, count;
	uint32_t *offsets;
};
/* ERROR_CORRUPT: it is no index of version 2. fd may be closed afterwards. */
MUSTCHECK int git_index_map_open(int fd, struct git_index_map *ret_map, struct error *err);
void git_index_map_done(struct git_index_map *map);
/* Path (the map's), id, mode, size and mtime. */
void git_index_map_get(
	const struct git_index_map *map, size_t position, git_index_entry *ret_entry);
bool git_index_map_find(
	const struct git_index_map *map, const char *path, git_index_entry *ret_entry);

struct git_index_out {
	struct buffer bytes;
	uint32_t count;
};
void git_index_out_init(struct git_index_out *out);
void git_index_out_done(struct git_index_out *out);
/* In the order of their paths. */
void git_index_out_add(struct git_index_out *out, const git_index_entry *entry);
void git_index_out_copy(
	struct git_index_out *out, const struct git_index_map *map, size_t position);
/* As .git/index, which must not be there. It shares the blocks that it has in common with `like`,
 * open as like_fd (-1: none), where the file system can. */
MUSTCHECK int git_index_out_write(struct git_index_out *out, const struct git_index_map *like,
	int like_fd, struct error *err);

/* When a file's content first stood at its path: what an index says, or else the
 * fallback. In milliseconds, as images are dated; git itself compares whole seconds. */
struct git_times {
	struct git_index_map index;
	int64_t fallback_ms;
};
struct git_checkout_task;
MUSTCHECK int git_times_open(const struct git_checkout_task *task, int64_t commit_s,
	struct git_times *ret_times, struct error *err);
void git_times_done(struct git_times *times);
int64_t git_time_of(
	const struct git_times *times, const char *path, const git_oid *id, uint32_t mode);
/* Into the index entry. */
void git_time_set(git_index_entry *entry, int64_t ms);

/* ---- where objects lie in the packs of a folder (git_pack_order.c) ---- */
struct git_pack_order;
struct git_pack_order *git_pack_order_new(const char *folder);
void git_pack_order_free(struct git_pack_order *order);
/* A number to sort by; UINT64_MAX: in none of them. */
uint64_t git_pack_order_of(const struct git_pack_order *order, const git_oid *id);

/* ---- single entries of a tree, as `git checkout` writes them (git_writer.c) ---- */
/* Folders that a writer keeps open; below the usual limit of 1,024 descriptors. */
#define GIT_FOLDERS_KEPT 512
struct git_writer {
	git_repository *repository;
	git_oid commit; /* whose .gitattributes count */
	bool plain; /* there are none */
	uint64_t lfs; /* files written that are pointers of large ones */
	int root_fd;
	int folder_fd; /* the last one's; folders[] owns it */
	struct git_folder {
		char *path; /* NULL: no folder */
		int fd;
	} folders[GIT_FOLDERS_KEPT];
};
#define GIT_WRITER_INIT                                                                            \
	{                                                                                          \
		.root_fd = -1, .folder_fd = -1                                                     \
	}
void git_writer_done(struct git_writer *writer);
/* Fills in size and times of the index entry, whose path, id and mode are given. */
MUSTCHECK int git_writer_put(
	struct git_writer *writer, git_index_entry *entry, int64_t time_ms, struct error *err);
/* A whiteout: what layers below have there is gone. */
MUSTCHECK int git_writer_hide(struct git_writer *writer, const char *path, struct error *err);
/* ERROR_DENIED for a path that git would not check out: "..", ".git" and their disguises. */
MUSTCHECK int git_path_check(const char *path, struct error *err);

/* The tree of a commit (and its id and time, unless NULL). ERROR_CORRUPT: the repository lacks it.
 */
MUSTCHECK int git_tree_of(git_repository *repository, const char *hex, git_oid *ret_id,
	int64_t *ret_time, git_tree **ret_tree, struct error *err);

/* ---- the children's sides of git_checkout, git_change ---- */
struct git_checkout_task {
	const struct git_source *source;
	const struct git_found *found;
	int tree_fd;
	const char *path;
	int previous_fd; /* an index to take times from; -1: none */
	int64_t after_ms; /* new content is newer than this */
	const struct git_module_list *modules; /* see struct git_place */
	bool any_size;
};
MUSTCHECK int git_checkout_child(
	struct child *child, void *context, void *ret_counts, struct error *err);

struct git_delta_task {
	struct git_checkout_task checkout;
	const char *full_commit;
	int full_fd; /* the full checkout's workspace */
};
MUSTCHECK int git_delta_child(
	struct child *child, void *context, void *ret_delta, struct error *err);

struct git_inputs_task {
	const struct git_source *source;
	const char *commit;
	char *const *const *lists;
	size_t count;
	bool modules;
};
MUSTCHECK int git_inputs_child(
	struct child *child, void *context, void *ret_inputs, struct error *err);

struct git_changes_task {
	const struct git_source *source;
	const char *from, *to;
	int to_fd;
};
MUSTCHECK int git_changes_child(
	struct child *child, void *context, void *ret_nothing, struct error *err);

struct git_pick_task {
	struct git_checkout_task checkout;
	char *const *patterns;
	const char *below;
};
MUSTCHECK int git_pick_child(
	struct child *child, void *context, void *ret_files, struct error *err);
struct git_checkout_task git_checkout_task_of(const struct git_source *source,
	const struct git_found *found, const struct git_place *place);
/* Calls fn for each entry that is no folder, in the order of the tree. No more than GIT_FILES_MAX
 * entries, so that a tree that holds itself many times over is refused. */
#define GIT_FILES_MAX 4000000
typedef int git_file_fn(
	void *context, const char *path, const git_tree_entry *entry, struct error *err);
MUSTCHECK int git_files_walk(git_repository *repository, struct child *child, const git_tree *tree,
	git_file_fn *fn, void *context, struct error *err);

#endif
