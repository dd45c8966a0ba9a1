"""A profile on disk, and whether it still holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from veltair.errors import ProfileError, ProfileMissing, ProfileSchemaUnknown
from veltair.interference.machine import Cache
from veltair.interference.profile import SCHEMA_VERSION, current, default_path, make_folder, read, stale_reason, write

from .profiles import MACHINE, machine, profile, stream


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "host.json"
    write(profile(), path)
    assert read(path) == profile()
    assert current(path, MACHINE) == (profile(), "")


def test_a_write_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(profile(seed=seed), tmp_path / "host.json")
    assert [path.name for path in tmp_path.iterdir()] == ["host.json"]
    assert read(tmp_path / "host.json").seed == 2


def test_a_write_that_fails_leaves_the_older_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write(profile(seed=1), tmp_path / "host.json")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ProfileError, match=r"host\.json cannot be written: No space left on device; name another file"):
        write(profile(seed=2), tmp_path / "host.json")
    assert [path.name for path in tmp_path.iterdir()] == ["host.json"]
    assert read(tmp_path / "host.json").seed == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu": "Intel Xeon (family 6, model 143)"}, "it is of another machine: AMD EPYC"),
        ({"cpus": 64}, "it is of a machine with 2 CPUs, this one has 64"),
        ({"kernel": "6.19.0"}, "it was made under Linux 6.18.44, this is 6.19.0"),
        ({"cores": (0,)}, "it was made on cores 0,1, now we may use 0"),
        ({"quota": 1.5}, "the CPU quota was unlimited, now it is 1.5 CPUs"),
        ({"siblings": ((0, 1),)}, "the cores' siblings were others"),
        ({"nodes": ((0,), (1,))}, "the cores' nodes were others"),
        ({"caches": (Cache(3, 32 << 20, (0, 1)),)}, "the cores' caches were others"),
    ],
)
def test_a_profile_of_another_machine_is_stale_and_says_why(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    reason = stale_reason(profile(), machine(**changes))
    assert reason is not None
    assert reason.startswith(said)
    write(profile(), tmp_path / "host.json")
    found, why = current(tmp_path / "host.json", machine(**changes))
    assert found is None
    assert reason in why
    assert "veltair calibrate" in why


def test_every_fact_of_a_machine_can_make_a_profile_stale() -> None:
    others = {"cpu": "x", "kernel": "x", "cpus": 9, "cores": (9,), "quota": 9.0, "siblings": (), "nodes": (), "caches": ()}
    assert {*others} == {*MACHINE.__struct_fields__}
    assert all(stale_reason(profile(), machine(**{name: value})) for name, value in others.items())


def test_a_profile_holds_for_its_own_machine() -> None:
    assert stale_reason(profile(), machine()) is None


def test_without_a_file_one_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ProfileMissing, match="run: veltair calibrate"):
        read(tmp_path / "host.json")
    assert current(tmp_path / "host.json") == (
        None,
        f"no profile of this host at {tmp_path / 'host.json'}; run: veltair calibrate",
    )


def test_another_schema_is_told_before_anything_else_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "machine": "all new"}))
    with pytest.raises(
        ProfileSchemaUnknown, match=f"has schema version {SCHEMA_VERSION + 1}, this veltair reads {SCHEMA_VERSION}"
    ):
        read(path)


@pytest.mark.parametrize("text", ["", "no profile at all", "[1]", f'{{"schema_version": {SCHEMA_VERSION}}}', "\x00\xff"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(ProfileError, match=r"host\.json is no host profile: .*--force") as raised:
        read(tmp_path / "host.json")
    assert raised.value.code == "bad_profile"


def test_where_no_file_can_be_written_it_is_said_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match=f"cannot be written: {tmp_path}/file is no folder; name another file"):
        make_folder(tmp_path / "file" / "host.json")


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_the_default_place_is_the_users_cache_or_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("VELTAIR_HOST_PROFILE", raising=False)
    assert default_path() == Path("/caches/veltair/host.json")
    monkeypatch.setenv("VELTAIR_HOST_PROFILE", "/elsewhere.json")
    assert default_path() == Path("/elsewhere.json")


def test_pressure_lies_between_the_rungs_that_slow_the_probe_less_and_more() -> None:
    made = profile(ladder=stream(1.1, 1.2, 1.4, 1.6))
    assert [made.pressure(s) for s in (0.9, 1.0, 1.1, 1.3, 1.6, 9.0)] == pytest.approx([0.0, 0.0, 0.25, 0.625, 1.0, 1.0])


def test_a_higher_rung_that_is_felt_less_is_passed_over() -> None:
    made = profile(ladder=stream(1.0, 1.3, 1.2, 1.6))
    assert [made.pressure(s) for s in (1.0, 1.3, 1.6)] == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("ladder", [(), stream(1.0, 1.01, 1.0, 1.02)])
def test_a_probe_that_feels_nothing_tells_no_pressure(ladder: Any) -> None:
    assert profile(ladder=ladder).pressure(1.5) == 0.0
