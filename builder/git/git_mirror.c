/*
 * A bare mirror a url. Invariants: it appears by rename, whole; it changes only under the lock
 * beside it; a ref in it is set only after all history below it is there; a pack in it is never
 * written again. What a killed fetch leaves (temporary packs, ref locks) is cleared under the lock.
 */
#include "builder/git/git_internal.h"

#include "base/digest.h"
#include "base/io.h"
#include "builder/child.h"
#include "gen/version.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#define MIRROR_HASH_LENGTH 32

/* Memory that one process of the git part may take: an object that says it is huge, or that grows
 * when it is unpacked, fails by itself and not by the machine's memory. Mapped packs do not count.
 */
#define MEMORY_MAX (4LL * 1024 * 1024 * 1024)

static void limit_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their shadows are larger */
	struct rlimit memory;

	if (getrlimit(RLIMIT_DATA, &memory) == 0 &&
		(memory.rlim_cur == RLIM_INFINITY || memory.rlim_cur > MEMORY_MAX)) {
		memory.rlim_cur = MEMORY_MAX;
		setrlimit(RLIMIT_DATA, &memory);
	}
#endif
}

int git_library_start(struct error *err)
{
	static const int levels[] = {GIT_CONFIG_LEVEL_SYSTEM, GIT_CONFIG_LEVEL_XDG,
		GIT_CONFIG_LEVEL_GLOBAL, GIT_CONFIG_LEVEL_PROGRAMDATA};
	bool failed = git_libgit2_init() < 0;

	limit_memory();

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		failed |= git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "") < 0;
	}
	/* Nothing is executed on behalf of a repository's configuration, and who may be read is
	 * decided by the kernel, so the owner does not matter. */
	failed |= git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0) < 0;
	failed |= git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1) < 0;
	failed |= git_libgit2_opts(GIT_OPT_SET_USER_AGENT, "hob/" HOB_VERSION) < 0;
	return failed ? git_error_take(err, GIT_ERROR, "libgit2 does not start") : 0;
}

static enum error_kind kind_of(int code, int klass)
{
	switch (code) {
	case GIT_ENOTFOUND:
		return klass == GIT_ERROR_ODB ? ERROR_CORRUPT : ERROR_NOT_FOUND;
	case GIT_EMISMATCH:
		return ERROR_CORRUPT;
	case GIT_EAUTH:
	case GIT_ECERTIFICATE:
		return ERROR_DENIED;
	case GIT_EEOF:
		return ERROR_REMOTE;
	default:
		break;
	}
	switch (klass) {
	case GIT_ERROR_NET:
	case GIT_ERROR_HTTP:
	case GIT_ERROR_SSL:
		return ERROR_REMOTE;
	case GIT_ERROR_ODB:
	case GIT_ERROR_ZLIB:
	case GIT_ERROR_OBJECT:
		return ERROR_CORRUPT;
	default:
		return ERROR_FAILED;
	}
}

int git_error_take(struct error *err, int code, const char *format, ...)
{
	const git_error *last = git_error_last();
	int klass = last != NULL ? last->klass : GIT_ERROR_NONE;
	char context[ERROR_MESSAGE_SIZE / 2];
	int saved = errno;
	va_list args;

	va_start(args, format);
	vsnprintf(context, sizeof(context), format, args);
	va_end(args);
	if ((klass == GIT_ERROR_OS || klass == GIT_ERROR_FILESYSTEM) &&
		(saved == ENOSPC || saved == EDQUOT)) {
		return error_sys(err, saved, "%s", context);
	}
	return error_set(err, kind_of(code, klass), "%s: %s", context,
		last != NULL && last->message != NULL ? last->message : "no reason given");
}

char *git_mirror_path(const struct git_source *source)
{
	char hash[SHA256_TEXT_SIZE];

	digest_of(source->url, strlen(source->url), hash);
	return xasprintf("%s/%.*s.git", source->mirrors, MIRROR_HASH_LENGTH, hash);
}

/* Another build may be fetching the same url: that is progress too, so the wait is a sign of life.
 */
static int lock_mirror(const char *path, struct child *child, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *lock = xasprintf("%s.lock", path);
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, lock, O_RDWR | O_CREAT, 0600, err);
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};

	if (fd < 0) {
		return fd;
	}
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR) {
			return error_sys(err, errno, "lock %s", lock);
		}
		child_progress(child, "waiting", 0, 0, 0);
		nanosleep(&pause, NULL);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int create_mirror(const char *path, struct error *err)
{
	CLEANUP(free_p) char *fresh = xasprintf("%s.new", path);
	CLEANUP(git_repository_p) git_repository *repository = NULL;
	git_repository_init_options options;
	int code;

	if (io_remove_tree(AT_FDCWD, fresh, err) < 0) {
		return error_wrap(err, "clear a half-made mirror");
	}
	git_repository_init_options_init(&options, GIT_REPOSITORY_INIT_OPTIONS_VERSION);
	options.flags = GIT_REPOSITORY_INIT_BARE | GIT_REPOSITORY_INIT_MKPATH |
			GIT_REPOSITORY_INIT_NO_REINIT;
	options.initial_head = "main";
	code = git_repository_init_ext(&repository, fresh, &options);
	if (code < 0) {
		return git_error_take(err, code, "make the mirror %s", fresh);
	}
	return rename(fresh, path) < 0 ? error_sys(err, errno, "rename to %s", path) : 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), wanted = strlen(end);

	return length >= wanted && streq(text + length - wanted, end);
}

/* Below refs/ and at the top: locks of a writer that is dead, since we hold the mirror. */
static void clear_locks(int dir_fd, const char *path, int depth)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, path, &ignored);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_type == DT_REG && ends_with(entry->d_name, ".lock")) {
			unlinkat(dirfd(dir), entry->d_name, 0);
		} else if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && depth > 0) {
			clear_locks(dirfd(dir), entry->d_name, depth - 1);
		}
	}
}

/* Whatever is in objects/pack and no finished pack, and packs that lost their other half. */
static void clear_packs(int dir_fd)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, "objects/pack", &ignored);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_type == DT_REG && !str_starts(entry->d_name, "pack-")) {
			unlinkat(dirfd(dir), entry->d_name, 0);
		}
	}
}

static int clear_leftovers(const char *path, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);

	if (fd < 0) {
		return fd;
	}
	clear_locks(fd, ".", 0);
	clear_locks(fd, "refs", 16);
	clear_packs(fd);
	return 0;
}

int git_mirror_open(const struct git_source *source, struct child *child,
	struct git_mirror *ret_mirror, struct error *err)
{
	char *path = ret_mirror->path = git_mirror_path(source);
	struct stat seen;
	int status = lock_mirror(path, child, &ret_mirror->lock_fd, err), code;

	if (status < 0) {
		return status;
	}
	if (stat(path, &seen) < 0) {
		status = create_mirror(path, err);
	} else {
		status = clear_leftovers(path, err);
	}
	if (status < 0) {
		return status;
	}
	code = git_repository_open_bare(&ret_mirror->repository, path);
	if (code < 0) {
		git_error_take(err, code, "open the mirror %s", path);
		err->kind = ERROR_CORRUPT;
		return -ERROR_CORRUPT;
	}
	return 0;
}

void git_mirror_close(struct git_mirror *mirror)
{
	git_repository_free(mirror->repository);
	mirror->repository = NULL;
	fd_done(&mirror->lock_fd);
	free(mirror->path);
	mirror->path = NULL;
}

bool git_mirror_has(const struct git_mirror *mirror, const git_oid *id)
{
	git_reference_iterator *iterator = NULL;
	git_reference *reference = NULL;
	git_odb *odb = NULL;
	bool has = false;

	if (git_repository_odb(&odb, mirror->repository) < 0 || !git_odb_exists(odb, id) ||
		git_reference_iterator_new(&iterator, mirror->repository) < 0) {
		git_odb_free(odb);
		return false;
	}
	while (!has && git_reference_next(&reference, iterator) == 0) {
		const git_oid *target = git_reference_target(reference);
		git_object *commit = NULL;

		has = target != NULL && git_oid_equal(target, id);
		if (!has && git_reference_peel(&commit, reference, GIT_OBJECT_COMMIT) == 0) {
			target = git_object_id(commit);
			has = git_oid_equal(target, id) ||
			      git_graph_descendant_of(mirror->repository, target, id) == 1;
		}
		git_object_free(commit);
		git_reference_free(reference);
	}
	git_reference_iterator_free(iterator);
	git_odb_free(odb);
	return has;
}

int git_mirror_set_ref(
	const struct git_mirror *mirror, const char *name, const git_oid *id, struct error *err)
{
	CLEANUP(git_reference_p) git_reference *reference = NULL;
	char hex[GIT_OID_HEXSZ + 1];
	int code;

	if (name[0] != '\0') {
		code = git_reference_create(&reference, mirror->repository, name, id, 1, NULL);
	} else {
		CLEANUP(free_p) char *own = NULL;

		git_oid_tostr(hex, sizeof(hex), id);
		own = xasprintf("refs/hob/commits/%s", hex);
		code = git_reference_create(&reference, mirror->repository, own, id, 1, NULL);
	}
	return code < 0 ? git_error_take(err, code, "set %s in the mirror", name) : 0;
}

int git_mirror_check_history(
	const struct git_mirror *mirror, const git_oid *tip, struct child *child, struct error *err)
{
	CLEANUP(git_object_p) git_object *commit = NULL;
	CLEANUP(git_revwalk_p) git_revwalk *walk = NULL;
	uint64_t seen = 0;
	git_oid id;
	int code = git_object_lookup(&commit, mirror->repository, tip, GIT_OBJECT_ANY);

	if (code == 0) {
		git_object *peeled = NULL;

		code = git_object_peel(&peeled, commit, GIT_OBJECT_COMMIT);
		git_object_free(commit);
		commit = peeled;
	}
	if (code < 0) {
		return git_error_take(err, code, "what came is no commit");
	}
	if (git_revwalk_new(&walk, mirror->repository) < 0 ||
		git_revwalk_push(walk, git_object_id(commit)) < 0) {
		return git_error_take(err, GIT_ERROR, "walk the history");
	}
	git_revwalk_hide_glob(walk, "refs/*"); /* fails only when there is no ref yet */
	while ((code = git_revwalk_next(&id, walk)) == 0) {
		child_progress(child, "commits", ++seen, 0, 0);
	}
	if (code == GIT_ITEROVER) {
		return 0;
	}
	git_error_take(err, code, "the history ends in a commit that is missing");
	err->kind = ERROR_UNSUPPORTED;
	return error_hint(
		err, "the source is a shallow or partial clone: use a complete repository");
}

int git_peel_text(git_repository *repository, const git_oid *id, char *ret_text, struct error *err)
{
	CLEANUP(git_object_p) git_object *object = NULL;
	CLEANUP(git_object_p) git_object *commit = NULL;
	int code = git_object_lookup(&object, repository, id, GIT_OBJECT_ANY);

	if (code == 0) {
		code = git_object_peel(&commit, object, GIT_OBJECT_COMMIT);
	}
	if (code < 0) {
		return git_error_take(err, code, "find the commit");
	}
	git_oid_tostr(ret_text, COMMIT_TEXT_SIZE, git_object_id(commit));
	return 0;
}
