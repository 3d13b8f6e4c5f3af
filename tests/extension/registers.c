/* Assembly that finds its frame by r11, as functions do that probe or realign their stack, and OpenSSL's; alone, and
 * with a callee of its own that leaves r11 alone.  With an argument, a signal interrupts it and its handler stays. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <unistd.h>

void kept_in_r11(void);

__asm__(".text\n"
        ".type kept_in_r11, @function\n"
        "kept_in_r11:\n"
        "    .cfi_startproc\n"
        "    lea 8(%rsp), %r11\n"
        "    .cfi_def_cfa r11, 0\n"
        "    sub $136, %rsp\n"
        "    and $-64, %rsp\n"
        "    mov $5000000, %ecx\n"
        "1:  dec %ecx\n"
        "    jnz 1b\n"
        "    call below_r11\n"
        "    lea -8(%r11), %rsp\n"
        "    .cfi_def_cfa rsp, 8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size kept_in_r11, . - kept_in_r11\n"
        ".type below_r11, @function\n"
        "below_r11:\n"
        "    .cfi_startproc\n"
        "    mov $5000000, %ecx\n"
        "1:  dec %ecx\n"
        "    jnz 1b\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size below_r11, . - below_r11\n");

static void stay(int number)
{
    for (volatile int turns = 0; number; turns++)
        ;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        signal(SIGALRM, stay);
        ualarm(100000, 0);
    }
    for (;;)
        kept_in_r11();
}
