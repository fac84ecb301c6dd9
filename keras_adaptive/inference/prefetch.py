"""Read ahead: the next batches are made in a thread while the caller computes."""

import contextlib
import itertools
import queue
import threading

_END = object()


class Prefetch:
    """An iterator whose elements are made ahead of time in a thread of its own.

    An exception of the source is raised where its element would have come. The thread ends with the
    source, or with the element in the making after `close`, which leaving a `with` calls.

    Args:
        source: iterable. Only the thread touches it.
        num_ahead: int, at least 1. Most elements that wait to be taken; one more is in the making.
        assemble: function from an iterable to an iterable, that makes elements of the source's in
            the thread, such as batches of pictures; or None.
    """

    def __init__(self, source, num_ahead, assemble=None):
        self._ready = queue.Queue(num_ahead)
        self._is_closed = threading.Event()
        source = itertools.takewhile(lambda _: not self._is_closed.is_set(), source)
        threading.Thread(target=self._fill, args=(source, assemble), daemon=True).start()

    def _fill(self, source, assemble):
        try:
            for element in source if assemble is None else assemble(source):
                if not self._put((element, None)):
                    return
            self._put((_END, None))
        except BaseException as error:  # whatever it is, it is the caller's to handle
            self._put((_END, error))

    def _put(self, item):
        """Hand over an item, and return whether anybody still waits for one."""
        if not self._is_closed.is_set():
            self._ready.put(item)
        return not self._is_closed.is_set()

    def __iter__(self):
        return self

    def __next__(self):
        if self._is_closed.is_set():
            raise StopIteration
        element, error = self._ready.get()
        if element is not _END:
            return element
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self):
        """Stop reading ahead."""
        self._is_closed.set()
        # A thread that waits for room finds it, and sees that it is closed.
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
