"""The run form: short, drawn from the typed configuration, refused in the command line's words."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.config.form import ENTRIES, apply, form_schema, values_of
from edgestill.flows.prefect.deployments import KINDS, TAG, parameters_of, schema_of
from edgestill.flows.prefect.refusal import RefusesBadForms, refused
from edgestill.pipeline.errors import ConfigError

DIGITS = load_config(None, "digits", [])


def test_the_form_is_short_and_every_field_is_described() -> None:
    schema = form_schema()
    assert len(schema["properties"]) < 20
    assert all(part["description"] for part in schema["properties"].values())
    assert [part["position"] for part in schema["properties"].values()] == list(range(len(schema["properties"])))
    assert list(schema["properties"])[:5] == ["name", "data", "data_path", "teacher", "max_params"]


def test_bounds_and_choices_are_those_of_the_configuration() -> None:
    parts = form_schema()["properties"]
    assert parts["epochs"]["minimum"] == 1
    assert {"type": "integer", "minimum": 1} in parts["max_params"]["anyOf"]
    assert {"type": "number", "exclusiveMinimum": 0} in parts["max_latency_ms"]["anyOf"]
    assert "lelp" in parts["methods"]["items"]["enum"]
    assert "int8" in parts["formats"]["items"]["enum"]


def test_only_what_may_be_empty_is_optional() -> None:
    schema = form_schema()
    empty = [name for name, value in values_of(RunConfig()).items() if value is None]
    assert set(empty) <= set(schema["properties"]) - set(schema["required"])
    assert "epochs" in schema["required"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_deployment_is_made_with_fits_its_own_form(kind: str) -> None:
    from prefect.utilities.schema_tools.validation import is_valid_schema, validate

    schema = schema_of(kind, DIGITS)
    is_valid_schema(schema)
    shown = {name: part["default"] for name, part in schema["properties"].items() if "default" in part}
    validate(parameters_of(kind, DIGITS, "runs") | shown, schema, raise_on_error=True)
    assert json.dumps(schema)


def test_a_form_left_as_it_is_changes_nothing() -> None:
    assert apply(DIGITS, values_of(DIGITS)) == DIGITS


def test_a_filled_form_does_what_set_does() -> None:
    given = values_of(DIGITS) | {"max_params": 5000, "methods": ["lelp"], "more": ["search.budget.max_flops=9000"]}
    settings = ["search.budget.max_params=5000", "distill.methods=[lelp]", "search.budget.max_flops=9000"]
    assert apply(DIGITS, given) == load_config(None, "digits", settings)
    assert apply(DIGITS, {"teacher": "resnet20"}).teacher.architecture == "resnet20"


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"max_params": -1}, "search.budget.max_params=-1"),
        ({"seed": "x"}, "seed=x"),
        ({"methods": ["kd", "lelp"]}, "distill.methods=[kd,lelp]"),
        ({"more": ["sede=1"]}, "sede=1"),
        ({"data": "npz"}, "data.name=npz"),
    ],
)
def test_a_bad_value_is_refused_in_the_command_lines_words(given: dict[str, object], setting: str) -> None:
    with pytest.raises(ConfigError) as told:
        load_config(None, "digits", [setting])
    problem = refused({"config": DIGITS.model_dump(mode="json"), "settings": values_of(DIGITS) | given})
    assert problem == str(told.value).replace("--set ", "")


def test_an_unknown_field_is_refused_with_those_like_it() -> None:
    with pytest.raises(ConfigError, match=r"seet: unknown field; did you mean 'seed'"):
        apply(DIGITS, {"seet": 1})


def test_every_entry_names_a_key_of_the_configuration() -> None:
    for name, entry in ENTRIES.items():
        assert entry.key.split(".")[0] in RunConfig.model_fields, name


class _Prefect:
    """The part of a Prefect server that the check of forms asks: a deployment, and the making of a run."""

    def __init__(self, tags: list[str]) -> None:
        self.made: list[dict[str, Any]] = []
        self._deployment = {
            "tags": tags,
            "parameters": parameters_of("compress", DIGITS, "runs"),
            "parameter_openapi_schema": schema_of("compress", DIGITS),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            message = await receive()
            assert int(dict(scope["headers"])[b"content-length"]) == len(message["body"])
            self.made.append(json.loads(message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(self._deployment).encode()})


def posted(server: Any, body: Any) -> httpx.Response:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(RefusesBadForms(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(f"/api/deployments/{uuid4()}/create_flow_run", json=body)

    return asyncio.run(post())


def test_the_server_refuses_a_bad_form_and_fills_a_partial_one() -> None:
    server = _Prefect([TAG])
    refusal = posted(server, {"parameters": {"settings": {"max_params": -1}}})
    assert refusal.status_code == 409
    assert refusal.json()["detail"].startswith("search.budget.max_params: input should be greater")
    assert server.made == []
    assert posted(server, {"parameters": {"settings": {"max_params": 5000}}}).is_success
    assert server.made[0]["parameters"]["settings"] == values_of(DIGITS) | {"max_params": 5000}
    assert posted(server, {}).is_success
    assert server.made[1] == {}


def test_deployments_of_others_are_not_the_servers_to_check() -> None:
    server = _Prefect([])
    body = {"parameters": {"settings": {"max_params": -1}}}
    assert posted(server, body).is_success
    assert server.made == [body]
