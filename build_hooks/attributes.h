/* Attributes of records, read by compiled code as the interpreter reads them.
 *
 * mypyc looks up by its name, each time, an attribute of a class that it has not compiled: 190 instructions, and records
 * (msgspec.Struct, __slots__) are read more than a thousand times for each request. CPython's own interpreter remembers
 * at each place in the code where a slot was found, and looks again when the class is another one or has changed
 * (LOAD_ATTR_SLOT in Python/ceval.c). This does the same for compiled code: each PyObject_GetAttr in it has a place of
 * its own, of eight bytes. Whatever is no slot, or is not set, goes the usual way.
 *
 * attributes.py has it included before all else. Elsewhere than on GIL builds of CPython 3.11 to 3.14 nothing changes.
 */
#ifndef TIDEGATE_ATTRIBUTES_H
#define TIDEGATE_ATTRIBUTES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>

#if defined(__GNUC__) && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED) \
    && !defined(PYPY_VERSION)

/* Where one place in the code found its attribute: of a class with this version tag, so many bytes into the object.
 * No class has version 0: nothing was found there. */
typedef struct {
    uint32_t version;
    uint32_t offset;
} TidegatePlace;

/* The usual way; remembers where the attribute was, if that was a slot. */
static __attribute__((noinline, cold, unused)) PyObject *tidegate_look_up(
    TidegatePlace *place, PyObject *object, PyObject *name)
{
    PyObject *found = (PyObject_GetAttr)(object, name);
    PyTypeObject *type = Py_TYPE(object);
    if (found == NULL || type->tp_getattro != PyObject_GenericGetAttr) {
        return found;
    }
    PyObject *descriptor = _PyType_Lookup(type, name); /* borrowed; gives the class its version */
    place->version = 0;
    if (descriptor == NULL || Py_TYPE(descriptor) != &PyMemberDescr_Type) {
        return found;
    }
    const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    if (member->type == T_OBJECT_EX && (member->flags & ~READONLY) == 0 && member->offset > 0
        && PyObject_TypeCheck(object, ((PyDescrObject *)descriptor)->d_type)) {
        place->offset = (uint32_t)member->offset;
        place->version = type->tp_version_tag;
    }
    return found;
}

static inline __attribute__((unused)) PyObject *tidegate_get(TidegatePlace *place, PyObject *object, PyObject *name)
{
    if (__builtin_expect(Py_TYPE(object)->tp_version_tag == place->version && place->version != 0, 1)) {
        PyObject *found = *(PyObject **)((char *)object + place->offset);
        if (__builtin_expect(found != NULL, 1)) {
            return Py_NewRef(found);
        }
    }
    return tidegate_look_up(place, object, name);
}

#define PyObject_GetAttr(object, name)                         \
    (__extension__({                                           \
        static TidegatePlace tidegate_place;                   \
        tidegate_get(&tidegate_place, (object), (name));       \
    }))

/* What is a float needs no call to be read as one. */
static inline __attribute__((unused)) double tidegate_as_double(PyObject *object)
{
    return PyFloat_CheckExact(object) ? PyFloat_AS_DOUBLE(object) : (PyFloat_AsDouble)(object);
}

#define PyFloat_AsDouble(object) tidegate_as_double((object))

#endif
#endif
