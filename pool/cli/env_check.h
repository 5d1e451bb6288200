/* `hob env check FILE…`: reads environments as hobd and hob-build would, and changes nothing. */
#ifndef HOB_POOL_CLI_ENV_CHECK_H
#define HOB_POOL_CLI_ENV_CHECK_H

/* argv[0] is "hob env check". 0 when all files are good, else 2. */
int env_check_main(int argc, char **argv);

#endif
