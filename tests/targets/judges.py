"""Judges of deploy files that we did not write: the SDKs of the platforms, each with the versions that it asks for."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate

from tests.serving.clients import CLIENTS, _made, run_client

KSERVE = """
import json, re, sys, yaml
import kserve.models

def check(value, kind, where):
    # what is Kubernetes' own (V1Container ...) has another judge
    of = re.fullmatch(r"list\\[(.+)\\]", kind)
    if of:
        for one in value:
            check(one, of[1], where)
    elif kind in ("int", "str", "bool"):
        assert type(value).__name__ == kind, f"{where} is {value!r}, not {kind}"
    elif hasattr(kserve.models, kind):
        model = getattr(kserve.models, kind)
        fields = {name: model.openapi_types[own] for own, name in model.attribute_map.items()}
        for name, inner in value.items():
            assert name in fields, f"{where} has no {name}"
            check(inner, fields[name], f"{where}.{name}")

def read(folder):
    given = yaml.safe_load(open(f"{folder}/inferenceservice.yaml"))
    check(given, "V1beta1InferenceService", "InferenceService")
    return given
"""

VERTEX = """
import json, sys
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format

kinds = {"upload.json": v1.UploadModelRequest, "endpoint.json": v1.Endpoint, "deploy.json": v1.DeployModelRequest}

def read(folder):
    said = {}
    for name, kind in kinds.items():
        message = json_format.ParseDict(json.load(open(f"{folder}/{name}")), kind.pb(kind()))
        said[name] = json_format.MessageToDict(message)
    return said
"""

AZURE = """
import json, sys
from azure.ai.ml import load_online_deployment, load_online_endpoint

def read(folder):
    endpoint = load_online_endpoint(f"{folder}/endpoint.yaml")
    deployment = load_online_deployment(f"{folder}/deployment.yaml")
    return {"endpoint": endpoint._to_dict(), "deployment": deployment._to_dict()}
"""

EACH = """
said = []
for folder in sys.argv[1:]:
    try:
        said.append(read(folder))
    except Exception as error:
        said.append({"error": str(error) or repr(error)})
print(json.dumps(said, default=str))
"""


def kserve(*folders: Path) -> Any:
    """Return each InferenceService, or what KServe's SDK has no field for, or one of another type."""
    return run_client(_made(*CLIENTS), KSERVE + EACH, *folders)


def vertex(*folders: Path) -> Any:
    """Return the requests in each folder as Vertex AI's own messages have read them; an unknown field is an error."""
    return run_client(_made("google-cloud-aiplatform==2.7.0"), VERTEX + EACH, *folders)


def azure(*folders: Path) -> Any:
    """Return what is in each folder as Azure ML's own schemas have read it; an unknown field is an error."""
    return run_client(_made("azure-ai-ml==1.35.2"), AZURE + EACH, *folders)


def aws_commands() -> Path:
    """Return the folder of the programs `aws` and `moto_server`, a SageMaker that runs here."""
    return _made("awscli==1.46.3", "moto[server]==5.2.5").parent


@cache
def _sagemaker() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def sagemaker(operation: str, request: Any) -> list[str]:
    """Return what is wrong with a request by AWS's own model of the service: types, limits, patterns, words."""
    shape = _sagemaker().operation_model(operation).input_shape
    report = botocore.validate.ParamValidator().validate(request, shape)
    return [report.generate_report()] if report.has_errors() else list(_unfit(request, shape, operation))


def _unfit(value: Any, shape: Any, where: str) -> Any:
    """Yield the texts that do not fit the pattern, the length or the words of their shape; botocore leaves these."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from _unfit(inner, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for inner in value:
            yield from _unfit(inner, shape.member, f"{where}[]")
    elif shape.type_name == "string":
        pattern, most = shape.metadata.get("pattern"), shape.metadata.get("max", len(value))
        # AWS writes Unicode's classes as Java does
        known = (pattern or "").replace(r"\p{L}\p{Z}\p{N}", r"\w\s")
        if pattern and not re.fullmatch(known, value):
            yield f"{where} is {value!r}, not {pattern}"
        if len(value) > most or (getattr(shape, "enum", None) and value not in shape.enum):
            yield f"{where} is {value!r}"
