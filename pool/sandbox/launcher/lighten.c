/*
 * What the launcher's children are not given. A program is linked with a dozen libraries that
 * nothing here calls; copying their mappings and taking them down again is a third of the time that
 * a clone and the exec after it take. They stay the launcher's own: its children, which run code of
 * the program and of the C library alone, do not get them.
 */
#include "pool/sandbox/launcher/launcher_server.h"

#include "base/memory.h"
#include "base/process.h"

#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>

/* The C library's parts, and what the copier of snapshots compares with. */
static bool is_needed(const char *path)
{
	static const char *const needed[] = {"ld-", "libc.", "libc-", "libm.", "libm-",
		"libpthread", "libgcc_s", "libxxhash", "linux-vdso"};
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (str_starts(name, needed[i])) {
			return true;
		}
	}
	return *name == '\0'; /* the program itself */
}

static int object_leave(struct dl_phdr_info *info, size_t size, void *context)
{
	unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)context;
	if (is_needed(info->dlpi_name)) {
		return 0;
	}
	/* A thread that a child starts copies these variables from where the library lies. */
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_TLS) {
			return 0;
		}
	}
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		unsigned long from = info->dlpi_addr + part->p_vaddr, to = from + part->p_memsz;

		if (part->p_type == PT_LOAD) {
			from &= ~(page - 1);
			(void)madvise((void *)from, to - from, MADV_DONTFORK);
		}
	}
	return 0;
}

void launcher_lighten(void)
{
	/* What is loaded beneath everything else is called by all. */
	if (PROCESS_INSTRUMENTED || getenv("LD_PRELOAD") != NULL ||
		access("/etc/ld.so.preload", F_OK) == 0) {
		return;
	}
	(void)dl_iterate_phdr(object_leave, NULL);
}
