/* bcc asks for a version to choose between helpers of very old kernels; every kernel we run on is newer than 5.8. */
#ifndef PYFLAME_LINUX_VERSION_H
#define PYFLAME_LINUX_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
#endif
#endif
