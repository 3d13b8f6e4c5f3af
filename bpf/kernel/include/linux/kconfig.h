/* bcc passes this header to every compilation; its own helpers refuse to compile without CONFIG_BPF_SYSCALL. */
#ifndef PYFLAME_LINUX_KCONFIG_H
#define PYFLAME_LINUX_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#endif
