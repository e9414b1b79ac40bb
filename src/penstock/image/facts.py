"""What is known of a lock's packages beyond the lock: from the cache, and from indexes if allowed.

Three questions, each asked only where its answer is used: which files an index lists (where the
lock names none, and for packages that cannot simply be downloaded), how large a wheel becomes,
and what building a source distribution takes. What an index does not answer stays unknown and is
noted once; a check ends within ``SECONDS_MAX`` whatever indexes do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from penstock.errors import ImageError
from penstock.image.cache import Cache
from penstock.image.files import plain
from penstock.image.indexes import Index, index_of
from penstock.image.listed import Listed
from penstock.image.model import Compile, File, Judged, Package, Source, Verdict
from penstock.image.relocations import (
    HEADER_BYTES,
    MEMBER_BYTES_MAX,
    SLACK_BYTES,
    has_packed_relocations,
    member,
)
from penstock.image.sdist import SDIST_BYTES_MAX, read_sdist
from penstock.image.wheel import DIRECTORY_BYTES_MAX, TAIL_BYTES, NotThere, Sizes, read_sizes

if TYPE_CHECKING:
    from penstock.image.network import Network

T = TypeVar("T")

SECONDS_MAX: Final = 120.0
NOTES_MAX: Final = 20

Identity = tuple[str, str | None]


def identity(package: Package | Judged) -> Identity:
    """A name with a version: forks of one lock have several of a name."""
    return package.name, package.version


def key_of(file: File) -> str:
    """What a file is known by: its hash, else its address, else its name."""
    return file.sha256 or file.url or file.filename


class Facts:
    """What was found out in one check."""

    def __init__(
        self, cache: Cache, indexes: Sequence[Index], *, is_offline: bool, as_of: str | None = None
    ) -> None:
        self.indexes = tuple(indexes)
        self._as_of = as_of
        self.is_offline = is_offline
        self.notes: list[str] = []
        self._cache = cache
        self._listed: dict[tuple[str, str], tuple[Listed, ...]] = {}
        self._unanswered: dict[str, str] = {}
        self._sizes: dict[str, Sizes] = {}
        self._compiles: dict[str, Compile] = {}
        self._unread: set[str] = set()

    def listed(self, package: Package) -> tuple[Listed, ...] | None:
        """Every file of the package that its indexes list; None where that is not known."""
        for index in self._indexes_of(package):
            found = self._page(index, package.name)
            if found is None:
                return None
            if found:
                return tuple(filter(self._is_there, found))
        return ()

    def _is_there(self, listed: Listed) -> bool:
        """Whether the file was there on the day that is asked about."""
        uploaded = listed.file.uploaded
        return self._as_of is None or (uploaded is not None and uploaded[:10] <= self._as_of)

    def why_not_listed(self, package: Package) -> str:
        """Why ``listed`` knows nothing."""
        if self.is_offline:
            return "no index was asked (--offline)"
        return self._unanswered.get(package.name, "no index was asked")

    def sizes(self, file: File) -> Sizes | None:
        """How large a wheel is and becomes, if that is known."""
        key = key_of(file)
        if key not in self._sizes:
            self._from_cache(f"wheel:{key}", Sizes, self._sizes, key)
        return self._sizes.get(key)

    def compile(self, file: File) -> Compile | None:
        """What building a source distribution takes, if that is known."""
        key = key_of(file)
        if key not in self._compiles:
            self._from_cache(f"sdist:{key}", Compile, self._compiles, key)
        return self._compiles.get(key)

    def has_packed_relocations(self, file: File) -> bool | None:
        """Whether a library that a wheel bundles has packed relocations, if that is known."""
        sizes = self.sizes(file)
        if sizes is not None and not sizes.vendored:
            return False
        content = self._cache.get(f"relr:{key_of(file)}") if sizes is not None else None
        return None if content is None else content == b"true"

    def ask_for_relocations(self, found: Iterable[tuple[Package, Judged]]) -> None:
        """Read the libraries that wheels bundle, where that is not known yet."""
        jobs = {
            key_of(judged.file): (package, judged.file)
            for package, judged in found
            if judged.verdict is Verdict.PREBUILT
            and judged.file is not None
            and self.has_packed_relocations(judged.file) is None
        }
        self._run([partial(self._ask_relocations, *job) for job in jobs.values()])

    def ask_for_files(self, packages: Iterable[Package]) -> None:
        """Find out which files the packages have, as far as it may and can be."""
        wanted = {package.name: package for package in packages if self.listed(package) is None}
        self._run([partial(self._ask_page, each) for each in wanted.values()])

    def ask_for_contents(self, found: Iterable[tuple[Package, Judged]]) -> None:
        """Find out sizes of wheels and what builds take."""
        jobs: dict[str, tuple[Package, Judged, File]] = {}
        for package, judged in found:
            file = judged.file
            if file is None or package.source is Source.PATH:
                continue
            is_known = self.compile(file) if judged.verdict is Verdict.COMPILE else self.sizes(file)
            if is_known is None:
                jobs[key_of(file)] = (package, judged, file)
        self._run([partial(self._ask_content, *job) for job in jobs.values()])

    def _run(self, jobs: Sequence[Callable[[Network], Awaitable[None]]]) -> None:
        """Do all of it at once. Without anything to ask, nothing of the network is imported."""
        if self.is_offline or not jobs:
            return
        from penstock.image.network import Network  # noqa: PLC0415 - 0.4 s of CPU for aiohttp

        async def all_of_them() -> None:
            async with Network(self.indexes) as network, asyncio.timeout(SECONDS_MAX):
                await asyncio.gather(*(job(network) for job in jobs))

        try:
            asyncio.run(all_of_them())
        except TimeoutError:
            self._note(f"indexes took more than {SECONDS_MAX:g} s; the rest was not asked")

    def _indexes_of(self, package: Package) -> tuple[Index, ...]:
        """The index that the lock names, with the login of the project's for its address."""
        named = index_of(package.index) if package.index is not None else None
        if named is None:
            return self.indexes
        same = next((index for index in self.indexes if index.url == named.url), None)
        return (same or named,)

    def _page(self, index: Index, name: str) -> tuple[Listed, ...] | None:
        key = (index.url, name)
        if key not in self._listed:
            content = self._cache.get(f"page:{index.url}:{name}", is_list=True)
            if content is not None:
                self._listed[key] = _decoded_page(content)
        return self._listed.get(key)

    async def _ask_page(self, package: Package, network: Network) -> None:
        from penstock.image.index import ask  # noqa: PLC0415 - with the network alone
        from penstock.image.network import Unanswered  # noqa: PLC0415 - as above

        for index in self._indexes_of(package):
            known = self._page(index, package.name)
            if known is None:
                try:
                    known = await ask(network, index, package.name) or ()
                except (Unanswered, ImageError) as error:
                    self._unanswered[package.name] = f"the index could not be asked: {error}"
                    self._note(f"an index could not be asked: {plain(error)}")
                    return
                self._listed[index.url, package.name] = known
                self._cache.put(f"page:{index.url}:{package.name}", msgspec.json.encode(known))
            if known:
                return

    async def _ask_content(
        self, package: Package, judged: Judged, file: File, network: Network
    ) -> None:
        from penstock.image.network import Unanswered  # noqa: PLC0415 - with the network alone

        key = key_of(file)
        try:
            url = file.url or await self._address(network, package, file)
            if url is None or not network.may_ask(url):
                return
            if judged.verdict is Verdict.COMPILE:
                compiled = await _ask_compile(network, url, file.filename)
                self._compiles[key] = compiled
                self._cache.put(f"sdist:{key}", msgspec.json.encode(compiled))
            else:
                sizes = await _ask_sizes(network, url, file.bytes)
                self._sizes[key] = sizes
                self._cache.put(f"wheel:{key}", msgspec.json.encode(sizes))
        except (Unanswered, ValueError) as error:
            self._note(f"{file.filename} could not be looked into: {plain(error)}")

    async def _ask_relocations(self, package: Package, file: File, network: Network) -> None:
        from penstock.image.network import Unanswered  # noqa: PLC0415 - with the network alone

        sizes = self.sizes(file)
        try:
            url = file.url or await self._address(network, package, file)
            if sizes is None or url is None or not network.may_ask(url):
                return
            found = await _ask_members(network, url, sizes)
            self._cache.put(f"relr:{key_of(file)}", b"true" if found else b"false")
        except (Unanswered, ValueError) as error:
            self._note(f"the libraries in {file.filename} could not be read: {plain(error)}")

    async def _address(self, network: Network, package: Package, file: File) -> str | None:
        """Where a file is that the lock gives a name alone."""
        await self._ask_page(package, network)
        for listed in self.listed(package) or ():
            is_it = listed.file.filename == file.filename
            if is_it and (file.sha256 is None or listed.file.sha256 in {None, file.sha256}):
                return listed.file.url
        return None

    def _from_cache(self, key: str, kind: type[T], known: dict[str, T], name: str) -> None:
        content = self._cache.get(key)
        if content is not None:
            try:
                known[name] = msgspec.json.decode(content, type=kind)
            except msgspec.DecodeError:
                return

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < NOTES_MAX:
            self.notes.append(text)


async def _ask_compile(network: Network, url: str, filename: str) -> Compile:
    """What a source distribution says of its building; it is read in memory."""
    from penstock.image.network import Unanswered  # noqa: PLC0415 - with the network alone

    answer = await network.get(url, bytes_max=SDIST_BYTES_MAX)
    if answer.status != 200:
        raise Unanswered(f"status {answer.status}")
    return read_sdist(filename, answer.body)


async def _ask_members(network: Network, url: str, sizes: Sizes) -> bool:
    """Whether any bundled library has packed relocations; the smallest are read first."""
    for each in sorted(sizes.vendored, key=lambda member: member.compressed):
        if each.compressed > MEMBER_BYTES_MAX:
            raise ValueError("a bundled library of more than 4 MiB")
        last = each.offset + HEADER_BYTES + SLACK_BYTES + each.compressed
        answer = await network.get(
            url,
            span=f"bytes={each.offset}-{min(last, sizes.download) - 1}",
            bytes_max=MEMBER_BYTES_MAX + HEADER_BYTES + SLACK_BYTES,
        )
        content = answer.body if answer.status == 206 else answer.body[each.offset :]
        if has_packed_relocations(member(content, each.compressed)):
            return True
    return False


async def _ask_sizes(network: Network, url: str, total: int | None) -> Sizes:
    """A wheel's sizes by one range request, or two where its directory is large."""
    from penstock.image.network import Unanswered  # noqa: PLC0415 - with the network alone

    span = f"bytes=-{TAIL_BYTES}"
    if total is not None:
        span = f"bytes={max(0, total - TAIL_BYTES)}-"
    held = await network.get(url, span=span, bytes_max=TAIL_BYTES * 4)
    if held.status not in {200, 206}:
        raise Unanswered(f"status {held.status}")
    whole = held.total if held.status == 206 else len(held.body)
    if whole is None:
        raise Unanswered("a part of a file that says not of what")
    try:
        return read_sizes(whole, held.body)
    except NotThere as wanted:
        if whole - wanted.start > DIRECTORY_BYTES_MAX:
            raise Unanswered(f"a directory larger than {DIRECTORY_BYTES_MAX >> 20} MiB") from None
        rest = await network.get(url, span=f"bytes={wanted.start}-", bytes_max=DIRECTORY_BYTES_MAX)
    try:
        return read_sizes(whole, rest.body)
    except NotThere:
        raise ValueError("a directory that is not where it should be") from None


def _decoded_page(content: bytes) -> tuple[Listed, ...]:
    try:
        return msgspec.json.decode(content, type=tuple[Listed, ...])
    except msgspec.DecodeError:
        return ()
