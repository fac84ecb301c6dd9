"""Tensors on their way from stage to stage: rows are chosen at once, and copied when they are read.

Pictures that leave take their rows out of every tensor that later stages read. Copying the others
each time would move tensors that several stages only pass on. So rows are kept as indices into the
tensors that hold them, and are gathered when a stage reads them.
"""

import numpy as np


class Carried:
    """The tensors of some pictures by key, each in parts, one row per picture.

    A part is a tensor and the rows of it that are meant. Tensors whose rows were chosen together
    share their indices, so choosing again costs once for all of them.

    Attributes:
        num_rows: int. Number of pictures.
    """

    __slots__ = ("num_rows", "_parts", "_whole")

    def __init__(self, num_rows, parts):
        self.num_rows = num_rows
        self._parts = parts  # key -> (list of tensors, `_Layout`)
        self._whole = None  # layout of the tensors that have no other rows

    @classmethod
    def of(cls, tensors, num_rows):
        """Return whole tensors.

        Args:
            tensors: dict from key to tensor.
            num_rows: int. Rows of each.
        """
        carried = cls(num_rows, {})
        carried.add(tensors)
        return carried

    def add(self, tensors):
        """Take up tensors by key that have a row for each picture, in order."""
        if self._whole is None:
            self._whole = _Layout([None], [self.num_rows], [self.num_rows])
        for key, tensor in tensors.items():
            self._parts[key] = [tensor], self._whole

    def drop(self, keys):
        """Let go of the tensors of these keys."""
        for key in keys:
            del self._parts[key]

    def read(self, keys, gather):
        """Return a list of tensors with exactly the pictures' rows, in the order of `keys`.

        What had to be copied for it takes the place of its parts.

        Args:
            keys: sequence of keys.
            gather: see `KerasEngine.gather`.
        """
        tensors = []
        for key in keys:
            parts, layout = self._parts[key]
            if layout.is_whole:
                tensors.append(parts[0])
            else:
                tensors.append(gather(list(zip(parts, layout.rows))))
                self.add({key: tensors[-1]})
        return tensors

    def take(self, rows):
        """Return the tensors of some of the pictures; nothing is copied.

        Args:
            rows: int array, increasing, at least one.
        """
        taken, parts = {}, {}
        for key, (tensors, layout) in self._parts.items():
            if id(layout) not in taken:
                taken[id(layout)] = layout.take(rows)
            kept, new_layout = taken[id(layout)]
            parts[key] = [tensors[number] for number in kept], new_layout
        return Carried(len(rows), parts)

    @classmethod
    def join(cls, pieces):
        """Return the pictures of several `Carried` with the same keys as one; nothing is copied."""
        joined, parts = {}, {}
        for key in pieces[0]._parts:
            tensors, layouts = zip(*(piece._parts[key] for piece in pieces))
            same = tuple(map(id, layouts))
            if same not in joined:
                joined[same] = _Layout(*(sum(lists, []) for lists in zip(
                    *((layout.rows, layout.counts, layout.sizes) for layout in layouts))))
            parts[key] = sum(tensors, []), joined[same]
        return cls(sum(piece.num_rows for piece in pieces), parts)

    def num_alive(self):
        """Return the most rows that the parts of one key keep in memory."""
        return max((sum(layout.sizes) for _, layout in self._parts.values()), default=0)

    def compact(self, gather):
        """Copy rows out of the tensors of which not all rows are meant, and let those go.

        Parts that are whole stay, so that no row is copied a second time by another call.

        Args:
            gather: see `KerasEngine.gather`.
        """
        compacted = {}
        for key, (tensors, layout) in self._parts.items():
            if id(layout) not in compacted:
                compacted[id(layout)] = layout.compact()
            runs, new_layout = compacted[id(layout)]
            self._parts[key] = [
                tensors[run.start] if layout.rows[run.start] is None
                else gather(list(zip(tensors[run], layout.rows[run])))
                for run in runs
            ], new_layout


class _Layout:
    """Where rows lie in a list of tensors: for each its chosen rows, their number, and its size."""

    __slots__ = ("rows", "counts", "sizes", "is_whole")

    def __init__(self, rows, counts, sizes):
        self.rows = rows  # int arrays, or None for all
        self.counts = counts
        self.sizes = sizes
        self.is_whole = len(rows) == 1 and rows[0] is None

    def take(self, chosen):
        """Return the numbers of the parts that keep rows, and their layout."""
        if len(self.rows) == 1:
            own = self.rows[0]
            rows = chosen if own is None else own[chosen]
            return [0], _Layout([rows], [len(rows)], self.sizes)
        kept, layout = [], _Layout([], [], [])
        ends = np.cumsum(self.counts)
        cuts = np.searchsorted(chosen, ends)
        begin = 0
        for number, (cut, count) in enumerate(zip(cuts.tolist(), self.counts)):
            if cut > begin:
                rows = chosen[begin:cut] - (ends[number] - count)
                own = self.rows[number]
                if own is not None:
                    rows = own[rows]
                elif len(rows) == count:
                    rows = None
                kept.append(number)
                layout.rows.append(rows)
                layout.counts.append(cut - begin)
                layout.sizes.append(self.sizes[number])
            begin = cut
        layout.is_whole = len(kept) == 1 and layout.rows[0] is None
        return kept, layout

    def compact(self):
        """Return slices of parts to put together, and the layout of what that gives."""
        runs = []
        for number, rows in enumerate(self.rows):
            if rows is not None and runs and self.rows[runs[-1].start] is not None:
                runs[-1] = slice(runs[-1].start, number + 1)
            else:
                runs.append(slice(number, number + 1))
        counts = [sum(self.counts[run]) for run in runs]
        return runs, _Layout([None] * len(runs), counts, counts)
