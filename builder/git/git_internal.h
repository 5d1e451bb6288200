/* Between the files of the git part; everything here runs in a child process, under libgit2. */
#ifndef HOB_BUILDER_GIT_INTERNAL_H
#define HOB_BUILDER_GIT_INTERNAL_H

#include "base/memory.h"
#include "builder/git/git.h"

#include <git2.h>

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
/* "<mirrors>/<hash of the url>.git"; free() it. */
char *git_mirror_path(const struct git_source *source);
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

/* The child's side of git_checkout. */
struct git_checkout_task {
	const struct git_source *source;
	const struct git_found *found;
	int tree_fd;
	const char *path;
};
MUSTCHECK int git_checkout_child(
	struct child *child, void *context, void *ret_counts, struct error *err);

#endif
