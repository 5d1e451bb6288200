/*
 * The parent's side of sources: urls, and starting the children that fetch and check out. The one
 * decision taken here is what to do with a mirror that turns out broken: drop it and fetch once
 * more.
 */
#include "builder/git/git.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_internal.h"
#include "builder/machine.h"
#include "builder/report.h"

#include <fcntl.h>
#include <stdio.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	if (c >= 'a' && c <= 'f') {
		return c - 'a' + 10;
	}
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static char *percent_decode(const char *text)
{
	char *decoded = xstrdup(text), *to = decoded;

	for (const char *from = text; *from != '\0'; from++) {
		if (from[0] == '%' && hex_value(from[1]) >= 0 && hex_value(from[2]) >= 0 &&
			(from[1] != '0' || from[2] != '0')) {
			*to++ = (char)(hex_value(from[1]) * 16 + hex_value(from[2]));
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	return decoded;
}

char *git_url_path(const char *url)
{
	if (url[0] == '/') {
		return xstrdup(url);
	}
	if (str_starts(url, "file:///")) {
		return percent_decode(url + strlen("file://"));
	}
	if (str_starts(url, "file://localhost/")) {
		return percent_decode(url + strlen("file://localhost"));
	}
	return NULL;
}

char *git_url_public(const char *url)
{
	const char *host = strstr(url, "://");
	const char *end, *at, *colon;

	if (host == NULL) {
		return xstrdup(url);
	}
	host += strlen("://");
	end = host + strcspn(host, "/?#");
	at = memrchr(host, '@', (size_t)(end - host));
	colon = at != NULL ? memchr(host, ':', (size_t)(at - host)) : NULL;
	if (colon == NULL) {
		return xstrdup(url);
	}
	return xasprintf("%.*s%s", (int)(colon - url), url, at);
}

bool git_ref_is_commit(const char *ref)
{
	return strlen(ref) == GIT_OID_HEXSZ && strspn(ref, "0123456789abcdef") == GIT_OID_HEXSZ;
}

struct fetch_task {
	const struct git_source *source;
};

static int fetch_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	const struct git_source *source = ((struct fetch_task *)context)->source;
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	struct git_found *found = ret_result;
	int status = git_library_start(err);

	if (status < 0) {
		return status;
	}
	status = git_mirror_open(source, child, &mirror, err);
	if (status < 0) {
		return status;
	}
	status = source->local != NULL ? git_fetch_local(source, &mirror, child, found, err)
				       : git_fetch_remote(source, &mirror, child, found, err);
	if (status < 0 || !found->fetched) {
		return status;
	}
	return git_mirror_tidy(&mirror, child, err);
}

/* What came from the child, before anybody trusts it in a path or a query. */
static int check_found(struct git_found *found, struct error *err)
{
	found->ref[GIT_REF_SIZE - 1] = '\0';
	found->commit[COMMIT_TEXT_SIZE - 1] = '\0';
	if (!git_ref_is_commit(found->commit)) {
		return error_set(err, ERROR_INTERNAL, "the fetch answered with no commit");
	}
	return 0;
}

/* A local source may be read at another place than its own; nobody wants to hear of that. */
static void show_own_path(const struct git_source *source, struct error *err)
{
	CLEANUP(free_p) char *own = git_url_path(source->url);
	char *at = source->local != NULL ? strstr(err->message, source->local) : NULL;
	CLEANUP(free_p) char *text = NULL;

	if (at == NULL || own == NULL || streq(own, source->local)) {
		return;
	}
	text = xasprintf("%.*s%s%s", (int)(at - err->message), err->message, own,
		at + strlen(source->local));
	snprintf(err->message, sizeof(err->message), "%s", text);
}

static int fetch_once(struct machine *machine, const struct git_source *source,
	struct git_found *ret_found, struct error *err)
{
	CLEANUP(free_p) char *url = git_url_public(source->url);
	CLEANUP(free_p) char *what = xasprintf("fetch %s", url);
	struct fetch_task task = {source};
	struct git_found found = {0};
	struct child_spec spec = {
		.what = what,
		.run = fetch_child,
		.context = &task,
		.result_size = sizeof(found),
		.stall_ms = source->stall_ms,
	};
	int status = child_run(machine, &spec, &found, err);

	if (status == 0) {
		status = check_found(&found, err);
	}
	if (status == 0) {
		*ret_found = found;
	} else {
		show_own_path(source, err);
	}
	return status;
}

int git_fetch(struct machine *machine, const struct git_source *source, struct git_found *ret_found,
	struct error *err)
{
	int status = fetch_once(machine, source, ret_found, err);

	if (status != -ERROR_CORRUPT) {
		return status;
	}
	report_line(machine->report, "the mirror is damaged (%s): fetching it anew", err->message);
	status = git_mirror_drop(source, err);
	return status < 0 ? status : fetch_once(machine, source, ret_found, err);
}

int git_mirror_drop(const struct git_source *source, struct error *err)
{
	CLEANUP(free_p) char *path = git_mirror_path(source);

	return io_remove_tree(AT_FDCWD, path, err);
}

struct git_checkout_task git_checkout_task_of(const struct git_source *source,
	const struct git_found *found, const struct git_place *place)
{
	return (struct git_checkout_task){.source = source,
		.found = found,
		.tree_fd = place->tree_fd,
		.path = place->path,
		.previous_fd = place->previous_fd,
		.after_ms = place->after_ms,
		.modules = place->modules,
		.any_size = place->any_size};
}

/* The descriptors that a child keeps, without those that are not there. */
static size_t keep_fds(int *fds, int first, int second, int third)
{
	size_t count = 0;

	fds[count++] = first;
	if (second >= 0) {
		fds[count++] = second;
	}
	if (third >= 0) {
		fds[count++] = third;
	}
	return count;
}

int git_checkout(struct machine *machine, const struct git_source *source,
	const struct git_found *found, const struct git_place *place,
	struct git_checked_out *ret_counts, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("check out %.12s", found->commit);
	struct git_checkout_task task = git_checkout_task_of(source, found, place);
	struct git_checked_out counts = {0};
	int fds[3];
	struct child_spec spec = {
		.what = what,
		.run = git_checkout_child,
		.context = &task,
		.result_size = sizeof(counts),
		.fds = fds,
		.fd_count = keep_fds(fds, place->tree_fd, place->previous_fd, -1),
		.stall_ms = source->stall_ms,
	};
	int status = child_run(machine, &spec, &counts, err);

	if (status == 0) {
		*ret_counts = counts;
	}
	return status;
}

int git_write_delta(struct machine *machine, const struct git_source *source,
	const struct git_found *found, const char *full_commit, int full_fd,
	const struct git_place *place, struct git_delta *ret_delta, struct error *err)
{
	CLEANUP(free_p)
	char *what = xasprintf("write %.12s over %.12s", found->commit, full_commit);
	struct git_delta_task task = {.checkout = git_checkout_task_of(source, found, place),
		.full_commit = full_commit,
		.full_fd = full_fd};
	struct git_delta delta = {0};
	int fds[3];
	struct child_spec spec = {
		.what = what,
		.run = git_delta_child,
		.context = &task,
		.result_size = sizeof(delta),
		.fds = fds,
		.fd_count = keep_fds(fds, place->tree_fd, full_fd, place->previous_fd),
		.stall_ms = source->stall_ms,
	};
	int status = child_run(machine, &spec, &delta, err);

	if (status == 0) {
		delta.why[sizeof(delta.why) - 1] = '\0';
		*ret_delta = delta;
	}
	return status;
}
