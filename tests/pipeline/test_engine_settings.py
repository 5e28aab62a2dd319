"""Settings of engines, and the check of a worker's versions before it is trusted with a candidate."""

import pickle

import pytest
from pydantic import ValidationError

from edgestill.pipeline.device import DeviceConfig
from edgestill.pipeline.engines import base
from edgestill.pipeline.errors import UserError


def double(number):
    return 2 * number


def test_the_default_leaves_no_trace_in_a_written_configuration():
    assert "engine" not in DeviceConfig().model_dump()
    assert DeviceConfig(engine="dask").model_dump()["engine"]["name"] == "dask"
    assert DeviceConfig.model_validate(DeviceConfig(engine="ray").model_dump()).engine.name == "ray"


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "scheduler.example:8786", "tcp://[2001:db8::1]:8786"])
def test_a_dask_scheduler_elsewhere_without_tls_is_refused_in_a_sentence(address):
    with pytest.raises(ValidationError, match="is another machine without TLS") as refused:
        DeviceConfig(engine={"name": "dask", "address": address})
    assert len(refused.value.errors()) == 1


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786"])
def test_a_dask_scheduler_of_this_machine_is_taken_as_it_is(address):
    assert DeviceConfig(engine={"name": "dask", "address": address}).engine.address == address


def test_tls_needs_its_three_files(tmp_path):
    files = {name: tmp_path / name for name in ("tls_ca", "tls_cert", "tls_key")}
    address = {"name": "dask", "address": "tls://scheduler.example:8786"}
    assert DeviceConfig(engine=address | files).engine.tls_key == tmp_path / "tls_key"
    with pytest.raises(ValidationError, match="needs tls_ca, tls_cert, tls_key"):
        DeviceConfig(engine=address)
    with pytest.raises(ValidationError, match="go together; only tls_ca is given"):
        DeviceConfig(engine=address | {"tls_ca": tmp_path / "tls_ca"})


def test_a_ray_head_elsewhere_needs_rays_own_switch_for_tls(monkeypatch):
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    engine = {"name": "ray", "address": "10.0.0.5:6379"}
    with pytest.raises(ValidationError, match="is another machine without TLS"):
        DeviceConfig(engine=engine)
    assert DeviceConfig(engine=engine | {"address": "127.0.0.1:6379"}).engine.address == "127.0.0.1:6379"
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert DeviceConfig(engine=engine).engine.address == "10.0.0.5:6379"


def test_a_worker_answers_with_the_functions_result():
    assert base.answer(base.packed(double), 21) == 42


def test_a_worker_of_another_version_refuses_to_answer():
    there = {**base.versions(), "torch": "1.0"}
    refused = base.answer(pickle.dumps((there, pickle.dumps(double))), 21)
    assert isinstance(refused, UserError)
    assert "and this run 1.0; install the same" in str(refused)


class _Instant(base.Cluster):
    """Cluster of this process that loses chosen items a number of times."""

    title, tries_again = "a cluster of the test", 3

    def __init__(self, losses=None, workers=2):
        super().__init__(None, workers)
        self.losses, self.most, self.under_way = dict(losses or {}), 0, 0

    def start(self):
        pass

    def stop(self):
        pass

    def threads(self):
        return self._workers

    def hold(self, packed):
        return packed

    def submit(self, held, item):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return held, item, object()

    def finished(self, handles):
        self.under_way -= 1
        return handles[-1:]  # the last comes first

    def value(self, handle):
        held, item, _ = handle
        if self.losses.get(item, 0):
            self.losses[item] -= 1
            raise base.LostError("its workers were lost")
        return base.Answer(base.answer(held, item), 0)


def test_answers_keep_the_items_order_and_no_more_are_under_way_than_there_are_threads():
    cluster = _Instant()
    assert [answer.value for answer in cluster.answers(base.packed(double), range(9))] == [2 * n for n in range(9)]
    assert cluster.most == 2


def test_an_item_is_tried_again_three_times_and_then_given_up_alone():
    answers = list(_Instant({1: 3, 2: 4}).answers(base.packed(double), range(4)))
    assert [answer.value for answer in answers] == [0, 2, None, 6]
    assert [answer.retried for answer in answers] == [0, 3, 3, 0]
    assert [answer.lost for answer in answers] == ["", "", "its workers were lost", ""]


def test_a_cluster_without_a_worker_is_waited_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(base, "PATIENCE_S", 0.3)
    monkeypatch.setattr(base, "LOOK_S", 0.1)
    with pytest.raises(base.FailedError, match="a cluster of the test has had no worker for 0 s; start some"):
        list(_Instant(workers=0).answers(base.packed(double), range(2)))
