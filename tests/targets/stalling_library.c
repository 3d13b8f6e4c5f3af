/* A library of which nothing is known once its file system does not answer any more. */
void burn_in_library(void) {
    for (;;)
        for (volatile int turn = 0; turn < 1000000; turn++)
            ;
}
