/* The table of an environment's settings, joined of its two parts when it is first asked for. */
#include "configs/environment_rows.h"

#include <assert.h>

#define ROWS_MAX 256

const struct settings *environment_settings(void)
{
	static struct setting rows[ROWS_MAX];
	static struct settings settings = {rows, 0};
	const struct setting_rows *const parts[] = {&environment_image_rows, &environment_run_rows};

	if (settings.count == 0) {
		size_t count = 0;

		for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
			assert(count + parts[i]->count <= ROWS_MAX);
			for (size_t j = 0; j < parts[i]->count; j++) {
				rows[count++] = parts[i]->rows[j];
			}
		}
		settings.count = count;
	}
	return &settings;
}
