"""`ItemIndex` after a power cut at any point of a save, or of changes in its journal."""

from __future__ import annotations

import copy
import os
import random
import shutil
import stat
import warnings
from pathlib import Path

import pytest
import torch
from index_folders import Contents, broken_off_save, change, contents, filled, known_files, numbers
from power_cuts import Disk, Op, recorded

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import disk, home, journal, manifest, saved, store


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would spin: thousands of rows are searched, a few at a time
    yield
    torch.set_num_threads(threads)


class Story:
    """What happens in a folder, as it is recorded: the versions that were there, and the sure ones.

    Parameters
    ----------
    root
        Has the folder `index` in it, or will have it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "index"
        self.ops: list[Op] = []
        self.known: dict[int | None, Contents | None] = {None: None}
        self.sure: list[tuple[int, int | None]] = [(0, None)]

    def made(self, index: ItemIndex) -> None:
        """A change came."""
        self.known[index.version] = contents(index)

    def safe(self, index: ItemIndex) -> None:
        """The changes that came are to survive whatever comes now."""
        self.made(index)
        self.sure.append((len(self.ops), index.version))

    def change(self, index: ItemIndex) -> None:
        """Make the next change."""
        change(index)
        self.made(index)


def a_first_save(story):
    yield
    index = filled(dim=2, removed=True)
    story.made(index)
    index.save(story.folder)
    story.safe(index)


def a_save_of_changes(story, mmap=False):
    filled(dim=2, removed=True).save(story.folder)
    index = ItemIndex.load(story.folder, mmap=mmap)
    story.safe(index)
    yield
    for _ in range(4):
        story.change(index)
    del story.known[6], story.known[7], story.known[8]  # these were never saved
    index.save(story.folder)
    story.safe(index)


def a_save_of_something_else(story):
    old, new = filled(dim=2), filled(dim=2, removed=True, seed=7)
    old.save(story.folder)
    story.safe(old)
    yield
    story.made(new)
    new.save(story.folder)
    story.safe(new)


def a_save_of_mapped_rows_written_anew(story):
    filled(dim=2, removed=True).save(story.folder)
    index = ItemIndex.load(story.folder, mmap=True)
    story.safe(index)
    yield
    index.compact()
    index.remove(list(index)[:20])
    story.made(index)
    index.save(story.folder)
    story.safe(index)


def changes_in_a_journal(story):
    filled(dim=2).save(story.folder)
    story.safe(ItemIndex.load(story.folder))
    yield
    with ItemIndex.open(story.folder) as index:
        for step in range(6):
            story.change(index)
            if step in (2, 3):
                index.sync()
                story.safe(index)


def saves_with_a_journal(story):
    filled(dim=2).save(story.folder)
    story.safe(ItemIndex.load(story.folder))
    yield
    index = ItemIndex.open(story.folder)
    story.change(index)
    index.sync()
    story.safe(index)
    story.change(index)
    for _ in range(2):
        index.save(story.folder)
        story.safe(index)
        story.change(index)
    index.sync()
    story.safe(index)
    index.close()


def a_journal_that_was_torn(story):
    torn(story)
    yield
    go_on(story)


def a_save_that_was_broken_off(story):
    """So that there are two journals, one after the other."""
    filled(dim=2).save(story.folder)
    with ItemIndex.open(story.folder) as index:
        story.change(index)
        broken_off_save(index, story.folder)
        story.change(index)
        story.safe(index)
    yield
    go_on(story)


def torn(story):
    filled(dim=2).save(story.folder)
    with ItemIndex.open(story.folder) as index:
        story.change(index)
        story.safe(index)
        index.add([500], numbers(1, 2, seed=1))
    (path,) = story.folder.glob("journal-*")
    os.truncate(path, path.stat().st_size - 5)


def go_on(story):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        index = ItemIndex.open(story.folder)
    story.change(index)
    index.sync()
    story.safe(index)
    story.change(index)
    index.save(story.folder)
    story.safe(index)
    index.close()


STORIES = {
    story.__name__: story
    for story in (
        a_first_save,
        a_save_of_changes,
        a_save_of_something_else,
        a_save_of_mapped_rows_written_anew,
        changes_in_a_journal,
        saves_with_a_journal,
        a_journal_that_was_torn,
        a_save_that_was_broken_off,
    )
}


@pytest.mark.parametrize("name", STORIES)
def test_a_power_cut_at_any_point_leaves_the_old_or_the_new_index(tmp_path, monkeypatch, name):
    story, start = told(tmp_path, name)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # what is asked for here may be lost
    assert problems(story, start, tmp_path / "left") == []


@pytest.mark.parametrize("name", STORIES)
def test_nothing_is_done_to_files_but_what_is_recorded(tmp_path, name):
    story, there = told(tmp_path, name)
    for op in story.ops:
        there.do(op)
    paths = [path for path in story.root.rglob("*") if path.is_file()]
    assert there.seen() == {
        path.relative_to(story.root).as_posix(): path.read_bytes() for path in paths
    }
    assert story.ops


class NoSync:
    """`os`, but that `fsync` of some does nothing."""

    def __init__(self, what):
        self.what = what

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, handle):
        if not self.what(os.fstat(handle).st_mode):
            os.fsync(handle)


def no_sync_of_files(patch):
    patch.setattr(disk, "os", NoSync(stat.S_ISREG))


def no_sync_of_folders(patch):
    patch.setattr(disk, "os", NoSync(stat.S_ISDIR))


def no_sync_before_the_manifest(patch):
    def commit(self, found):
        manifest.write(found, self.folder)
        saved.sweep(self.folder, found)

    patch.setattr(saved.Save, "commit", commit)


def swept_before_the_manifest(patch):
    def commit(self, found):
        disk.sync_folder(self.folder)
        saved.sweep(self.folder, found)
        manifest.write(found, self.folder)

    patch.setattr(saved.Save, "commit", commit)


def a_manifest_written_in_its_place(patch):
    def replace(path, data):
        if path.exists():
            path.unlink()
        disk.write_new(path, [data])
        disk.sync_folder(path.parent)

    patch.setattr(disk, "replace", replace)


def a_manifest_whose_name_is_not_waited_for(patch):
    def replace(path, data):
        temporary = path.with_name(f".{path.name}.{disk.new_token()}")
        disk.write_new(temporary, [data])
        temporary.replace(path)

    patch.setattr(disk, "replace", replace)


def a_folder_whose_name_is_not_waited_for(patch):
    patch.setattr(disk, "make_folder", lambda folder: folder.mkdir())


def no_sync_of_journals(patch):
    patch.setattr(journal.Journal, "sync", lambda self: None)


def a_journal_that_goes_before_its_save(patch):
    turn = home.Home.turn

    def early(self, kind, number):
        if (old := self.journal) is None:
            return turn(self, kind, number)
        token = turn(self, kind, number)
        (self.folder / f"journal-{old.token}.log").unlink()
        disk.sync_folder(self.folder)
        return token

    patch.setattr(home.Home, "turn", early)


@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("a_first_save", no_sync_of_files),
        ("a_save_of_changes", no_sync_of_files),
        ("a_save_of_changes", no_sync_of_folders),
        ("changes_in_a_journal", no_sync_of_folders),
        ("changes_in_a_journal", no_sync_of_journals),
        ("saves_with_a_journal", no_sync_of_journals),
        ("saves_with_a_journal", a_journal_that_goes_before_its_save),
        ("a_save_of_changes", no_sync_before_the_manifest),
        ("a_save_of_changes", swept_before_the_manifest),
        ("a_save_of_changes", a_manifest_written_in_its_place),
        ("a_save_of_changes", a_manifest_whose_name_is_not_waited_for),
        ("a_first_save", a_folder_whose_name_is_not_waited_for),
    ],
)
def test_the_model_finds_a_missing_sync(tmp_path, monkeypatch, name, sabotage):
    with pytest.MonkeyPatch.context() as patch:
        sabotage(patch)
        story, start = told(tmp_path, name)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    assert problems(story, start, tmp_path / "left", first=True)


def told(folder: Path, name: str) -> tuple[Story, Disk]:
    """A story, and the disk as it was before what is recorded of it."""
    story = Story(folder / "disk")
    story.root.mkdir()
    steps = STORIES[name](story)
    next(steps)
    start = Disk(story.root)
    # What was not waited for is still sure here: before the story there was no power cut.
    story.sure = [(0, story.sure[-1][1])]
    with recorded(story.root) as ops:
        story.ops = ops
        assert next(steps, None) is None
    return story, start


def problems(story: Story, start: Disk, folder: Path, first: bool = False) -> list[str]:
    """What is wrong in the folders that power cuts can leave; none where all is as promised."""
    there, rng, found = copy.deepcopy(start), random.Random(0), []
    known: dict[frozenset, int | str | None] = {}
    for number in range(len(story.ops) + 1):
        if number:
            there.do(story.ops[number - 1])
        sure = [version for at, version in story.sure if at <= number][-1]
        for left in there.left(rng):
            key = frozenset(left.items())
            if key not in known:
                modes = (len(known) % 2 == 0,) if first else (False, True)
                known[key] = result(story, left, folder, modes, save=len(known) % 4 == 0)
            version = known[key]
            if isinstance(version, str):
                found.append(f"after {story.ops[number - 1 : number]}: {version}")
            elif sure is not None and (version is None or version < sure):
                found.append(f"after {story.ops[number - 1 : number]}: {version}, not {sure}")
            if found and first:
                return found
    return found


def result(
    story: Story, left: dict[str, bytes], root: Path, modes: tuple[bool, ...], save: bool
) -> int | str | None:
    """The version that is found in a folder, None where there is no index, or what is wrong."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "index").mkdir(parents=True)
    for path, data in left.items():
        (root / path).write_bytes(data)
    folder = root / "index"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".* ends with \d+ bytes of a change", RuntimeWarning)
        try:
            for mmap in modes:
                there = seen(folder, mmap)
                if there is not None and story.known.get(there.version) != there:
                    return f"version {there.version} is another than it was"
            return next_save(folder, there) if save else there and there.version
        except (ValueError, OSError) as error:
            return f"{type(error).__name__}: {error}"


def seen(folder: Path, mmap: bool) -> Contents | None:
    try:
        return contents(ItemIndex.load(folder, mmap=mmap))
    except FileNotFoundError:
        return None


def next_save(folder: Path, there: Contents | None) -> int | str | None:
    """Go on with what is left: save it, and have nothing in the folder but that."""
    opened = there is not None and there.version % 2
    index = ItemIndex.open(folder) if opened else there and ItemIndex.load(folder)
    index = index or filled(dim=2)
    index.add([700], numbers(1, 2, seed=1))
    index.save(folder)
    index.close()
    known = known_files(folder)
    names = {path.name for path in folder.iterdir()}
    if contents(ItemIndex.load(folder)) != contents(index):
        return "the save after it is another"
    if not known <= names or len(names - known) > opened:
        return f"the save after it left {names - known}"
    return None if there is None else there.version
