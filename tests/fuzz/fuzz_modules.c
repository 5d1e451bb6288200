/* Any bytes as a .gitmodules: no crash, and nothing of what git refuses comes through. */
#include "base/memory.h"
#include "builder/git/git_modules.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct git_module_list list = {0};
	struct error err = ERROR_INIT;

	if (git_modules_parse((const char *)data, size, &list, &err) < 0) {
		assert(list.count == 0 && err.message[0] != '\0');
		return 0;
	}
	for (size_t i = 0; i < list.count; i++) {
		const struct git_module *module = &list.items[i];
		CLEANUP(free_p) char *url = NULL;

		assert(module->name[0] != '\0' && !streq(module->name, ".."));
		assert(module->path == NULL || (module->path[0] != '-' && module->path[0] != '/' &&
						       !str_starts(module->path, "../")));
		if (module->url != NULL &&
			git_module_url("https://host/a/b", module->url, &url, &err) == 0) {
			assert(url[0] != '/' && url[0] != '-' && !str_starts(url, "file:"));
			(void)git_urls_share_host("https://host/a/b", url);
		}
	}
	git_module_list_done(&list);
	return 0;
}
