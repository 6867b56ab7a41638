"""`docs/permissions.md` says what the routes ask of their callers."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from tests.contract.permissions import DOCUMENT, document, permissions


def test_the_document_says_what_the_routes_ask(built: Callable[[str], FastAPI]) -> None:
    assert DOCUMENT.read_text() == document(permissions(built)), "run `make permissions` and read what changed"


def test_who_reads_data_decides_and_manages(built: Callable[[str], FastAPI]) -> None:
    """Written by hand, so that a right given to the wrong role is not only written down."""
    found = {(one.method, one.path): one.requires for one in permissions(built)}

    def may(method: str, path: str) -> set[str]:
        roles = ("owner", "admin", "engineer", "approver", "labeler", "viewer", "auditor", "end_user", "operator")
        return {role for role in roles if found[method, path].allows(role)}

    managers = {"owner", "admin"}
    assert may("GET", "/v1/files/{file_id}/content") == managers | {"engineer", "viewer", "end_user"}
    assert may("POST", "/v1/registry/models/{model}/approve") == managers | {"approver"}
    assert may("GET", "/v1/registry/models/{model}/adapter") == managers | {"engineer", "end_user"}
    assert may("POST", "/v1/labeling/projects/{project_id}/publish") == managers | {"engineer"}
    assert may("POST", "/v1/labeling/projects/{project_id}/next") == managers | {"engineer", "labeler"}
    assert may("POST", "/v1/organization/users") == managers
    assert may("GET", "/v1/organization/audit_logs") == managers | {"auditor", "operator"}
    assert may("PATCH", "/v1/organization/tenants/{tenant_id}") == {"operator"}
    assert may("GET", "/v1/organization/dead_letters") == {"operator"}
    for taking_back in (("DELETE", "/v1/models/{model}"), ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel")):
        assert may(*taking_back) == managers | {"engineer", "end_user"}
    assert may("POST", "/v1/chat/completions") == managers | {"engineer", "end_user"}
