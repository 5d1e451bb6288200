/*
 * Fetching from a server, in a child process: list its refs, choose one, download what is missing
 * for it, check that the history is whole, only then set the ref. One connection for all of it.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "builder/child.h"

#include <stdio.h>

static int on_sideband(const char *text, int length, void *payload)
{
	const struct git_talk *talk = payload;

	(void)text;
	(void)length;
	child_progress(talk->child, "counting", 0, 0, 0);
	return 0;
}

static int on_transfer(const git_indexer_progress *stats, void *payload)
{
	const struct git_talk *talk = payload;
	bool deltas = stats->received_objects == stats->total_objects && stats->total_deltas > 0;

	fault_point("git.transfer");
	if (deltas) {
		child_progress(talk->child, "deltas", stats->indexed_deltas, stats->total_deltas,
			stats->received_bytes);
	} else {
		child_progress(talk->child, "objects", stats->received_objects,
			stats->total_objects, stats->received_bytes);
	}
	return 0;
}

static void options_init(git_fetch_options *options, struct git_talk *talk)
{
	git_fetch_options_init(options, GIT_FETCH_OPTIONS_VERSION);
	options->callbacks.sideband_progress = on_sideband;
	options->callbacks.transfer_progress = on_transfer;
	options->callbacks.payload = talk;
	if (talk->source->credential != NULL) {
		options->callbacks.credentials = git_offer_credential;
		options->callbacks.certificate_check = git_check_certificate;
	}
	options->update_fetchhead = 0;
	options->download_tags = GIT_REMOTE_DOWNLOAD_TAGS_NONE;
	options->proxy_opts.type = GIT_PROXY_AUTO;
	/* A credential is for the server that the operator named. */
	options->follow_redirects = talk->source->credential != NULL ? GIT_REMOTE_REDIRECT_NONE
								     : GIT_REMOTE_REDIRECT_INITIAL;
}

/* Whatever the library's class says: the other side did this. */
static int refused(struct error *err, const struct git_talk *talk)
{
	err->kind = ERROR_DENIED;
	if (talk->strange) {
		return error_hint(err, "the host's key is not in the secret that auth.known_hosts "
				       "names: compare it, then add it there");
	}
	return talk->source->credential != NULL
		       ? error_hint(err, "the server refused what `auth` of the source names")
		       : error_hint(err, "say `auth` of the source if it is not public");
}

static int remote_error(struct error *err, int code, const struct git_talk *talk, const char *doing)
{
	CLEANUP(free_p) char *url = git_url_public(talk->source->url);

	git_error_take(err, code, "%s %s", doing, url);
	if (talk->strange || (err->kind == ERROR_DENIED && code == GIT_EAUTH)) {
		return refused(err, talk);
	}
	if (err->kind == ERROR_NO_SPACE || err->kind == ERROR_DENIED) {
		return -(int)err->kind;
	}
	if (strstr(err->message, "authentication") != NULL) {
		return refused(err, talk);
	}
	if (strstr(err->message, "shallow") != NULL) {
		err->kind = ERROR_UNSUPPORTED;
		return error_hint(err, "the source is a shallow clone: use a complete repository");
	}
	err->kind = ERROR_REMOTE;
	return error_hint(err, "check the url and the network; the last image stays in use");
}

static int list_refs(git_remote *remote, const struct git_talk *talk, struct git_ref_list *list,
	struct error *err)
{
	const git_remote_head **heads;
	size_t count;
	int code = git_remote_ls(&heads, &count, remote);

	if (code < 0) {
		return remote_error(err, code, talk, "list the refs of");
	}
	for (size_t i = 0; i < count; i++) {
		if (streq(heads[i]->name, "HEAD")) {
			list->has_head = true;
			list->head_id = heads[i]->oid;
			list->head_target = xstrdup(heads[i]->symref_target);
		} else {
			git_ref_list_add(list, heads[i]->name, &heads[i]->oid);
		}
	}
	return 0;
}

static int download(git_remote *remote, struct git_talk *talk, const char *const *specs,
	size_t count, struct error *err)
{
	git_fetch_options options;
	char *strings[2];
	git_strarray list = {strings, count};
	int code;

	for (size_t i = 0; i < count; i++) {
		strings[i] = (char *)(uintptr_t)specs[i];
	}
	talk->offered = false;
	options_init(&options, talk);
	code = git_remote_download(remote, &list, &options);
	return code < 0 ? remote_error(err, code, talk, "fetch from") : 0;
}

static void count_transfer(git_remote *remote, struct git_found *found)
{
	const git_indexer_progress *stats = git_remote_stats(remote);

	found->fetched = true;
	found->objects = stats != NULL ? stats->received_objects : 0;
	found->bytes = stats != NULL ? stats->received_bytes : 0;
}

/* A commit by its id: servers rarely give one that no ref names, so all branches and tags come. */
static int fetch_commit(struct git_talk *talk, git_remote *remote, const struct git_mirror *mirror,
	const struct git_ref_list *list, struct git_found *found, struct error *err)
{
	static const char *const specs[] = {
		"+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"};
	const struct git_source *source = talk->source;
	CLEANUP(git_odb_p) git_odb *odb = NULL;
	git_oid id;
	int status = download(remote, talk, specs, ARRAY_SIZE(specs), err);

	if (status < 0) {
		return status;
	}
	count_transfer(remote, found);
	if (git_oid_fromstr(&id, source->ref) < 0 ||
		git_repository_odb(&odb, mirror->repository) < 0) {
		return git_error_take(err, GIT_ERROR, "look for %s", source->ref);
	}
	git_odb_refresh(odb);
	if (!git_odb_exists(odb, &id)) {
		error_set(err, ERROR_NOT_FOUND,
			"none of its %zu branches and tags leads to commit %s", list->count,
			source->ref);
		return error_hint(
			err, "was the branch with it deleted? push the commit under a name");
	}
	status = git_mirror_check_history(mirror, &id, talk->child, err);
	return status < 0 ? status : git_mirror_set_ref(mirror, "", &id, err);
}

static int fetch_ref(struct git_talk *talk, git_remote *remote, const struct git_mirror *mirror,
	const git_oid *id, struct git_found *found, struct error *err)
{
	CLEANUP(free_p) char *spec = NULL;
	const char *name = found->ref[0] != '\0' ? found->ref : "HEAD";
	const char *specs[1];
	int status;

	if (git_mirror_has(mirror, id)) {
		return git_mirror_set_ref(mirror, found->ref, id, err);
	}
	spec = xasprintf("+%s:%s", name, found->ref[0] != '\0' ? name : "refs/hob/head");
	specs[0] = spec;
	status = download(remote, talk, specs, 1, err);
	if (status < 0) {
		return status;
	}
	count_transfer(remote, found);
	status = git_mirror_check_history(mirror, id, talk->child, err);
	if (status < 0) {
		return status;
	}
	fault_point("git.fetched");
	return git_mirror_set_ref(mirror, found->ref, id, err);
}

int git_fetch_remote(const struct git_source *source, struct git_mirror *mirror,
	struct child *child, struct git_found *found, struct error *err)
{
	CLEANUP(git_remote_p) git_remote *remote = NULL;
	CLEANUP(git_ref_list_done) struct git_ref_list list = {0};
	struct git_talk talk = {.source = source, .child = child};
	git_fetch_options options;
	git_oid id;
	int status, code;

	if (source->ref != NULL && git_ref_is_commit(source->ref)) {
		git_oid_fromstr(&id, source->ref);
		if (git_mirror_has(mirror, &id)) {
			return git_peel_text(mirror->repository, &id, found->commit, err);
		}
	}
	code = git_remote_create_anonymous(&remote, mirror->repository, source->url);
	if (code == 0) {
		options_init(&options, &talk);
		code = git_remote_connect(
			remote, GIT_DIRECTION_FETCH, &options.callbacks, &options.proxy_opts, NULL);
	}
	if (code < 0) {
		return remote_error(err, code, &talk, "connect to");
	}
	status = list_refs(remote, &talk, &list, err);
	if (status < 0) {
		return status;
	}
	if (source->ref != NULL && git_ref_is_commit(source->ref)) {
		status = fetch_commit(&talk, remote, mirror, &list, found, err);
	} else {
		status = git_ref_choose(&list, source, found, &id, err);
		if (status == 0) {
			status = fetch_ref(&talk, remote, mirror, &id, found, err);
		}
	}
	return status < 0 ? status : git_peel_text(mirror->repository, &id, found->commit, err);
}
