"""The events that AWS sends a function for an HTTP request, and what it takes for an answer.

Shapes as in AWS's documentation: API Gateway REST (payload 1.0) and HTTP APIs (2.0), function URLs, Application Load
Balancer target groups with and without multi-value headers, and a direct invocation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from modelrel.targets.delivery import Response

Event = dict[str, Any]
Shape = Callable[[str, str, Mapping[str, str], bytes], Event]


def http_api(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of an API Gateway HTTP API (payload 2.0)."""
    return _second(method, path, headers, "api-id.execute-api.us-east-1.amazonaws.com") | _text(body)


def http_api_base64(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of an HTTP API whose body is encoded, as for content types that it takes for binary."""
    return _second(method, path, headers, "api-id.execute-api.us-east-1.amazonaws.com") | _encoded(body)


def function_url(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of a function URL; these encode every body."""
    return _second(method, path, headers, "url-id.lambda-url.us-east-1.on.aws") | _encoded(body)


def rest_api(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of an API Gateway REST API (payload 1.0)."""
    return {
        "resource": "/{proxy+}",
        "path": unquote(path),
        "httpMethod": method,
        "headers": {name.title(): value for name, value in headers.items()} or None,
        "multiValueHeaders": {name.title(): [value] for name, value in headers.items()} or None,
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": unquote(path).lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": method,
            "path": f"/Prod{path}",
            "protocol": "HTTP/1.1",
            "stage": "Prod",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "smoke"},
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "apiId": "api-id",
        },
        **_text(body),
    }


def load_balancer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of a load balancer."""
    return _balanced(method, path, body) | {"queryStringParameters": {}, "headers": dict(headers)}


def load_balancer_multi(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event of a load balancer with multi-value headers switched on."""
    many = {name: [value] for name, value in headers.items()}
    return _balanced(method, path, body) | {"multiValueQueryStringParameters": {}, "multiValueHeaders": many}


def direct(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Event:  # noqa: ARG001
    """Return the event of a direct invocation: the body itself."""
    event: Event = json.loads(body)
    return event


SHAPES: Final[Mapping[str, Shape]] = {
    "HTTP API (2.0) with a base64 body": http_api_base64,
    "REST API (1.0)": rest_api,
    "function URL": function_url,
    "load balancer": load_balancer,
    "load balancer with multi-value headers": load_balancer_multi,
}
"""The shapes with an HTTP request inside, besides the plain HTTP API that everything is sent as."""


def response(payload: bytes) -> Response:
    """Read what a function returned for an HTTP event; a malformed one becomes 502, as it does on AWS."""
    try:
        content = json.loads(payload)
        status, body = int(content["statusCode"]), content.get("body") or ""
        raw = base64.b64decode(body) if content.get("isBase64Encoded") else body.encode()
        many = {name: values[-1] for name, values in (content.get("multiValueHeaders") or {}).items()}
        headers = {name.lower(): value for name, value in {**many, **(content.get("headers") or {})}.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Response(502, {}, payload)
    return Response(status, headers, raw)


def dumps(event: Event) -> bytes:
    """Return an event as the Runtime API hands it out."""
    return json.dumps(event, ensure_ascii=False).encode()


def _second(method: str, path: str, headers: Mapping[str, str], domain: str) -> Event:
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": domain.partition(".")[0],
            "domainName": domain,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "smoke",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
    }


def _balanced(method: str, path: str, body: bytes) -> Event:
    arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/model/49e9d65c45c6791a"
    return {"requestContext": {"elb": {"targetGroupArn": arn}}, "httpMethod": method, "path": path, **_text(body)}


def _text(body: bytes) -> Event:
    return {"body": body.decode(), "isBase64Encoded": False}


def _encoded(body: bytes) -> Event:
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
