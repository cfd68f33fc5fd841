/* Streams on their way between two sockets, whose chunks repeat each other but for their text: read, compared, counted
   and sent on without the interpreter. lanes.py beside this has who calls it, flow.py the same in Python, and
   wire/repeat.py what a repeat is.

   Nothing is known of HTTP here but how a chunk is framed, and nothing is lost: what does not pass is handed over as it
   was read, and nothing more is passed before its owner has read that and says so (`arm`). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (64 * 1024)
/* What was read before is sent where there is no room for so much beside it: what comes in a tick is a tenth of that. */
#define ROOM_BYTES (16 * 1024)
/* As secured.py has it. Of what is read at a time no more is decrypted than that, with the record whose beginning had come
   before. */
#define RECORD_BYTES (16 * 1024)
#define TEXT_BYTES (READ_BYTES + 2 * RECORD_BYTES)
/* So many of those that are ready have their turn; then others of the loop have theirs. */
#define EVENTS_MAX 64
/* As flow.py and wire/repeat.py have them. */
#define SIZE_DIGITS_MAX 3
#define TEXT_BYTES_MAX 512

typedef struct {
    PyObject_HEAD
    int epoll;
    char buffer[READ_BYTES];
    char text[TEXT_BYTES]; /* of a source over TLS, what was read, decrypted */
} Poll;

typedef struct {
    PyObject_HEAD
    Poll *poll; /* NULL once it has left, and owner and transport with it */
    int source, sink;
    PyObject *owner, *transport; /* the transport is the sink's */
    PyObject *is_closing;        /* the transport's, asked of each chunk: where it is has to be found but once */
    /* What decrypts, where it has what it decrypts from, and where it has what it answers; NULL of a plain source. */
    PyObject *tls, *incoming, *outgoing;
    PyObject *before, *behind;   /* bytes; NULL where nothing passes */
    bool unsure;                 /* whether the transport may still hold back something that was written to it */
    bool heard;                  /* whether anything has passed since somebody asked */
    bool broken;                 /* something of it was lost: there was no memory to hand it over */
    bool running;                /* what it refers to is in use, also if it is taken out meanwhile */
    unsigned long long chunks, letters;
} Lane;

static PyTypeObject LaneType, PollType;
static PyObject *name_is_closing, *name_buffered, *name_write, *name_read, *name_pending, *record_bytes, *want_read;
static bool plain[256];

/* --- a lane ------------------------------------------------------------------------------------------------------ */

static void disarm(Lane *lane)
{
    Py_CLEAR(lane->before);
    Py_CLEAR(lane->behind);
}

static void let_go(Lane *lane)
{
    disarm(lane);
    Py_CLEAR(lane->owner);
    Py_CLEAR(lane->transport);
    Py_CLEAR(lane->is_closing);
    Py_CLEAR(lane->tls);
    Py_CLEAR(lane->incoming);
    Py_CLEAR(lane->outgoing);
}

/* Has nothing read for it any more; the reference that the poll has goes. */
static void take_out(Lane *lane)
{
    Poll *poll = lane->poll;
    if (poll == NULL)
        return;
    lane->poll = NULL;
    if (poll->epoll >= 0)
        epoll_ctl(poll->epoll, EPOLL_CTL_DEL, lane->source, NULL);
    if (!lane->running)
        let_go(lane);
    Py_DECREF(poll);
    Py_DECREF(lane);
}

static PyObject *lane_arm(Lane *lane, PyObject *args)
{
    PyObject *before, *behind;
    if (!PyArg_ParseTuple(args, "SS", &before, &behind))
        return NULL;
    if (lane->poll != NULL) {
        Py_INCREF(before);
        Py_XSETREF(lane->before, before);
        Py_INCREF(behind);
        Py_XSETREF(lane->behind, behind);
        lane->unsure = true;
    }
    Py_RETURN_NONE;
}

static PyObject *lane_leave(Lane *lane, PyObject *unused)
{
    (void)unused;
    take_out(lane);
    Py_RETURN_NONE;
}

static PyObject *lane_heard(Lane *lane, PyObject *unused)
{
    (void)unused;
    bool heard = lane->heard;
    lane->heard = false;
    return PyBool_FromLong(heard);
}

static PyObject *lane_chunks(Lane *lane, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(lane->chunks);
}

static PyObject *lane_letters(Lane *lane, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(lane->letters);
}

static void lane_dealloc(Lane *lane)
{
    let_go(lane);
    Py_TYPE(lane)->tp_free((PyObject *)lane);
}

static PyMethodDef lane_methods[] = {
    {"arm", (PyCFunction)lane_arm, METH_VARARGS, NULL},
    {"leave", (PyCFunction)lane_leave, METH_NOARGS, NULL},
    {"heard", (PyCFunction)lane_heard, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef lane_getset[] = {
    {"chunks", (getter)lane_chunks, NULL, NULL, NULL},
    {"letters", (getter)lane_letters, NULL, NULL, NULL},
    {0},
};

static PyTypeObject LaneType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tidegate.http._lanes.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = lane_methods,
    .tp_getset = lane_getset,
};

/* --- what passes ------------------------------------------------------------------------------------------------- */

/* The bytes of the chunk that these begin with, where all of it is here and it is a repeat; else 0. */
static size_t passes(const Lane *lane, const char *at, size_t size, size_t *letters)
{
    size_t before = PyBytes_GET_SIZE(lane->before), behind = PyBytes_GET_SIZE(lane->behind);
    size_t told = 0, digits = 0;
    while (digits < SIZE_DIGITS_MAX && digits < size) {
        char c = at[digits];
        if (c >= '0' && c <= '9')
            told = told * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            told = told * 16 + (c - 'a' + 10);
        else
            break;
        digits++;
    }
    if (digits == 0 || at[0] == '0' || told <= before + behind || size < digits + 2 + told + 2)
        return 0;
    size_t text = told - before - behind;
    if (text > TEXT_BYTES_MAX || at[digits] != '\r' || at[digits + 1] != '\n')
        return 0;
    const char *frame = at + digits + 2, *end = frame + before + text;
    if (memcmp(frame, PyBytes_AS_STRING(lane->before), before) != 0)
        return 0;
    if (memcmp(end, PyBytes_AS_STRING(lane->behind), behind) != 0 || end[behind] != '\r' || end[behind + 1] != '\n')
        return 0;
    for (const char *letter = frame + before; letter < end; letter++)
        if (!plain[(unsigned char)*letter])
            return 0;
    *letters += text;
    return digits + 2 + told + 2;
}

/* Whether the transport says so, who gives up the reference; what it cannot say is told as true. */
static bool is_true(PyObject *said)
{
    int is = said == NULL ? -1 : PyObject_IsTrue(said);
    Py_XDECREF(said);
    if (is < 0)
        PyErr_Clear();
    return is != 0;
}

/* Whether what is sent now comes behind all that the transport was given. One that closes may have closed the socket,
   whose number is then another's. */
static bool is_clear(Lane *lane)
{
    if (is_true(PyObject_CallNoArgs(lane->is_closing)))
        return false;
    if (lane->unsure)
        lane->unsure = is_true(PyObject_CallMethodNoArgs(lane->transport, name_buffered));
    return !lane->unsure;
}

/* Hands over what did not pass, nothing at the end of the stream: of its first bytes so many have passed, and could not
   be sent. */
static int hand_over(Lane *lane, PyObject *found, const char *data, size_t size, size_t unsent)
{
    disarm(lane);
    PyObject *told = Py_BuildValue("(Oy#n)", lane->owner, data, (Py_ssize_t)size, (Py_ssize_t)unsent);
    if (told == NULL)
        return -1;
    int wrong = PyList_Append(found, told);
    Py_DECREF(told);
    return wrong;
}

/* Whether there is anything left in it. */
static bool is_pending(PyObject *memory)
{
    return is_true(PyObject_GetAttr(memory, name_pending));
}

/* Decrypts what was read into `text`, and returns how much that is; `over` where no more can be, or TLS has something
   to say itself: its transport will find out, and say it. -1 with an exception where there is no memory. */
static ssize_t decrypt(Poll *poll, Lane *lane, const char *data, size_t got, bool *over)
{
    PyObject *read = PyBytes_FromStringAndSize(data, got);
    if (read == NULL)
        return -1;
    PyObject *written = PyObject_CallMethodOneArg(lane->incoming, name_write, read);
    Py_DECREF(read);
    if (written == NULL)
        return -1;
    Py_DECREF(written);
    size_t size = 0;
    do {
        PyObject *text = PyObject_CallMethodOneArg(lane->tls, name_read, record_bytes);
        if (text == NULL) {
            *over = !PyErr_ExceptionMatches(want_read);
            PyErr_Clear();
            break;
        }
        size_t more = PyBytes_Check(text) ? PyBytes_GET_SIZE(text) : 0;
        *over = more == 0 || more > TEXT_BYTES - size;
        if (!*over) {
            memcpy(poll->text + size, PyBytes_AS_STRING(text), more);
            size += more;
        }
        Py_DECREF(text);
    } while (!*over && is_pending(lane->incoming));
    *over = *over || is_pending(lane->outgoing);
    return size;
}

/* What was read for a lane: so many bytes, of which the first have the form of what passes, as so many chunks with so
   many letters. */
typedef struct {
    Lane *lane;
    const char *data;
    size_t size, passed, chunks, letters;
} Read;

/* Sends on what passes, if it may, and hands over the rest; -1 with an exception where there is no memory. */
static int send_on(const Read *read, PyObject *found)
{
    Lane *lane = read->lane;
    size_t passed = read->passed > 0 && lane->before != NULL && is_clear(lane) ? read->passed : 0, sent = 0;
    if (lane->poll == NULL)
        return 0; /* nobody wants it any more */
    if (passed > 0) {
        lane->heard = true;
        lane->chunks += read->chunks;
        lane->letters += read->letters;
        ssize_t taken = send(lane->sink, read->data, passed, MSG_DONTWAIT | MSG_NOSIGNAL);
        /* Whatever is wrong with the socket, its transport will find. */
        sent = taken < 0 ? 0 : taken;
    }
    return sent < read->size ? hand_over(lane, found, read->data + sent, read->size - sent, passed - sent) : 0;
}

/* Looks how much of that has the form of what passes. */
static Read look_at(Lane *lane, const char *data, size_t size)
{
    Read read = {.lane = lane, .data = data, .size = size};
    size_t step;
    while (lane->before != NULL && read.passed < size
           && (step = passes(lane, data + read.passed, size - read.passed, &read.letters)) > 0) {
        read.passed += step;
        read.chunks++;
    }
    return read;
}

/* Reads once, to `buffer`: 1 with what is to be sent on, 0 where that is nothing, or was done at once, as of what had to
   be decrypted; -1 with an exception where there is no memory. */
static int read_in(Poll *poll, Lane *lane, PyObject *found, char *buffer, size_t room, Read *read)
{
    ssize_t got = recv(lane->source, buffer, room, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (got <= 0)
        return hand_over(lane, found, "", 0, 0);
    if (lane->broken)
        return 0;
    if (lane->incoming == NULL) {
        *read = look_at(lane, buffer, got);
        return 1;
    }
    bool over = false;
    got = decrypt(poll, lane, buffer, got, &over);
    if (got < 0)
        return -1;
    if (lane->poll == NULL)
        return 0; /* nobody wants it any more */
    *read = look_at(lane, poll->text, got);
    if (send_on(read, found) < 0)
        return -1;
    return over && lane->poll != NULL ? hand_over(lane, found, "", 0, 0) : 0;
}

/* --- all of them ------------------------------------------------------------------------------------------------- */

static PyObject *poll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "it takes no arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, ""))
        return NULL;
    Poll *poll = (Poll *)type->tp_alloc(type, 0);
    if (poll == NULL)
        return NULL;
    poll->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (poll->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(poll);
        return NULL;
    }
    return (PyObject *)poll;
}

static PyObject *poll_fileno(Poll *poll, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(poll->epoll);
}

static PyObject *poll_join(Poll *poll, PyObject *args)
{
    PyObject *owner, *transport, *tls = Py_None, *incoming = Py_None, *outgoing = Py_None;
    int source, sink;
    if (!PyArg_ParseTuple(args, "OiOi|OOO", &owner, &source, &transport, &sink, &tls, &incoming, &outgoing))
        return NULL;
    if ((tls == Py_None) != (incoming == Py_None) || (tls == Py_None) != (outgoing == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "TLS has memory for what comes, and for what goes");
        return NULL;
    }
    PyObject *is_closing = PyObject_GetAttr(transport, name_is_closing);
    if (is_closing == NULL)
        return NULL;
    Lane *lane = PyObject_New(Lane, &LaneType);
    if (lane == NULL) {
        Py_DECREF(is_closing);
        return NULL;
    }
    Py_INCREF(owner);
    Py_INCREF(transport);
    lane->poll = NULL;
    lane->source = source;
    lane->sink = sink;
    lane->owner = owner;
    lane->transport = transport;
    lane->is_closing = is_closing;
    lane->tls = tls == Py_None ? NULL : Py_NewRef(tls);
    lane->incoming = incoming == Py_None ? NULL : Py_NewRef(incoming);
    lane->outgoing = outgoing == Py_None ? NULL : Py_NewRef(outgoing);
    lane->before = lane->behind = NULL;
    lane->unsure = true;
    lane->heard = lane->broken = lane->running = false;
    lane->chunks = lane->letters = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = lane};
    if (epoll_ctl(poll->epoll, EPOLL_CTL_ADD, source, &event) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(lane);
        return NULL;
    }
    Py_INCREF(poll);
    lane->poll = poll;
    Py_INCREF(lane); /* the poll's own */
    return (PyObject *)lane;
}

/* Others are not to lose what was read of theirs; this stream breaks off here, with what is behind it. */
static void break_off(Lane *lane)
{
    PyErr_WriteUnraisable(lane->owner);
    lane->broken = true;
    if (lane->poll != NULL) /* or its socket may be another's by now */
        shutdown(lane->source, SHUT_RDWR);
}

/* All at once: whoever reads at the other end is awake from the first on. */
static void send_all(const Read *reads, int count, PyObject *found)
{
    for (int at = 0; at < count; at++) {
        Lane *lane = reads[at].lane;
        if (lane->poll == NULL)
            continue; /* nobody wants it any more */
        lane->running = true;
        if (send_on(&reads[at], found) < 0)
            break_off(lane);
        lane->running = false;
        if (lane->poll == NULL)
            let_go(lane);
    }
}

/* Reads and sends on what is ready, and calls `take` with what did not pass, if there is any: mostly there is none. */
static PyObject *poll_run(Poll *poll, PyObject *take)
{
    struct epoll_event events[EVENTS_MAX];
    Read reads[EVENTS_MAX];
    int many = 0;
    size_t used = 0;
    PyObject *found = PyList_New(0);
    if (found == NULL)
        return NULL;
    /* One that is called meanwhile may take others out, and so may whatever runs where memory is asked for. */
    int count = epoll_wait(poll->epoll, events, EVENTS_MAX, 0);
    for (int at = 0; at < count; at++)
        Py_INCREF((PyObject *)events[at].data.ptr);
    for (int at = 0; at < count; at++) {
        Lane *lane = events[at].data.ptr;
        if (lane->poll == NULL)
            continue;
        /* What is to be decrypted takes long. */
        if (READ_BYTES - used < ROOM_BYTES || (lane->incoming != NULL && many > 0)) {
            send_all(reads, many, found);
            many = used = 0;
            if (lane->poll == NULL)
                continue;
        }
        lane->running = true;
        int is_read = read_in(poll, lane, found, poll->buffer + used, READ_BYTES - used, &reads[many]);
        if (is_read > 0)
            used += reads[many++].size;
        else if (is_read < 0)
            break_off(lane);
        lane->running = false;
        if (lane->poll == NULL)
            let_go(lane);
    }
    send_all(reads, many, found);
    for (int at = 0; at < count; at++)
        Py_DECREF((PyObject *)events[at].data.ptr);
    PyObject *taken = PyList_GET_SIZE(found) > 0 ? PyObject_CallOneArg(take, found) : Py_NewRef(Py_None);
    Py_DECREF(found);
    return taken;
}

static PyObject *poll_close(Poll *poll, PyObject *unused)
{
    (void)unused;
    if (poll->epoll >= 0)
        close(poll->epoll);
    poll->epoll = -1;
    Py_RETURN_NONE;
}

static void poll_dealloc(Poll *poll)
{
    if (poll->epoll >= 0)
        close(poll->epoll);
    Py_TYPE(poll)->tp_free((PyObject *)poll);
}

static PyMethodDef poll_methods[] = {
    {"fileno", (PyCFunction)poll_fileno, METH_NOARGS, NULL},
    {"join", (PyCFunction)poll_join, METH_VARARGS, NULL},
    {"run", (PyCFunction)poll_run, METH_O, NULL},
    {"close", (PyCFunction)poll_close, METH_NOARGS, NULL},
    {0},
};

static PyTypeObject PollType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tidegate.http._lanes.Poll",
    .tp_basicsize = sizeof(Poll),
    .tp_dealloc = (destructor)poll_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = poll_methods,
    .tp_new = poll_new,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tidegate.http._lanes",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__lanes(void)
{
    name_is_closing = PyUnicode_InternFromString("is_closing");
    name_buffered = PyUnicode_InternFromString("get_write_buffer_size");
    name_write = PyUnicode_InternFromString("write");
    name_read = PyUnicode_InternFromString("read");
    name_pending = PyUnicode_InternFromString("pending");
    record_bytes = PyLong_FromLong(RECORD_BYTES);
    if (name_is_closing == NULL || name_buffered == NULL || name_write == NULL || name_read == NULL || name_pending == NULL
        || record_bytes == NULL)
        return NULL;
    PyObject *ssl = PyImport_ImportModule("ssl");
    if (ssl == NULL)
        return NULL;
    want_read = PyObject_GetAttrString(ssl, "SSLWantReadError");
    Py_DECREF(ssl);
    if (want_read == NULL || PyType_Ready(&LaneType) < 0 || PyType_Ready(&PollType) < 0)
        return NULL;
    for (int letter = 0x20; letter < 0x7F; letter++)
        plain[letter] = letter != '"' && letter != '\\';
    PyObject *made = PyModule_Create(&module);
    if (made == NULL)
        return NULL;
    if (PyModule_AddObjectRef(made, "Lane", (PyObject *)&LaneType) < 0 ||
        PyModule_AddObjectRef(made, "Poll", (PyObject *)&PollType) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
