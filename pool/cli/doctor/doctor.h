/* `hob doctor`: what hob needs of this machine, tried out. */
#ifndef HOB_POOL_CLI_DOCTOR_H
#define HOB_POOL_CLI_DOCTOR_H

/* argv[0] is "hob doctor". 0 when everything required is there, else 9 (unavailable); 2 for usage.
 */
int doctor_main(int argc, char **argv);

#endif
