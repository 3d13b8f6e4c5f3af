/* SPDX-License-Identifier: Apache-2.0 */
/* An extension module for the tests: functions that call a Python function back, each with a frame of another shape.
 *
 * Limited API of 3.6, so that one file serves every interpreter.  Built without frame pointers and with its symbols. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03060000
#include <Python.h>

#include <alloca.h>
#include <string.h>

#define VISIBLE __attribute__((noinline, noclone))

/* Keeps a call from becoming a jump: something is left to do after it. */
static volatile unsigned long calls_done;

static PyObject *finished(PyObject *result)
{
    calls_done++;
    return result;
}

VISIBLE PyObject *callbacks_call(PyObject *module, PyObject *function)
{
    (void)module;
    return finished(PyObject_CallFunctionObjArgs(function, NULL));
}

/* A frame whose size is known at run time only: its end is found by rbp. */
VISIBLE PyObject *callbacks_call_alloca(PyObject *module, PyObject *function)
{
    size_t size = 64 + calls_done % 1024;
    volatile char *room = alloca(size);
    (void)module;
    room[size - 1] = 1;
    PyObject *result = PyObject_CallFunctionObjArgs(function, NULL);
    calls_done += (unsigned long)room[size - 1];
    return result;
}

struct vector {
    char bytes[64];
} __attribute__((aligned(64)));

/* A frame on a boundary of 64 bytes: the distance to its caller is not known from the stack pointer. */
VISIBLE PyObject *callbacks_call_aligned(PyObject *module, PyObject *function)
{
    volatile struct vector room;
    (void)module;
    memset((void *)room.bytes, 1, sizeof(room.bytes));
    PyObject *result = PyObject_CallFunctionObjArgs(function, NULL);
    calls_done += (unsigned long)room.bytes[calls_done % sizeof(room.bytes)];
    return result;
}

static int compare(const void *left, const void *right)
{
    (void)left;
    (void)right;
    return 0;
}

static PyObject *wanted, *got;

VISIBLE static int compare_by_calling(const void *left, const void *right)
{
    PyObject *function = wanted;
    wanted = NULL;
    if (function)
        got = PyObject_CallFunctionObjArgs(function, NULL);
    return compare(left, right);
}

/* Through a library in between: qsort of libc calls our function, which calls Python. */
VISIBLE PyObject *callbacks_call_qsort(PyObject *module, PyObject *function)
{
    int pair[2] = {2, 1};
    (void)module;
    wanted = function;
    qsort(pair, 2, sizeof(pair[0]), compare_by_calling);
    return finished(got);
}

/* Computes in C: leaf functions, prologues and epilogues. */
VISIBLE static unsigned long mix(unsigned long value)
{
    value ^= value << 13;
    value ^= value >> 7;
    return value ^ value << 17;
}

VISIBLE static unsigned long mix_pairs(unsigned long first, unsigned long second, int turns)
{
    while (turns-- > 0) {
        first = mix(first) + second;
        second = mix(second) ^ first;
    }
    return first;
}

VISIBLE PyObject *callbacks_compute(PyObject *module, PyObject *turns)
{
    long number = PyLong_AsLong(turns);
    unsigned long total = 1;
    (void)module;
    if (number == -1 && PyErr_Occurred())
        return NULL;
    for (long turn = 0; turn < number; turn++)
        total += mix_pairs(total, (unsigned long)turn | 1, 8);
    return PyLong_FromUnsignedLong(total);
}

static PyMethodDef functions[] = {
    {"call", callbacks_call, METH_O, "Call a function."},
    {"call_alloca", callbacks_call_alloca, METH_O, "Call a function from a frame of variable size."},
    {"call_aligned", callbacks_call_aligned, METH_O, "Call a function from a realigned frame."},
    {"call_qsort", callbacks_call_qsort, METH_O, "Call a function from a comparison of qsort's."},
    {"compute", callbacks_compute, METH_O, "Compute in C for so many turns."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "callbacks", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_callbacks(void)
{
    return PyModule_Create(&definition);
}
