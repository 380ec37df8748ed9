"""What the server says about itself: health, facts, metrics, the OpenAPI document, the page."""

import base64
import hashlib
import re

import pytest
from jsonschema import Draft202012Validator

import umie


def test_health(serve):
    served = serve()
    assert served.send("GET", "/health").json() == {"status": "ready"}
    served.batcher.drain()
    response = served.send("GET", "/health")
    assert (response.status_code, response.json()) == (503, {"error": "the server is not ready"})


def test_facts(serve):
    facts = serve(max_queue=7).send("GET", "/").json()
    assert facts["umie"] == umie.__version__
    assert list(facts["tasks"]) == ["mner", "mre", "med", "meae"]
    assert "person" in facts["tasks"]["mner"]
    assert facts["media"] == ["image"]
    assert facts["limits"]["max_queue"] == 7
    served = serve()
    for path in facts["paths"]:
        assert served.send("GET", path).status_code == (405 if path.startswith("/extract") else 200), path


def test_metrics_count(serve):
    served = serve()
    for request in ({"text": "Ann"}, {"text": "Bob"}, {"text": ""}):
        served.extract(request)
    served.send("POST", "/extract/batch", json={"records": [{"text": "a"}, {"text": "b"}, {"text": ""}]})
    served.send("GET", "/else")
    served.send("GET", "/where")
    found = served.metrics()
    assert found['umie_requests_total{path="/extract",status="200"}'] == 2
    assert found['umie_requests_total{path="/extract",status="422"}'] == 1
    assert found['umie_requests_total{path="/extract/batch",status="200"}'] == 1
    assert found['umie_requests_total{path="other",status="404"}'] == 2
    assert found['umie_request_seconds_count{path="/extract"}'] == 3
    assert (found["umie_batch_records_count"], found["umie_batch_records_sum"]) == (3, 4)
    assert (found["umie_records_total"], found["umie_queue_records"]) == (4, 0)


def references(value):
    if isinstance(value, dict):
        return {value["$ref"]} if "$ref" in value else set().union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_openapi_document_describes_requests_and_answers(serve, embedded_records):
    served = serve()
    document = served.send("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert document["openapi"].startswith("3.1")  # whose schemas are JSON Schema 2020-12
    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    def validator(name):
        return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})

    content = document["paths"]["/extract"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    (request,) = schemas["ExtractRequest"]["examples"]
    found = served.extract(request)
    assert found.status_code == 200
    validator("ExtractRequest").validate(request)
    validator("ExtractResponse").validate(found.json())
    validator("ErrorResponse").validate(served.extract({"text": ""}).json())
    batch = {"records": [request, {"text": ""}]}
    validator("BatchRequest").validate(batch)
    results = served.send("POST", "/extract/batch", json=batch).json()
    validator("BatchResponse").validate(results)
    text = "Ann met Bob at the Salvation Army"
    for name, field in schemas["ExtractRequest"]["properties"].items():
        for example in field.get("examples", ()):
            image = {"image": base64.b64encode(png_of(embedded_records[0].image)).decode()}
            response = served.extract({"text": text, **image, name: example})
            assert response.status_code == 200, (name, response.text)


def png_of(image):
    import io

    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_page_loads_nothing(serve):
    page = serve().send("GET", "/docs").text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; connect-src 'self';")
    assert 'value="meae"' in page
    assert not re.search(r"(src|href)=\"?http", page)


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client"])
def test_what_is_missing_is_named(monkeypatch, umie, checkpoint, name):
    import sys

    for module in [one for one in sys.modules if one.startswith("umie.serving")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    code, _, err = umie("serve", "--model", checkpoint)
    assert (code, f"umie serve needs {name}: pip install 'umie[serve]'" in err) == (2, True)
