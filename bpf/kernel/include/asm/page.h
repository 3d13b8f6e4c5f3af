#ifndef PYFLAME_ASM_PAGE_H
#define PYFLAME_ASM_PAGE_H
#define PAGE_SIZE 4096
#endif
