"""What a node is told before it goes away, as a trial's process hears of it: EC2's metadata, Ray's drains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from metadata_server import Metadata, serve_metadata

from raysweep.worker import notices
from raysweep.worker.notices import Notices

ACTION = '{"action": "terminate", "time": "2026-09-18T08:22:00Z"}'
REBALANCE = '{"noticeTime": "2026-09-18T08:10:00Z"}'


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serve_metadata() as running:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", running.url)
        yield running


class Cluster:
    """Stands for Ray: the nodes that are drained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drained: dict[str, int] = {}
        self.asked: list[datetime] = []
        monkeypatch.setattr(notices.state.state, "get_draining_nodes", lambda: self.drained)
        monkeypatch.setattr(notices, "drain", self.asked.append)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_no_notice_is_none(metadata: Metadata, cluster: Cluster) -> None:
    watched = Notices(["a"])
    watched.look()
    assert watched.since is None
    assert {path for _, path in metadata.asked} >= {
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/events/recommendations/rebalance",
    }


def test_a_spot_interruption_is_a_notice_and_ray_is_told_once_when_the_node_ends(
    metadata: Metadata, cluster: Cluster
) -> None:
    watched = Notices(["a"])
    watched.look()
    metadata.documents["spot/instance-action"] = ACTION
    watched.look()
    since = watched.since
    assert since is not None
    watched.look()
    assert watched.since == since
    assert cluster.asked == [datetime(2026, 9, 18, 8, 22, tzinfo=UTC)]


def test_a_rebalance_recommendation_is_a_notice_but_the_node_may_still_take_trials(
    metadata: Metadata, cluster: Cluster
) -> None:
    metadata.documents["events/recommendations/rebalance"] = REBALANCE
    watched = Notices(["a"])
    watched.look()
    assert watched.since is not None
    assert not cluster.asked


def test_a_token_that_has_expired_is_renewed(metadata: Metadata, cluster: Cluster) -> None:
    watched = Notices(["a"])
    watched.look()
    metadata.token = "another"
    metadata.documents["events/recommendations/rebalance"] = REBALANCE
    watched.look()
    assert watched.since is not None


def test_metadata_that_do_not_answer_or_answer_nonsense_are_no_notice(metadata: Metadata, cluster: Cluster) -> None:
    watched = Notices(["a"])
    for nonsense in ("", "<html>", "[]", "{}", '{"time": "soon"}'):
        metadata.documents["spot/instance-action"] = nonsense
        watched.look()
        assert watched.since is None
    metadata.fault = 503
    watched.look()
    assert watched.since is None


def test_a_drain_of_any_of_the_trials_nodes_is_a_notice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notices, "here", lambda: None)
    watched = Notices(["a", "b"])
    cluster.drained = {"c": 0}
    watched.look()
    assert watched.since is None
    cluster.drained = {"c": 0, "b": 1}
    watched.look()
    assert watched.since is not None


def test_nothing_is_asked_outside_ec2_nor_where_aws_own_variable_forbids_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notices, "DMI", tmp_path)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raising=False)
    assert notices.here() is None
    (tmp_path / "sys_vendor").write_text("QEMU\n")
    assert notices.here() is None
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert notices.here() is not None
    (tmp_path / "sys_vendor").write_text("Xen\n")
    (tmp_path / "bios_version").write_text("4.11.amazon\n")
    assert notices.here() is not None
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    assert notices.here() is None
