"""How large a profile may be that is read from a file: checked before the outputs multiply its parts.

A file of some kilobytes may name one deep stack in a million samples.  Outputs spell out some stacks once for each
thread that has them, and others once for each second, so the products are bounded too.  Within these limits every
output takes less than a minute and less than 2 GB, and ``diff`` less than twice that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.model import Frame, Profile

STACK_FRAMES_MAX = 20_000_000  # of all distinct stacks together; 200,000 stacks of a busy host have 5 million
THREAD_FRAMES_MAX = 30_000_000  # the same, each stack as often as there are threads that have it
SECOND_FRAMES_MAX = 200_000_000  # the same, each stack as often as there are samples to tell apart
CHARACTERS_MAX = 2 << 30  # of all stacks spelled out, once for each way in which a thread had them
TEXT_MAX = 1 << 20  # characters of one text; a name has 4,096 at most, the command line of a linker more
TEXTS_MAX = 64 << 20  # characters of all texts
PROCESSES_MAX = 500_000  # each takes a row, and 40 µs; 100 that end every second are 360,000 in an hour
SAMPLES_MAX = 1 << 62  # a sum of 64 bits can hold twice that
_NAME_OVERHEAD = 60  # characters of a frame besides its names, in the most verbose output
_ESCAPED = 12  # characters for one that JSON escapes


def check_texts(texts: Iterable[str]) -> None:
    """Raises WrongContentError if a text is too long, or all together are."""
    sizes = [len(text) for text in texts]
    if max(sizes, default=0) > TEXT_MAX:
        raise WrongContentError(f"a text has more than {TEXT_MAX:,} characters")
    if sum(sizes) > TEXTS_MAX:
        raise WrongContentError(f"its texts have more than {TEXTS_MAX:,} characters")


def check_size(profile: Profile) -> None:
    """Raises WrongContentError if an output of the profile would take too much time or memory."""
    if sum(profile.samples.values()) > SAMPLES_MAX:
        raise WrongContentError(f"its samples are more than {SAMPLES_MAX:,}")
    _check(len(profile.processes), PROCESSES_MAX, "processes")
    depths = [len(stack) for stack in profile.stacks]
    _check(sum(depths), STACK_FRAMES_MAX, "frames")
    each_sample = Counter(key.stack for key in profile.samples)
    _check(_weighted(each_sample, depths), SECOND_FRAMES_MAX, "frames in its samples")
    if _weighted(each_sample, depths) > THREAD_FRAMES_MAX:
        owned = {(key.process, key.thread, key.stack) for key in profile.samples}
        by_thread = Counter(stack for _, _, stack in owned)
        _check(_weighted(by_thread, depths), THREAD_FRAMES_MAX, "frames in its threads")
    _check_characters(profile, each_sample)


def _check_characters(profile: Profile, each_sample: Counter[int]) -> None:
    names = [_spelled(frame) for frame in profile.frames]
    stacks = [sum([names[number] for number in stack]) for stack in profile.stacks]
    if _weighted(each_sample, stacks) + _owners(profile) <= CHARACTERS_MAX:
        return
    ways = {key._replace(second=0) for key in profile.samples}  # an output that tells seconds lists them
    by_way = Counter(key.stack for key in ways)
    _check(_weighted(by_way, stacks) + _owners(profile), CHARACTERS_MAX, "characters in its stacks")


def _owners(profile: Profile) -> int:
    """The characters of the names of processes and threads, as often as samples have them."""
    processes = Counter(key.process for key in profile.samples)
    threads = Counter(key.thread for key in profile.samples)
    of_processes = [len(each.name) + len(each.command) + len(each.interpreter) for each in profile.processes]
    return _weighted(processes, of_processes) + _weighted(threads, [len(each.name) for each in profile.threads])


def _weighted(times: Counter[int], weights: list[int]) -> int:
    return sum([count * weights[index] for index, count in times.items()])


def _spelled(frame: Frame) -> int:
    """The characters of a frame in the most verbose output."""
    both = frame.name + frame.file
    is_plain = both.isascii() and both.isprintable()
    return _NAME_OVERHEAD + (len(both) if is_plain else _ESCAPED * len(both))


def _check(number: int, most: int, what: str) -> None:
    if number > most:
        raise WrongContentError(f"it has more than {most:,} {what}")
