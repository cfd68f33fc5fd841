/* Attributes of records, names of modules and classes, looked up by compiled code as the interpreter looks them up.
 *
 * mypyc looks up by its name, each time, an attribute of a class that it has not compiled: 190 instructions, and records
 * (msgspec.Struct, __slots__) are read more than a thousand times for each request. CPython's own interpreter remembers
 * at each place in the code where a slot was found, and looks again when the class is another one or has changed
 * (LOAD_ATTR_SLOT in Python/ceval.c). This does the same for compiled code: each PyObject_GetAttr in it has a place of
 * its own, and each PyObject_SetAttr. Whatever is no slot, or is not set, goes the usual way, but for what a module has
 * (as builtins) and for members of enumerations, which Python 3.11 finds in a function written in Python.
 *
 * The same with what a module has imported, which mypyc looks up in its dictionary at each use, 140 instructions and
 * four lines of memory: each such place remembers what it found in which version of the dictionary (LOAD_GLOBAL).
 * And whether something is of a class whose metaclass has no opinion of its own, as msgspec's has none, is asked of the
 * class itself: a no is 500 instructions the usual way.
 *
 * compiled.py has it included before all else. Elsewhere than on GIL builds of CPython 3.11 to 3.14 nothing changes.
 */
#ifndef TIDEGATE_LOOKUPS_H
#define TIDEGATE_LOOKUPS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED) \
    && !defined(PYPY_VERSION)

#if PY_VERSION_HEX < 0x030E0000 /* dictionaries have versions until then (PEP 699), which no two of them ever share */
#define TIDEGATE_VERSIONS 1

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static inline __attribute__((unused)) uint64_t tidegate_version(PyObject *dict)
{
    return ((PyDictObject *)dict)->ma_version_tag;
}
#pragma GCC diagnostic pop

/* Whether what is in it stays while its version does. From 3.13 on, what an object has can change meanwhile; such a
 * dictionary has values of its own (`ma_values`), and no module's has. */
static inline __attribute__((unused)) int tidegate_has_version(PyObject *dict)
{
    return PyDict_CheckExact(dict) && ((PyDictObject *)dict)->ma_values == NULL;
}

#endif

/* --- attributes --------------------------------------------------------------------------------------------------- */

/* Where one place in the code found the attribute of this name: of a class with this version tag, so many bytes into
 * the object. No two classes have the same version, but 0, which those have that have none, and which no place has that
 * has a name. Most places have one name; getattr() has any. */
typedef struct {
    uint32_t version;
    uint32_t offset;
    PyObject *name;
} TidegatePlace;

/* Of no class: they are counted from 1, and this many changes of classes take hours of nothing else. */
#define TIDEGATE_NO_VERSION UINT32_MAX

/* What else such a place found under that name. Of another class that came by: it has no such slot where the offset is
 * 0, and is asked the usual way at once. Of an enumeration of this version, its member. In a dictionary of this version,
 * that of a module, what is the dictionary's. */
typedef struct {
    uint32_t version;
    uint32_t offset;
    uint32_t member_version;
    PyObject *member;
#ifdef TIDEGATE_VERSIONS
    uint64_t dict_version;
    PyObject *in_dict;
#endif
} TidegateOther;

/* What is read most lies close together, and the rest elsewhere, where that can be said. */
#ifdef __ELF__
#define TIDEGATE_ELSEWHERE __attribute__((section(".bss.tidegate")))
#else
#define TIDEGATE_ELSEWHERE
#endif

/* Whether a name can be told by where it is: nobody makes another string of it. It is kept while it is remembered, or
 * another might take its place in memory. */
static inline __attribute__((unused)) int tidegate_is_name(PyObject *name)
{
    return PyUnicode_CheckExact(name) && PyUnicode_CHECK_INTERNED(name);
}

/* The class that a module has under this name, kept for good; NULL where it has none. Looked up once. */
static inline __attribute__((unused)) PyTypeObject *tidegate_class(
    const char *module, const char *name, PyTypeObject **known, int *asked)
{
    if (!*asked) {
        *asked = 1;
        PyObject *from = PyImport_ImportModule(module);
        PyObject *found = from == NULL ? NULL : (PyObject_GetAttrString)(from, name);
        PyErr_Clear();
        *known = found != NULL && PyType_Check(found) ? (PyTypeObject *)found : NULL;
        Py_XDECREF(from);
    }
    return *known;
}

/* How many bytes into objects of this class the slot of this name is; 0 where it has no such slot. */
static inline __attribute__((unused)) uint32_t tidegate_offset(PyTypeObject *type, PyObject *name, int flags)
{
    PyObject *descriptor = _PyType_Lookup(type, name); /* borrowed; gives the class its version */
    if (descriptor == NULL || Py_TYPE(descriptor) != &PyMemberDescr_Type
        || !PyType_IsSubtype(type, ((PyDescrObject *)descriptor)->d_type)) {
        return 0;
    }
    const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    return member->type == T_OBJECT_EX && (member->flags & ~flags) == 0 && member->offset > 0 ? (uint32_t)member->offset
                                                                                             : 0;
}

/* Have that place be about this name, of which it knows nothing if it was about another. */
static inline __attribute__((unused)) void tidegate_name(TidegatePlace *place, TidegateOther *other, PyObject *name)
{
    if (place->name == name) {
        return;
    }
    PyObject *name_before = place->name, *member_before = other->member;
    memset(place, 0, sizeof *place);
    memset(other, 0, sizeof *other);
    place->version = TIDEGATE_NO_VERSION;
    place->name = Py_NewRef(name);
    Py_XDECREF(name_before); /* which may run anything */
    Py_XDECREF(member_before);
}

/* Have that place remember the slot of this class, or that it has none. What it knew is the other from now. */
static inline __attribute__((unused)) void tidegate_remember(
    TidegatePlace *place, TidegateOther *other, PyTypeObject *type, PyObject *name, int flags)
{
    uint32_t offset = tidegate_offset(type, name, flags);
    if (type->tp_version_tag == 0) {
        return; /* none is left for it */
    }
    tidegate_name(place, other, name);
    if (offset == 0) {
        other->version = type->tp_version_tag;
        other->offset = 0;
        return;
    }
    if (place->version != TIDEGATE_NO_VERSION) {
        other->version = place->version;
        other->offset = place->offset;
    }
    place->offset = offset;
    place->version = type->tp_version_tag;
}

/* Whether this class is the other one that the place knows under this name. */
static inline __attribute__((unused)) int tidegate_is_other(
    TidegatePlace *place, TidegateOther *other, PyTypeObject *type, PyObject *name)
{
    return other->version != 0 && other->version == type->tp_version_tag && place->name == name;
}

/* Whether that is a member of an enumeration: its members stay what they are. */
static inline __attribute__((unused)) int tidegate_is_member(PyObject *object, PyObject *of)
{
    static PyTypeObject *enumerations;
    static int asked;
    return (PyObject *)Py_TYPE(object) == of && Py_TYPE(of) == tidegate_class("enum", "EnumType", &enumerations, &asked);
}

/* What that place knows of a member of an enumeration, or of a module; NULL where it is neither, or is not known. */
static inline __attribute__((unused)) PyObject *tidegate_known(TidegateOther *other, PyObject *object)
{
    if (other->member != NULL && PyType_Check(object)
        && ((PyTypeObject *)object)->tp_version_tag == other->member_version) {
        return other->member;
    }
#ifdef TIDEGATE_VERSIONS
    if (other->dict_version != 0 && PyModule_CheckExact(object)) {
        PyObject *dict = PyModule_GetDict(object); /* NULL in what is being thrown away */
        return dict != NULL && tidegate_version(dict) == other->dict_version ? other->in_dict : NULL;
    }
#endif
    return NULL;
}

/* Have that place remember a member of an enumeration, or what a module has. */
static inline __attribute__((unused)) void tidegate_remember_found(
    TidegatePlace *place, TidegateOther *other, PyObject *object, PyObject *name, PyObject *found)
{
    if (PyType_Check(object) && tidegate_is_member(found, object)) {
        _PyType_Lookup((PyTypeObject *)object, name); /* gives the class its version */
        uint32_t version = ((PyTypeObject *)object)->tp_version_tag;
        if (version != 0) {
            tidegate_name(place, other, name);
            other->member_version = version;
            Py_XSETREF(other->member, Py_NewRef(found));
        }
    }
#ifdef TIDEGATE_VERSIONS
    else if (PyModule_CheckExact(object)) {
        PyObject *dict = PyModule_GetDict(object);
        if (dict != NULL && tidegate_has_version(dict) && PyDict_GetItemWithError(dict, name) == found) {
            tidegate_name(place, other, name);
            other->dict_version = tidegate_version(dict);
            other->in_dict = found;
        }
    }
#endif
}

/* The usual way, where nothing better is known; remembers what it finds. */
static __attribute__((noinline, cold, unused)) PyObject *tidegate_look_up(
    TidegatePlace *place, TidegateOther *other, PyObject *object, PyObject *name)
{
    if (tidegate_is_other(place, other, Py_TYPE(object), name)) {
        PyObject *slot = other->offset == 0 ? NULL : *(PyObject **)((char *)object + other->offset);
        return slot == NULL ? (PyObject_GetAttr)(object, name) : Py_NewRef(slot);
    }
    PyObject *known = place->name == name ? tidegate_known(other, object) : NULL;
    if (known != NULL) {
        return Py_NewRef(known);
    }
    Py_INCREF(object); /* what is called may let go of it */
    PyObject *found = (PyObject_GetAttr)(object, name);
    PyTypeObject *type = Py_TYPE(object); /* which that may have changed */
    if (found != NULL && tidegate_is_name(name)) {
        if (type->tp_getattro == PyObject_GenericGetAttr) {
            tidegate_remember(place, other, type, name, READONLY);
        } else {
            tidegate_remember_found(place, other, object, name, found);
        }
    }
    Py_DECREF(object);
    return found;
}

static inline __attribute__((unused)) PyObject *tidegate_get(
    TidegatePlace *place, TidegateOther *other, PyObject *object, PyObject *name)
{
    if (__builtin_expect(Py_TYPE(object)->tp_version_tag == place->version && place->name == name, 1)) {
        PyObject *found = *(PyObject **)((char *)object + place->offset);
        if (__builtin_expect(found != NULL, 1)) {
            return Py_NewRef(found);
        }
    }
    return tidegate_look_up(place, other, object, name);
}

#define PyObject_GetAttr(object, name)                                       \
    (__extension__({                                                         \
        static TidegatePlace tidegate_place;                                 \
        static TIDEGATE_ELSEWHERE TidegateOther tidegate_other;              \
        tidegate_get(&tidegate_place, &tidegate_other, (object), (name));    \
    }))

/* Whether what is of that class is set without ado. A record of msgspec's is shown to the garbage collector when it is
 * given something that is: see below. */
static inline __attribute__((unused)) int tidegate_sets(PyTypeObject *type)
{
    static PyTypeObject *record;
    static int asked;
    return type->tp_setattro == PyObject_GenericSetAttr
        || (tidegate_class("msgspec", "Struct", &record, &asked) != NULL && type->tp_setattro == record->tp_setattro);
}

/* The usual way; remembers where the attribute is, if that is a slot. */
static __attribute__((noinline, cold, unused)) int tidegate_set_up(
    TidegatePlace *place, TidegateOther *other, PyObject *object, PyObject *name, PyObject *value)
{
    uint32_t version = Py_TYPE(object)->tp_version_tag;
    if (version != 0 && place->name == name && (version == place->version || version == other->version)) {
        return (PyObject_SetAttr)(object, name, value);
    }
    Py_INCREF(object);
    int failed = (PyObject_SetAttr)(object, name, value);
    PyTypeObject *type = Py_TYPE(object);
    if (!failed && tidegate_is_name(name) && tidegate_sets(type)) {
        tidegate_remember(place, other, type, name, 0);
    }
    Py_DECREF(object);
    return failed;
}

/* What the garbage collector does not know, as numbers and text, needs nobody to show it. */
static inline __attribute__((unused)) int tidegate_set(
    TidegatePlace *place, TidegateOther *other, PyObject *object, PyObject *name, PyObject *value)
{
    if (__builtin_expect(
            Py_TYPE(object)->tp_version_tag == place->version && place->name == name && value != NULL
                && !PyType_IS_GC(Py_TYPE(value)), 1)) {
        PyObject **slot = (PyObject **)((char *)object + place->offset);
        PyObject *before = *slot;
        *slot = Py_NewRef(value);
        Py_XDECREF(before);
        return 0;
    }
    return tidegate_set_up(place, other, object, name, value);
}

#define PyObject_SetAttr(object, name, value)                                        \
    (__extension__({                                                                 \
        static TidegatePlace tidegate_place;                                         \
        static TIDEGATE_ELSEWHERE TidegateOther tidegate_other;                      \
        tidegate_set(&tidegate_place, &tidegate_other, (object), (name), (value));   \
    }))

/* --- names of modules --------------------------------------------------------------------------------------------- */

#ifdef TIDEGATE_VERSIONS

/* What one place in the code found under this name, in a dictionary of this version; `found` is that dictionary's. No
 * dictionary has version 0. */
typedef struct {
    uint64_t version;
    PyObject *name;
    PyObject *found;
} TidegateName;

extern PyObject *CPyDict_GetItem(PyObject *, PyObject *);

/* The usual way; remembers what it found, if that was under a name. */
static __attribute__((noinline, cold, unused)) PyObject *tidegate_find(
    TidegateName *place, PyObject *dict, PyObject *name)
{
    Py_INCREF(dict); /* what is called may let go of it */
    PyObject *found = CPyDict_GetItem(dict, name);
    if (found != NULL && tidegate_has_version(dict) && tidegate_is_name(name)) {
        place->version = 0;
        Py_INCREF(name);
        Py_XSETREF(place->name, name);
        place->found = found;
        place->version = tidegate_version(dict);
    }
    Py_DECREF(dict);
    return found;
}

static inline __attribute__((unused)) PyObject *tidegate_item(TidegateName *place, PyObject *dict, PyObject *name)
{
    if (__builtin_expect(PyDict_CheckExact(dict) && tidegate_version(dict) == place->version && place->name == name, 1)) {
        return Py_NewRef(place->found);
    }
    return tidegate_find(place, dict, name);
}

/* mypyc's runtime declares and defines the function after this: what begins with a type is no call of it. */
#define TIDEGATE_SECOND(first, second, ...) second
#define TIDEGATE_OF(...) TIDEGATE_SECOND(__VA_ARGS__)
#define TIDEGATE_DECLARES_PyObject ~, TIDEGATE_DECLARED,
#define TIDEGATE_JOINED(before, after) before##after
#define TIDEGATE_DECLARED(dict, name) CPyDict_GetItem(dict, name)
#define TIDEGATE_CALLED(dict, name)                            \
    (__extension__({                                           \
        static TidegateName tidegate_place;                    \
        tidegate_item(&tidegate_place, (dict), (name));        \
    }))
#define CPyDict_GetItem(dict, name) TIDEGATE_OF(TIDEGATE_JOINED(TIDEGATE_DECLARES_, dict), TIDEGATE_CALLED, )(dict, name)

#endif

/* --- classes ------------------------------------------------------------------------------------------------------ */

/* What `type` and `object` have under a name, whoever asks: looked up once. NULL where that fails. */
static inline __attribute__((unused)) PyObject *tidegate_usual(
    PyTypeObject *of, const char *text, PyObject **name, PyObject **usual)
{
    if (*usual == NULL) {
        *name = PyUnicode_InternFromString(text);
        if (*name == NULL) {
            PyErr_Clear();
            return NULL;
        }
        *usual = _PyType_Lookup(of, *name);
    }
    return *usual;
}

/* Whether that metaclass leaves the question to the class, as the one asked last did. */
static inline __attribute__((unused)) int tidegate_leaves_it(PyTypeObject *metaclass)
{
    static PyTypeObject *known;
    static uint32_t version;
    static PyObject *name, *usual;
    if (metaclass == &PyType_Type) {
        return 1;
    }
    if (__builtin_expect(metaclass == known && metaclass->tp_version_tag == version && version != 0, 1)) {
        return 1;
    }
    if (tidegate_usual(&PyType_Type, "__instancecheck__", &name, &usual) == NULL
        || _PyType_Lookup(metaclass, name) != usual) {
        return 0;
    }
    known = metaclass;
    version = metaclass->tp_version_tag;
    return 1;
}

/* Whether what is of that class says so, and pretends by `__class__` to be of no other. */
static inline __attribute__((unused)) int tidegate_is_frank(PyTypeObject *type)
{
    static PyObject *name, *usual;
    return type->tp_getattro == PyObject_GenericGetAttr
        && tidegate_usual(&PyBaseObject_Type, "__class__", &name, &usual) != NULL && _PyType_Lookup(type, name) == usual;
}

static inline __attribute__((unused)) int tidegate_is(PyObject *object, PyObject *of);

/* As isinstance(). */
static __attribute__((noinline, unused)) int tidegate_is_of(PyObject *object, PyObject *of)
{
    if (PyTuple_CheckExact(of)) {
        int is = 0;
        for (Py_ssize_t at = 0; is == 0 && at < PyTuple_GET_SIZE(of); at++) {
            is = tidegate_is(object, PyTuple_GET_ITEM(of, at));
        }
        return is;
    }
    if (PyType_Check(of) && tidegate_leaves_it(Py_TYPE(of))) {
        if (PyType_IsSubtype(Py_TYPE(object), (PyTypeObject *)of)) {
            return 1;
        }
        if (tidegate_is_frank(Py_TYPE(object))) {
            return 0;
        }
    }
    return (PyObject_IsInstance)(object, of);
}

static inline __attribute__((unused)) int tidegate_is(PyObject *object, PyObject *of)
{
    return Py_TYPE(object) == (PyTypeObject *)of ? 1 : tidegate_is_of(object, of);
}

#define PyObject_IsInstance(object, of) tidegate_is((object), (of))

/* --- numbers ------------------------------------------------------------------------------------------------------ */

/* What is a float needs no call to be read as one. */
static inline __attribute__((unused)) double tidegate_as_double(PyObject *object)
{
    return PyFloat_CheckExact(object) ? PyFloat_AS_DOUBLE(object) : (PyFloat_AsDouble)(object);
}

#define PyFloat_AsDouble(object) tidegate_as_double((object))

#endif
#endif
