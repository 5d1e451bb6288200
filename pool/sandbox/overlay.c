/*
 * fsopen, fsconfig, fsmount. Layers go in as descriptors where the kernel takes them (6.13), as
 * /proc/self/fd links where it takes them one by one (6.8), else all in the one string of mount(2),
 * whose layers are counted afterwards because the kernel cuts that string silently. In each case
 * options that would make a layer's meaning depend on its neighbours stay off.
 */
#include "pool/sandbox/overlay.h"

#include "base/buffer.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"
#include "pool/sandbox/places.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

/* mount(2) reads one page of options less its end. */
#define MOUNT_OPTIONS_MAX 4095
#define MOUNTINFO_MAX (1024 * 1024)

enum layer_method { BY_FD, BY_LINK, BY_STRING };

int mount_clone(int fd, int userns_fd, unsigned long attributes, int *ret_fd, struct error *err)
{
	CLEANUP(close_p)
	int clone = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	struct mount_attr attr = {.attr_set = attributes};

	if (clone < 0) {
		return error_sys(err, errno, "open_tree");
	}
	if (userns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (unsigned)userns_fd;
	}
	if (attr.attr_set != 0 &&
		mount_setattr(clone, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0) {
		error_sys(err, errno, "map the ids of a mount");
		return error_hint(err,
			"does the file system of the store support id-mapped mounts? "
			"ext4, xfs and btrfs do");
	}
	*ret_fd = steal_fd(&clone);
	return 0;
}

static int set_folder(int fs, enum layer_method method, const char *key, int fd)
{
	char link[40];

	if (method == BY_FD) {
		return fsconfig(fs, FSCONFIG_SET_FD, key, NULL, fd);
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return fsconfig(fs, FSCONFIG_SET_STRING, key, link, 0);
}

static int configure(int fs, const struct overlay *overlay, enum layer_method method)
{
	static const char *const off[] = {"redirect_dir", "metacopy"};

	for (size_t i = 0; i < overlay->lower_count; i++) {
		if (set_folder(fs, method, "lowerdir+", overlay->lower_fds[i]) < 0) {
			return -1;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(off); i++) {
		if (fsconfig(fs, FSCONFIG_SET_STRING, off[i], "off", 0) < 0) {
			return -1;
		}
	}
	if (fsconfig(fs, FSCONFIG_SET_STRING, "index", overlay->is_probe ? "on" : "off", 0) < 0 ||
		(overlay->is_volatile &&
			fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0) ||
		set_folder(fs, method, "upperdir", overlay->upper_fd) < 0 ||
		set_folder(fs, method, "workdir", overlay->work_fd) < 0) {
		return -1;
	}
	return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

/* What the kernel says about the last failure, in place of a bare errno. */
static int failure(int fs, int sys, struct error *err)
{
	char text[256];
	ssize_t got = read(fs, text, sizeof(text) - 1);

	if (got <= 2) {
		return error_sys(err, sys, "mount an overlay");
	}
	text[got] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return error_sys(err, sys, "mount an overlay (%s)", text + 2);
}

static int mount_new(
	const struct overlay *overlay, enum layer_method method, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	int fd;

	if (fs < 0) {
		return error_sys(err, errno, "fsopen overlay");
	}
	if (configure(fs, overlay, method) < 0) {
		return failure(fs, errno, err);
	}
	fd = fsmount(
		fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME);
	if (fd < 0) {
		return error_sys(err, errno, "fsmount an overlay");
	}
	*ret_fd = fd;
	return 0;
}

/* Counts the layers of what is mounted at PLACE_SCRATCH, as the kernel shows them. */
static size_t layers_mounted(void)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error ignored = ERROR_INIT;
	const char *line, *at;
	size_t count = 1;

	buffer_init(&text, MOUNTINFO_MAX);
	if (io_read_file(AT_FDCWD, "/proc/self/mountinfo", &text, &ignored) < 0) {
		return 0;
	}
	line = strstr(buffer_text(&text), " " PLACE_SCRATCH " ");
	at = line != NULL ? strstr(line, "lowerdir=") : NULL;
	if (at == NULL) {
		return 0;
	}
	for (; *at != ',' && *at != '\n' && *at != '\0'; at++) {
		count += *at == ':' ? 1 : 0;
	}
	return count;
}

static int mount_old(const struct overlay *overlay, int *ret_fd, struct error *err)
{
	CLEANUP(buffer_done) struct buffer options;
	CLEANUP(close_p) int fd = -1;
	bool fits;
	int status = 0;

	buffer_init(&options, MOUNT_OPTIONS_MAX);
	fits = buffer_addf(&options, "redirect_dir=off,metacopy=off,index=%s%s",
		overlay->is_probe ? "on" : "off", overlay->is_volatile ? ",volatile" : "");
	fits = fits && buffer_addf(&options, ",upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d",
			       overlay->upper_fd, overlay->work_fd);
	for (size_t i = 0; i < overlay->lower_count; i++) {
		fits = fits && buffer_addf(&options, "%s/proc/self/fd/%d",
				       i == 0 ? ",lowerdir=" : ":", overlay->lower_fds[i]);
	}
	if (!fits) {
		return error_set(err, ERROR_LIMIT,
			"%zu layers are too many for this kernel's mount(2)", overlay->lower_count);
	}
	if (mount("overlay", PLACE_SCRATCH, "overlay", MS_NODEV | MS_NOSUID | MS_NOATIME,
		    buffer_text(&options)) < 0) {
		return error_sys(err, errno, "mount an overlay");
	}
	if (layers_mounted() != overlay->lower_count) {
		status = error_set(err, ERROR_UNSUPPORTED,
			"the kernel did not mount all of %zu layers", overlay->lower_count);
	} else {
		fd = open_tree(AT_FDCWD, PLACE_SCRATCH, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		status = fd < 0 ? error_sys(err, errno, "open_tree " PLACE_SCRATCH) : 0;
	}
	if (umount2(PLACE_SCRATCH, 0) < 0 && status == 0) {
		status = error_sys(err, errno, "umount " PLACE_SCRATCH);
	}
	if (status == 0) {
		*ret_fd = steal_fd(&fd);
	}
	return status;
}

/* The best that this kernel knows, asked once with a folder that is surely fit to be a layer. */
static enum layer_method method_find(void)
{
	CLEANUP(close_p) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	CLEANUP(close_p) int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (set_folder(fs, BY_FD, "lowerdir+", fd) == 0) {
		return BY_FD;
	}
	return set_folder(fs, BY_LINK, "lowerdir+", fd) == 0 ? BY_LINK : BY_STRING;
}

static int mount_any(const struct overlay *overlay, int *ret_fd, struct error *err)
{
	static enum layer_method method;
	static bool known;

	if (!known) {
		method = method_find();
		known = true;
	}
	return method == BY_STRING ? mount_old(overlay, ret_fd, err)
				   : mount_new(overlay, method, ret_fd, err);
}

int overlay_mount(const struct overlay *overlay, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct statvfs status;
	int fault = fault_point("create.overlay");

	if (fault != 0) {
		return error_sys(err, fault, "mount an overlay");
	}
	if (mount_any(overlay, &fd, err) < 0) {
		return -(int)err->kind;
	}
	if (fstatvfs(fd, &status) < 0) {
		return error_sys(err, errno, "statfs of an overlay");
	}
	if ((status.f_flag & ST_RDONLY) != 0) {
		error_set(err, ERROR_UNSUPPORTED, "the overlay came out read-only");
		return error_hint(
			err, "the kernel log says why overlayfs refused the upper folder");
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}
