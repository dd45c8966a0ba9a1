"""Which of the idle cores a unit gets: near each other, and far from whom they would share a core with.

A set within one last-level cache shares weights and activations there, and leaves other caches to others; the smallest
cache that has room is used up first, so that wide units find whole ones later (best fit). A thread whose sibling is at work
runs at about half the speed, so such threads go last.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from veltair.core.values import CoreId, Place


def choose_cores(idle: Sequence[CoreId], count: int, places: Mapping[CoreId, Place]) -> tuple[CoreId, ...]:
    """`count` of the idle ones, in the order they stand in there. Without places, the first."""
    if not places or count == len(idle):
        return tuple(idle[:count])
    all_threads = Counter(place.core for place in places.values())
    idle_threads = Counter(places[core].core for core in idle)
    taken: Counter[int] = Counter()
    ranked: dict[tuple[int, int], list[tuple[int, int, CoreId]]] = defaultdict(list)
    for order, core in enumerate(idle):
        place = places[core]
        # Siblings in use, the one this very choice would put there included.
        beside = all_threads[place.core] - idle_threads[place.core] + taken[place.core]
        taken[place.core] += 1
        ranked[place.node, place.cache].append((beside, order, core))

    chosen: list[tuple[int, int, CoreId]] = []
    nodes: Counter[int] = Counter()
    while len(chosen) < count:
        missing = count - len(chosen)
        group = min(ranked, key=lambda g: _rank(sorted(ranked[g])[:missing], missing, -nodes[g[0]], len(ranked[g]), g))
        taken_now = sorted(ranked.pop(group))[:missing]
        nodes[group[0]] += len(taken_now)
        chosen += taken_now
    return tuple(core for _, _, core in sorted(chosen, key=lambda c: c[1]))


def _rank(
    best: Sequence[tuple[int, int, CoreId]], missing: int, near: int, room: int, group: tuple[int, int]
) -> tuple[bool, int, int, int, tuple[int, int]]:
    """Has it all, with the fewest shared cores, on a node already used, with the least room left, or else the most."""
    fits = len(best) == missing
    shared = sum(beside > 0 for beside, _, _ in best)
    return not fits, shared, near, room if fits else -room, group
