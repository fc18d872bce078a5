"""Which strings stand in a set, and how many different ones there are; piece by piece, exactly."""

import itertools

import numpy as np
import torch

from ..noise import GOLDEN, mix
from .data import CHUNK_BYTES, BitStrings

QUESTION_BYTES = 1 << 24  # of packed strings that are sought at a time


class Distinct:
    """The different ones among some strings, in the order of a 64-bit hash.

    words: (D, ceil(L / 64)) int64, BitStrings.words of them; keys: (D,) uint64, their hashes, all
    different and rising; number: (N,) which of them each of the strings is.
    """

    def __init__(self, strings: BitStrings):
        words = strings.words()
        for seed in itertools.count():  # until no two have the same hash: at once, unless by malice
            keys = _hash(words, seed)
            order = np.argsort(keys)
            self.keys = keys[order]
            is_first = np.append(True, self.keys[1:] != self.keys[:-1])[: len(order)]
            self.keys, self.words = self.keys[is_first], words[order[is_first]]
            self.number = np.empty_like(order)
            self.number[order] = is_first.cumsum() - 1
            if (self.words[self.number] == words).all():
                break
        self.seed = seed
        # how keys begin; with 8 places for each, few hashes begin so by chance
        self._shift = np.uint64(64 - (8 * len(self.keys)).bit_length())
        self._begins = np.zeros(1 << int(64 - self._shift), bool)
        self._begins[self.keys >> self._shift] = True

    def find(self, strings: BitStrings) -> np.ndarray:
        """(M,) int64: numbers of those that stand in strings, in no order, with repetitions."""
        words = strings.words()
        keys = _hash(words, self.seed)
        likely = np.flatnonzero(self._begins[keys >> self._shift])
        number = np.minimum(self.keys.searchsorted(keys[likely]), len(self.keys) - 1)
        return number[(self.words[number] == words[likely]).all(axis=1)]


def _hash(words: np.ndarray, seed: int) -> np.ndarray:
    """(N,) uint64, a function of words (N, W). One word: different for different words."""
    salt = mix(torch.arange(words.shape[1]) * GOLDEN + seed)  # (W,)
    return mix(torch.from_numpy(words) + salt).sum(dim=1).numpy().view(np.uint64)


class Membership:
    """Which strings stand in a given set: exact, and with nothing prepared or kept of the set's size.

    A question goes through the whole set, piece by piece: some hundredths of a microsecond a string.
    """

    def __init__(self, strings: BitStrings):
        self.strings = strings

    def contains(self, strings: BitStrings) -> np.ndarray:
        """(N,) bool: is each string in the set?"""
        rows = -(-QUESTION_BYTES // strings.packed.shape[1])
        return np.concatenate([np.zeros(0, bool), *map(self._contains, strings.pieces(rows))])

    def _contains(self, strings: BitStrings) -> np.ndarray:
        asked = Distinct(strings)
        found = np.zeros(len(asked.keys), bool)
        for piece in self.strings.pieces(-(-CHUNK_BYTES // self.strings.packed.shape[1])):
            found[asked.find(piece)] = True
        return found[asked.number]


def count_distinct(strings: BitStrings) -> int:
    """The number of different strings."""
    return len(Distinct(strings).keys)
