"""A sweep whose run folder is on an object store: run, rerun, status, pull; no secret of the environment in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import SMALL, Command, start_cluster
from s3_server import BUCKET, SECRET, S3Server, s3_server

from raysweep import load_model

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]
PASSWORD = "hunter2-hunter2-hunter2"
LEAKY = """
import os
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("leaky")
def leaky(num_classes, width=None):
    net = baseline_block(num_classes, width)
    def fail(module, inputs):
        module.seen += 1
        if module.training and module.seen > 6:  # the check before the run passes
            raise RuntimeError("cannot log in with " + os.environ["DATABASE_PASSWORD"])
    net.seen = 0
    net.register_forward_pre_hook(fail)
    return net
"""


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def on_s3(server: S3Server, tmp_path: Path) -> Iterator[Command]:
    """The command with a cluster of its own, since the shared one has another environment."""
    environment = {**server.environment(), "DATABASE_PASSWORD": PASSWORD}
    with start_cluster(environment, num_cpus=2) as cluster:
        command = Command(cluster["gcs_address"], tmp_path)
        command.environment |= {**environment, "RAYSWEEP_STORAGE": f"s3://{BUCKET}/runs"}
        yield command


def contents(server: S3Server) -> dict[str, bytes]:
    """What lies under this test's runs; other tests use the server, too."""
    client = server.client()
    return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in server.keys("runs/")}


def test_a_sweep_on_an_object_store_is_run_gone_on_with_and_pulled_and_holds_no_secret(
    on_s3: Command, server: S3Server
) -> None:
    (on_s3.folder / "my_nets.py").write_text(LEAKY)
    sweep = on_s3.folder / "small.yaml"
    text = SMALL.format(lrs="[0.1]", model="baseline_block")
    sweep.write_text(text.replace("grid:", "zip: {model.name: [baseline_block, leaky]}\ngrid:"))

    out, err = on_s3(sweep, "--import", "my_nets", "--json", code=1)
    statuses = {trial["status"] for trial in json.loads(out)["trials"]}
    assert statuses == {"finished", "failed"}
    assert "cannot log in with ***" in err
    first = contents(server)
    trials = {key: data for key, data in first.items() if "/trials/" in key and not key.endswith("/")}
    finished = next(trial["id"] for trial in json.loads(out)["trials"] if trial["status"] == "finished")
    assert {key.rpartition(".")[2] for key in trials if finished in key} == {"json", "safetensors", "npz"}

    out, _ = on_s3(sweep, "--import", "my_nets", "epochs=4", "--json", code=1)
    again = {trial["epoch"] for trial in json.loads(out)["trials"]}
    assert 4 in again

    pulled = json.loads(on_s3("pull", sweep, "--import", "my_nets", "--json")[0])
    assert load_model(pulled["path"])
    status = json.loads(on_s3("status", sweep, "--import", "my_nets", "--json")[0])
    assert {trial["status"] for trial in status["trials"]} == {"finished", "failed"}

    written = [*contents(server).values(), *(path.read_bytes() for path in Path(pulled["path"]).iterdir())]
    assert len(written) > 10
    for data in written:
        assert PASSWORD.encode() not in data
        assert SECRET.encode() not in data
    assert not [key for key in contents(server) if ".lease/" in key and not key.endswith("/")]
