"""`ItemIndex` after its process is killed at any point of a save, or of changes in its journal.

A fork of tests/index_kills.py is killed each time; tests/test_index_power_cuts.py has the rest.
"""

from __future__ import annotations

import index_kills
from index_folders import said_by


def test_a_kill_at_each_call_to_the_system_leaves_the_old_or_the_new_index(tmp_path):
    found = said_by(index_kills.__file__, "each_call", str(tmp_path))
    assert len(found) == 2 * len(index_kills.ACTS)
    assert {name: one["wrong"] for name, one in found.items() if one["wrong"]} == {}
    for name, one in found.items():
        versions = one["versions"]
        assert len(versions) == one["calls"] + 1 > 2
        # The later it comes the more there is: first all that was before, and all in the end.
        assert versions == sorted(versions)
        assert len(set(versions)) == (4 if name.startswith("save_with_journal") else 2)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_index(tmp_path):
    found = said_by(index_kills.__file__, "any_moment", str(tmp_path))
    assert found["wrong"] == []
    assert found["killed"] == index_kills.ROUNDS
    # They came before and after saves, and in the middle of some.
    assert 0 < found["on"] < index_kills.ROUNDS
    assert found["leftovers"] > 0
