"""The file of keys: secrets are shown once, changes are seen, refusals have a reason, and all of it is on record."""

import os
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from math import inf
from pathlib import Path

import pytest

from tests.sim.test_foreign import whom_files_are_closed_to
from tests.state.crash import cut_short
from tidegate.core.profile import Profile
from tidegate.state import keys
from tidegate.state.cap import Cap, Period
from tidegate.state.keys import KeyFile, KeysError, digest, new_id, new_secret


def profile(name: str = "alice", **fields: object) -> Profile:
    return Profile(**{"id": new_id(name), "name": name, "created_s": 100.0, **fields})  # type: ignore[arg-type]


def made(path: Path, *profiles: Profile) -> list[str]:
    """The secrets of these keys, written into the file at `path`."""
    secrets = []
    with closing(KeyFile(path, write=True)) as file:
        for one in profiles:
            secrets.append(new_secret())
            file.create(one, secrets[-1], "tester")
    return secrets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def test_a_secret_is_long_random_and_told_by_its_prefix() -> None:
    found = {new_secret() for _ in range(100)}
    assert len(found) == 100
    assert all(secret.startswith("tk-") and len(secret) == 3 + 32 and secret.isascii() for secret in found)


def test_what_was_created_is_known_by_the_digest_of_its_secret(path: Path) -> None:
    alice, bob = profile("alice", expires_s=200.0, models=("m",)), profile("bob")
    secrets = made(path, alice, bob)
    with closing(KeyFile(path)) as file:
        known = {one.digest: one for one in file.changed() or ()}
    assert [known[digest(secret.encode())].profile for secret in secrets] == [alice, bob]
    assert [known[digest(secret.encode())].until_s for secret in secrets] == [200.0, inf]


def test_the_secret_is_not_in_the_file_and_the_file_is_its_owners_alone(path: Path) -> None:
    (secret,) = made(path, profile())
    assert path.stat().st_mode & 0o077 == 0
    assert secret.encode() not in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["keys.db"]


def test_a_reader_sees_each_change_once(path: Path) -> None:
    alice = profile()
    made(path, alice)
    with closing(KeyFile(path)) as reader, closing(KeyFile(path, write=True)) as writer:
        assert len(reader.changed() or ()) == 1
        assert reader.changed() is None
        writer.create(profile("bob"), new_secret(), "tester")
        assert len(reader.changed() or ()) == 2
        assert reader.changed() is None
        writer.revoke("bob", 150.0, "tester")
        assert [one.profile for one in reader.changed() or ()] == [alice]
        assert reader.changed() is None


def test_a_reader_sees_a_file_that_was_put_in_the_place_of_the_first(path: Path) -> None:
    made(path, profile())
    with closing(KeyFile(path)) as reader:
        reader.changed()
        other = path.with_name("other")
        bob = profile("bob")
        made(other, bob)
        other.replace(path)
        assert [one.profile for one in reader.changed() or ()] == [bob]


@pytest.mark.parametrize("changed_since", [False, True])
def test_a_reader_sees_a_copy_that_was_written_over_the_file(path: Path, changed_since: bool) -> None:
    alice, bob = profile(), profile("bob")
    made(path, alice)
    copy = path.read_bytes()
    made(path, profile("mallory"))
    os.utime(path, (0.0, 0.0))  # a copy is not made within a tick of the file system's clock
    with closing(KeyFile(path)) as reader:
        assert len(reader.changed() or ()) == 2
        path.write_bytes(copy)
        if changed_since:
            # As many changes as the reader has seen: by their number it is the file that it was.
            made(path, bob)
        found = sorted([one.profile for one in reader.changed() or ()], key=lambda one: one.name)
        assert found == [alice, bob][: 1 + changed_since]
        assert reader.changed() is None


def test_a_reader_goes_on_once_the_right_file_is_back_in_its_place(path: Path) -> None:
    made(path, profile())
    with closing(KeyFile(path)) as reader:
        reader.changed()
        aside = path.rename(path.with_name("aside"))
        path.write_bytes(b"no file of keys" * 100)
        with pytest.raises(KeysError):
            reader.changed()
        aside.replace(path)
        with closing(KeyFile(path, write=True)) as writer:
            writer.revoke("alice", 150.0, "tester")
        assert reader.changed() == []


def test_a_change_that_was_cut_short_is_taken_back_by_whoever_reads_next(path: Path) -> None:
    alice = profile()
    made(path, alice)
    with closing(KeyFile(path)) as reader:
        assert len(reader.changed() or ()) == 1
        cut_short(path)
        assert [one.profile for one in reader.changed() or ()] == [alice]
        with closing(KeyFile(path)) as unread:
            cut_short(path)
            assert [one.profile for one in unread.changed() or ()] == [alice]
        cut_short(path)
        with closing(KeyFile(path)) as another:
            assert [one.profile for one in another.changed() or ()] == [alice]
        with closing(KeyFile(path, write=True)) as writer:
            writer.revoke("alice", 150.0, "tester")
        assert reader.changed() == []


def test_a_change_that_was_cut_short_is_told_with_its_remedy_where_the_reader_may_not_write() -> None:
    with tempfile.TemporaryDirectory() as folder:  # somebody else may look into, unlike pytest's
        path = Path(folder) / "keys.db"
        made(path, profile())
        reader = KeyFile(path)
        reader.changed()
        cut_short(path)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        told = f"{path}: a change to it was cut short; `tidegate keys list --file {path}` as the user who writes it"
        with closing(reader), whom_files_are_closed_to():
            with pytest.raises(KeysError, match=told):
                KeyFile(path)
            for _ in range(2):
                with pytest.raises(KeysError, match=told):
                    reader.changed()
        path.chmod(0o600)
        path.parent.chmod(0o700)
        KeyFile(path).close()


def test_a_reader_needs_no_right_to_write_and_changes_nothing(path: Path) -> None:
    made(path, profile())
    with closing(KeyFile(path)) as reader, pytest.raises(KeysError, match="readonly"):
        reader.revoke("alice", 150.0, "tester")


def test_a_file_that_vanishes_is_an_error_and_no_empty_list(path: Path) -> None:
    made(path, profile())
    with closing(KeyFile(path)) as reader:
        reader.changed()
        path.unlink()
        with pytest.raises(KeysError, match="No such file"):
            reader.changed()


def test_a_revoked_key_stays_on_record_under_its_id_and_its_name_is_free(path: Path) -> None:
    first, second = profile(), profile()
    made(path, first)
    with closing(KeyFile(path, write=True)) as file:
        with pytest.raises(KeysError, match="a key `alice` already"):
            file.create(second, new_secret(), "tester")
        file.revoke("alice", 150.0, "tester")
        file.create(second, new_secret(), "tester")
        assert file.find("alice") == second
        assert file.find(first.id).revoked_s == 150.0
        with pytest.raises(KeysError, match="was revoked"):
            file.rotate(first.id, new_secret(), 160.0, 0.0, "tester")
        # By that name it would be the revoked one that is found.
        with pytest.raises(KeysError, match="is the id of a key"):
            file.create(profile(first.id), new_secret(), "tester")


def test_the_old_secret_of_a_rotated_key_ends_at_once_or_after_the_grace(path: Path) -> None:
    (old,) = made(path, profile())
    secrets = [old, new_secret(), new_secret(), new_secret()]
    with closing(KeyFile(path, write=True)) as file:
        file.rotate("alice", secrets[1], 1000.0, 60.0, "tester")
        assert untils(file, secrets) == [1060.0, inf, None, None]
        file.rotate("alice", secrets[2], 1010.0, 600.0, "tester")
        assert untils(file, secrets) == [1060.0, 1610.0, inf, None]
        file.rotate("alice", secrets[3], 1020.0, 0.0, "tester")
        assert untils(file, secrets) == [None, None, None, inf]


def test_a_key_that_has_expired_gets_no_other_secret_and_its_name_is_free_once_it_is_revoked(path: Path) -> None:
    secret, another = new_secret(), new_secret()
    old = profile(expires_s=1000.0)
    made(path, old)
    with closing(KeyFile(path, write=True)) as file:
        assert file.rotate("alice", secret, 999.0, 0.0, "tester") == old
        with pytest.raises(KeysError, match=r"expired 1970-01-01.*revoke it and create another"):
            file.rotate("alice", another, 1000.0, 0.0, "tester")
        assert untils(file, [secret, another]) == [1000.0, None]
        assert len(file.audit(10)) == 2
        file.revoke("alice", 1001.0, "tester")
        file.create(profile(), another, "tester")


def untils(file: KeyFile, secrets: list[str]) -> list[float | None]:
    """Until when each of them works; None where it does not."""
    with closing(KeyFile(file.path)) as reader:
        known = {one.digest: one.until_s for one in reader.changed() or ()}
    return [known.get(digest(secret.encode())) for secret in secrets]


def test_every_change_is_on_record_and_the_record_cannot_be_changed(path: Path) -> None:
    alice = profile(concurrency=3)
    (secret,) = made(path, alice)
    with closing(KeyFile(path, write=True)) as file:
        file.rotate("alice", new_secret(), 110.0, 0.0, "carol")
        file.revoke("alice", 120.0, "dave")
        rows = file.audit(10)
        assert [(row.at_s, row.who, row.key) for row in rows] == [
            (100.0, "tester", alice.id), (110.0, "carol", alice.id), (120.0, "dave", alice.id)
        ]  # fmt: skip
        assert [row.what.split(maxsplit=1)[0].rstrip(":,") for row in rows] == ["created", "rotated", "revoked"]
        assert '"concurrency":3' in rows[0].what
        assert file.audit(1) == rows[-1:]
    assert secret not in str(rows)
    with closing(sqlite3.connect(path)) as db:
        for attempt in ("DELETE FROM audit", "UPDATE audit SET who = 'nobody'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                db.execute(attempt)


def test_a_change_that_is_refused_leaves_no_line(path: Path) -> None:
    made(path, profile())
    with closing(KeyFile(path, write=True)) as file:
        before = file.audit(10)
        with pytest.raises(KeysError):
            file.create(profile(), new_secret(), "tester")
        assert file.audit(10) == before
        assert len(file.profiles()) == 1


def test_two_who_make_the_file_at_once_both_find_their_key_in_it(path: Path) -> None:
    names = [f"n{number}" for number in range(4)]
    together = threading.Barrier(len(names))

    def create(name: str) -> None:
        together.wait()
        made(path, profile(name))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(create, names))
    with closing(KeyFile(path)) as file:
        assert sorted(one.name for one in file.profiles()) == names


def test_a_file_whose_making_was_cut_short_is_made(path: Path) -> None:
    path.touch()
    with pytest.raises(KeysError, match="no file of keys"):
        KeyFile(path)
    assert len(made(path, profile())) == 1


def test_what_is_no_file_of_keys_is_refused_with_its_reason(path: Path) -> None:
    with pytest.raises(KeysError, match=r"no such file.*tidegate keys create"):
        KeyFile(path)
    path.write_bytes(b"SQLite format 2, or what not" * 50)
    with pytest.raises(KeysError, match="not a database"):
        KeyFile(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE key (id)")
    with pytest.raises(KeysError, match="no file of keys"):
        KeyFile(path, write=True)


def test_another_format_is_refused_with_both_numbers(path: Path) -> None:
    made(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {keys.FORMAT + 1}")
    with pytest.raises(KeysError, match=f"format {keys.FORMAT + 1}.*reads {keys.FORMAT}"):
        KeyFile(path)


def test_a_damaged_profile_is_refused_rather_than_let_through_without_its_limits(path: Path) -> None:
    made(path, profile(concurrency=1))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE key SET profile = replace(profile, '\"concurrency\":1', '\"concurrency\":-1')")
        db.commit()
    with closing(KeyFile(path)) as file, pytest.raises(KeysError, match=r"damaged.*concurrency"):
        file.changed()


def test_budgets_become_caps_under_the_id_of_the_key() -> None:
    alice, bob = profile("alice", usd_per_day=2.0, usd_per_month=30.0), profile("bob")
    assert keys.caps([alice, bob]) == (
        Cap(usd=2.0, period=Period.DAY, key=alice.id),
        Cap(usd=30.0, period=Period.MONTH, key=alice.id),
    )
