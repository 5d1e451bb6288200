/* What the store's file system can do, tried in a scratch folder of that very file system with the
 * code that sandboxes are mounted by. */
#include "pool/cli/doctor/doctor_probe.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "configs/free_space.h"
#include "pool/cli/human.h"
#include "pool/sandbox/idmap.h"
#include "pool/sandbox/overlay.h"
#include "pool/sandbox/privileges.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/volume/volume.h"

#include <fcntl.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/quota.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

/* Below this a build of any size may fail. */
#define SPACE_LOW (INT64_C(4) << 30)

#define XFS_MAGIC 0x58465342
#define ZFS_MAGIC 0x2fc12fc1
#define PROJECT_QUOTA 2 /* PRJQUOTA, which libc's header lacks */

static const struct {
	unsigned magic;
	const char *name;
	bool no_upper; /* overlayfs cannot write to it */
} systems[] = {
	{EXT4_SUPER_MAGIC, "ext4", false},
	{XFS_MAGIC, "xfs", false},
	{BTRFS_SUPER_MAGIC, "btrfs", false},
	{TMPFS_MAGIC, "tmpfs", false},
	{F2FS_SUPER_MAGIC, "f2fs", false},
	{ZFS_MAGIC, "zfs", false},
	{RAMFS_MAGIC, "ramfs", false},
	{OVERLAYFS_SUPER_MAGIC, "overlayfs", true},
	{NFS_SUPER_MAGIC, "nfs", true},
	{FUSE_SUPER_MAGIC, "fuse", true},
	{V9FS_MAGIC, "9p", true},
	{MSDOS_SUPER_MAGIC, "vfat", true},
};

static size_t system_find(unsigned magic)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(systems) && systems[i].magic != magic) {
		i++;
	}
	return i;
}

static const char *system_name(unsigned magic)
{
	size_t i = system_find(magic);

	return i < ARRAY_SIZE(systems) ? systems[i].name : "an unknown file system";
}

/* Of a file system of the store's own. */
static void note_volume(const char *store, struct finding *finding)
{
	struct error ignored = ERROR_INIT;
	struct volume_info info;
	char writable[HUMAN_SIZE], room[HUMAN_SIZE];

	if (volume_info(store, &info, &ignored) < 0 || !info.exists) {
		return;
	}
	human_bytes(writable, (int64_t)volume_writable(&info));
	human_bytes(room, (int64_t)info.free);
	if (!info.mounted) {
		finding_set(finding, FINDING_WARN, "%s.xfs is not mounted", store);
		finding_advise(finding, "start hobd, or run `hob store mount`");
	} else if (volume_writable(&info) < info.free) {
		finding_set(finding, FINDING_WARN,
			"%s on xfs of its own, %s free, of which its disk can take only %s", store,
			room, writable);
		finding_advise(finding, "make room on the disk that holds %s.xfs", store);
	} else {
		finding_set(finding, FINDING_OK, "%s on xfs of its own, %s.xfs", store, store);
	}
}

void probe_store(const struct doctor *doctor, struct finding *finding)
{
	const char *store = doctor->config->store;
	bool there = streq(doctor->folder, store);
	struct statfs fs;
	size_t i;

	if (statfs(doctor->folder, &fs) < 0) {
		finding_fail_sys(finding, doctor->folder);
		return;
	}
	i = system_find((unsigned)fs.f_type);
	if (i < ARRAY_SIZE(systems) && systems[i].no_upper) {
		finding_set(finding, FINDING_LACKING, "%s on %s", store, systems[i].name);
		finding_advise(finding, "put `store` on xfs (with reflink), ext4 or btrfs");
		return;
	}
	finding_set(finding, FINDING_OK, "%s on %s%s", store, system_name((unsigned)fs.f_type),
		there ? "" : " (made at the first start)");
	note_volume(store, finding);
}

void probe_space(const struct doctor *doctor, struct finding *finding)
{
	char text[FREE_SPACE_TEXT_SIZE];
	struct free_space space = {0};
	struct error err = ERROR_INIT;
	struct statvfs fs;

	if (statvfs(doctor->folder, &fs) < 0 ||
		free_space_look(doctor->folder, doctor->config->free_space, &space, &err) < 0) {
		finding_fail_sys(finding, doctor->folder);
		return;
	}
	free_space_text(&space, text);
	finding_set(finding, space.low || space.free < SPACE_LOW ? FINDING_WARN : FINDING_OK,
		"%s, %ju inodes", text, (uintmax_t)fs.f_favail);
	if ((fs.f_flag & ST_RDONLY) != 0) {
		finding_set(finding, FINDING_LACKING, "mounted read-only");
	}
}

/* A folder of the scratch folder, as a descriptor. */
static int scratch_folder(const struct doctor *doctor, const char *name, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", doctor->scratch, name);

	if (mkdir(path, 0755) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir %s", path);
	}
	return io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);
}

/* A mapped copy of the mount below `fd`, as a layer or the host's /usr gets one. */
static int clone_mapped(const struct doctor *doctor, int fd, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) struct idmaps *maps = xcalloc(1, sizeof(*maps));
	uint32_t slots;
	int64_t base;
	int userns;
	int code = id_range_find(doctor->config, &base, &slots, err);

	if (code == 0) {
		code = idmap_get(maps, 0, 0, base, ID_RANGE, &userns, err);
	}
	if (code == 0) {
		code = mount_clone(fd, userns, MOUNT_ATTR_NOSUID, ret_fd, err);
	}
	idmaps_done(maps);
	return code;
}

void probe_idmap(const struct doctor *doctor, struct finding *finding)
{
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int folder = scratch_folder(doctor, "mapped", &err);
	CLEANUP(close_p) int mapped = -1;
	struct stat before, after;

	if (folder < 0 || clone_mapped(doctor, folder, &mapped, &err) < 0) {
		finding_fail(finding, &err);
		return;
	}
	if (fstat(folder, &before) < 0 || fstat(mapped, &after) < 0) {
		finding_fail_sys(finding, "stat of a mapped folder");
	} else if (before.st_uid == after.st_uid) {
		finding_set(finding, FINDING_LACKING, "a mapped mount still shows uid %u",
			(unsigned)after.st_uid);
	} else {
		finding_set(finding, FINDING_OK, "uid %u shows as %u", (unsigned)before.st_uid,
			(unsigned)after.st_uid);
	}
}

void probe_host_usr(const struct doctor *doctor, struct finding *finding)
{
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int usr = io_open(AT_FDCWD, "/usr", O_RDONLY | O_DIRECTORY, 0, &err);
	CLEANUP(close_p) int mapped = -1;
	struct statfs fs;

	if (usr < 0 || clone_mapped(doctor, usr, &mapped, &err) < 0) {
		finding_fail(finding, &err);
	} else if (fstatfs(mapped, &fs) < 0) {
		finding_fail_sys(finding, "statfs of /usr");
	} else {
		finding_set(finding, FINDING_OK, "on %s, can be mapped",
			system_name((unsigned)fs.f_type));
	}
}

/* Where overlay_mount finds what the launcher's own namespace has: /proc, and a place for kernels
 * that mount only by path. */
static int enter_bare_root(const struct doctor *doctor, struct error *err)
{
	static const char *const folders[] = {"proc", "scratch"};
	CLEANUP(free_p) char *root = xasprintf("%s/root", doctor->scratch);
	CLEANUP(free_p) char *proc = xasprintf("%s/root/proc", doctor->scratch);

	if (mkdir(root, 0755) < 0 || mount("tmpfs", root, "tmpfs", 0, "size=64k") < 0) {
		return error_sys(err, errno, "mount a tmpfs");
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%s", root, folders[i]);

		if (mkdir(path, 0755) < 0) {
			return error_sys(err, errno, "mkdir %s", path);
		}
	}
	if (mount("/proc", proc, NULL, MS_BIND | MS_REC, NULL) < 0 || chroot(root) < 0 ||
		chdir("/") < 0) {
		return error_sys(err, errno, "enter a bare root");
	}
	return 0;
}

/* An id-mapped layer below a writable folder: the root of every sandbox. */
static int overlay_try(const struct doctor *doctor, struct error *err)
{
	CLEANUP(close_p) int lower = scratch_folder(doctor, "lower", err);
	CLEANUP(close_p) int top = -1;
	CLEANUP(close_p) int clone = -1;
	CLEANUP(close_p) int upper = -1;
	CLEANUP(close_p) int work = -1;
	CLEANUP(close_p) int mapped = -1;
	CLEANUP(close_p) int merged = -1;
	CLEANUP(close_p) int file = -1;
	struct overlay overlay = {.lower_fds = &mapped, .lower_count = 1, .is_volatile = true};

	if (lower < 0 || (file = io_open(lower, "below", O_WRONLY | O_CREAT, 0644, err)) < 0 ||
		(top = scratch_folder(doctor, "top", err)) < 0 ||
		io_mkdir_all(top, "upper", 0755, err) < 0 ||
		io_mkdir_all(top, "work", 0755, err) < 0 ||
		clone_mapped(doctor, lower, &mapped, err) < 0 ||
		mount_clone(top, -1, 0, &clone, err) < 0 ||
		(upper = io_open(clone, "upper", O_RDONLY | O_DIRECTORY, 0, err)) < 0 ||
		(work = io_open(clone, "work", O_RDONLY | O_DIRECTORY, 0, err)) < 0 ||
		enter_bare_root(doctor, err) < 0) {
		return -(int)err->kind;
	}
	overlay.upper_fd = upper;
	overlay.work_fd = work;
	if (overlay_mount(&overlay, &merged, err) < 0) {
		return -(int)err->kind;
	}
	if (faccessat(merged, "below", F_OK, 0) < 0) {
		return error_set(err, ERROR_UNSUPPORTED, "the mount does not show its layer");
	}
	close(file);
	file = io_open(merged, "written", O_WRONLY | O_CREAT, 0644, err);
	return file < 0 ? file : 0;
}

void probe_overlay(const struct doctor *doctor, struct finding *finding)
{
	struct error err = ERROR_INIT;

	if (overlay_try(doctor, &err) < 0) {
		finding_fail(finding, &err);
	} else {
		finding_set(finding, FINDING_OK, "mounted over a mapped layer, written to");
	}
}

void probe_layers(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(close_p) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	CLEANUP(close_p) int folder = open(doctor->scratch, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fs < 0) {
		finding_fail_sys(finding, "fsopen overlay");
	} else if (fsconfig(fs, FSCONFIG_SET_FD, "lowerdir+", NULL, folder) == 0) {
		finding_set(finding, FINDING_OK, "by descriptor");
	} else if (fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", doctor->scratch, 0) == 0) {
		finding_set(finding, FINDING_OK, "one by one, by path");
	} else {
		finding_set(finding, FINDING_WARN, "all in one text of at most 4,095 bytes");
	}
}

/* Seconds for the first write to a file of 1 GiB, which copies it: from a smaller one. 0: unknown.
 */
static double copy_up_seconds(int from, int to)
{
	static char block[1 << 20];
	const size_t blocks = 32;
	int64_t start_us;

	for (size_t i = 0; i < blocks; i++) {
		memset(block, (int)i, sizeof(block));
		if (pwrite(from, block, sizeof(block), (off_t)(i * sizeof(block))) < 0) {
			return 0;
		}
	}
	if (fdatasync(from) < 0) {
		return 0;
	}
	start_us = clock_mono_us();
	for (size_t i = 0; i < blocks; i++) {
		if (copy_file_range(from, NULL, to, NULL, sizeof(block), 0) < 0) {
			return 0;
		}
	}
	if (fdatasync(to) < 0) {
		return 0;
	}
	return (double)(clock_mono_us() - start_us) / 1e6 * 1024 / (double)blocks;
}

static void advise_volume(int from, int to, const struct doctor *doctor, struct finding *finding)
{
	double seconds = copy_up_seconds(from, to);

	if (seconds > 0) {
		finding_set(finding, FINDING_LACKING,
			"no: writing to a file of 1 GiB copies it, %.1f s here", seconds);
	}
	finding_advise(finding,
		"`hob store create --xfs 50GiB` gives %s an XFS of its own (in a file): about 1 "
		"ms, "
		"and equal blocks stored once; or put `store` on xfs (with reflink) or btrfs",
		doctor->config->store);
}

void probe_reflink(const struct doctor *doctor, struct finding *finding)
{
	static const char text[] = "hob doctor\n";
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int folder = scratch_folder(doctor, "reflink", &err);
	CLEANUP(close_p) int from = -1;
	CLEANUP(close_p) int to = -1;

	if (folder < 0 || (from = io_open(folder, "from", O_RDWR | O_CREAT, 0600, &err)) < 0 ||
		(to = io_open(folder, "to", O_RDWR | O_CREAT, 0600, &err)) < 0 ||
		io_write_full(from, text, sizeof(text), &err) < 0) {
		finding_fail(finding, &err);
	} else if (ioctl(to, FICLONE, from) < 0) {
		finding_set(finding, FINDING_LACKING, "no: %s", strerror(errno));
		advise_volume(from, to, doctor, finding);
	} else {
		finding_set(finding, FINDING_OK, "yes");
	}
}

/* Is the kernel counting, and holding to, project quotas on this file system? ext4 answers XFS's
 * question too. */
static bool quota_enforced(int fd)
{
	struct fs_quota_statv state = {.qs_version = FS_QSTATV_VERSION1};

	return syscall(SYS_quotactl_fd, fd, QCMD(Q_XGETQSTATV, PROJECT_QUOTA), 0, &state) == 0 &&
	       (state.qs_flags & FS_QUOTA_PDQ_ENFD) != 0;
}

void probe_quota(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(close_p) int fd = open(doctor->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		finding_fail_sys(finding, doctor->folder);
	} else if (quota_enforced(fd)) {
		finding_set(finding, FINDING_OK, "enforced");
	} else {
		finding_set(finding, FINDING_LACKING, "not enforced here");
	}
}

void probe_run(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(free_p) char *path = xstrdup(doctor->config->run);
	struct statfs fs;
	bool there = true;

	while (statfs(path, &fs) < 0) {
		char *slash = strrchr(path, '/');

		if (errno != ENOENT || slash == NULL || slash == path) {
			finding_fail_sys(finding, doctor->config->run);
			return;
		}
		*slash = '\0';
		there = false;
	}
	finding_set(finding, fs.f_type == TMPFS_MAGIC ? FINDING_OK : FINDING_LACKING, "%s on %s%s",
		doctor->config->run, system_name((unsigned)fs.f_type),
		there ? "" : " (made at the first start)");
}
