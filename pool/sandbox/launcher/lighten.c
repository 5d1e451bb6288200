/*
 * What a sandbox's first process is not given. The program is linked with a dozen libraries that
 * nothing on the way to hob-init calls; copying their mappings and taking them down again is a
 * third of the time that the clone and the exec take. They stay the launcher's own. Children that
 * go on as hob (workers, the copier of snapshots) get all of it.
 */
#include "pool/sandbox/launcher/launcher_server.h"

#include "base/memory.h"

#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A sanitizer's runtime is called from everywhere. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INSTRUMENTED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INSTRUMENTED true
#endif
#endif
#ifndef INSTRUMENTED
#define INSTRUMENTED false
#endif

static bool is_light;

/* The program itself has no name. */
static bool is_needed(const char *path)
{
	static const char *const needed[] = {"ld-", "libc.", "libc-", "linux-vdso", "libgcc_s"};
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (str_starts(name, needed[i])) {
			return true;
		}
	}
	return *name == '\0';
}

static int object_advise(struct dl_phdr_info *info, size_t size, void *context)
{
	unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);

	(void)size;
	for (size_t i = 0; !is_needed(info->dlpi_name) && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		unsigned long from = info->dlpi_addr + part->p_vaddr, to = from + part->p_memsz;

		if (part->p_type == PT_LOAD) {
			from &= ~(page - 1);
			(void)madvise((void *)from, to - from, *(const int *)context);
		}
	}
	return 0;
}

static void advise(int advice)
{
	(void)dl_iterate_phdr(object_advise, &advice);
}

void launcher_lighten(void)
{
	/* What is loaded beneath everything else is called by all. */
	if (INSTRUMENTED || getenv("LD_PRELOAD") != NULL ||
		access("/etc/ld.so.preload", F_OK) == 0) {
		return;
	}
	is_light = true;
	advise(MADV_DONTFORK);
}

pid_t launcher_fork(void)
{
	pid_t pid;

	if (!is_light) {
		return fork();
	}
	advise(MADV_DOFORK);
	pid = fork();
	if (pid != 0) {
		advise(MADV_DONTFORK);
	} else {
		is_light = false;
	}
	return pid;
}
